"""Swin-T on Tiny ImageNet at 64 pixels, from scratch.

Source    shared specification, dense.md part G: a README's numbers; what it leaves open is ours, marked *
          * area of crops, colour jitter's and RandAugment's strength, erasing, Mixup, CutMix, smoothing, batch, the
          smallest rate. Windows: clipped where a map is smaller, else padded
Command   swins train recipes/tiny_imagenet_swin_tiny.py --data tiny-imagenet-200
Hardware  a GPU; the source's is not known
Expected  top-1 about 56, as reported
Obtained  not run: no GPU was at hand
"""

from swins.recipes import AdamW, Cosine
from swins.tasks.classification import Augment, Classification, Data, Model

RECIPE = Classification(
    model=Model(
        "swin_tiny_patch4_window7_224",
        image_size=64,
        num_heads=(2, 4, 8, 16),
        drop_path_rate=0.2,
        dtype="mixed_bfloat16",
    ),
    data=Data(batch=256, crop=1.0, mean=(0.4802, 0.4481, 0.3975), std=(0.2770, 0.2691, 0.2821)),
    augment=Augment(scale=(0.5, 1.0), rand_augment="rand-m9-n2-mstd0.5", color_jitter=0.3),
    optim=AdamW(learning_rate=3e-4, per_images=0, clip_norm=3.0, no_decay=()),
    schedule=Cosine(warmup_rate=3e-6, min_rate=1e-6, warmup_epochs=10),
    epochs=200,
)
