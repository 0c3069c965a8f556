"""Swin V2-T on CIFAR-10 at 32 pixels, from scratch, as ChristophReich1996/Swin-Transformer-V2 trains it.

Source    shared specification, dense.md part F: its own V2 (here `swin_transformer_v2_t`) from its own first weights,
          windows of 8, no flips or crops. Different here: the rate's cosine begins after the warm-up (there it spans
          all epochs); the scale of attention's cosines is kept as a logarithm, so that decay draws it to 1 (theirs
          divides by a number that decay draws to 0.01); bfloat16
Command   swins train recipes/cifar10_swinv2_tiny.py --data cifar-10-batches-bin
Hardware  a GPU; the source's is not known
Expected  top-1 89.74, as reported; 89.62 with deformable blocks: --set "model.deformable=(1, 2, 3)"
Obtained  not run: no GPU was at hand
"""

from swins.recipes import AdamW, Cosine
from swins.tasks.classification import Augment, Classification, Data, Model

RECIPE = Classification(
    model=Model(
        "swin_transformer_v2_t", start="torch", image_size=32, window_size=8, drop_path_rate=0.1, dtype="mixed_bfloat16"
    ),
    data=Data(batch=256, crop=1.0, mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010)),
    augment=Augment(scale=None, flip=0.0, rand_augment="rand-m9-n3-mstd0.5", erase=0.0, mixup=1.0, cutmix=1.0),
    optim=AdamW(learning_rate=1e-3, per_images=0, beta_2=0.95, clip_norm=0.0, decay_all=True),
    schedule=Cosine(warmup_rate=5e-7, min_rate=5e-6, warmup_epochs=10),
    epochs=500,
)
