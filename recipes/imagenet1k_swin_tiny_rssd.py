"""Swin-T on ImageNet-1k from scratch, as RuslanGreenhead/swin_transformer trains it.

Source    shared specification, dense.md part H: 1024 images a step, decay of every parameter, the smallest rate 1e-5
Command   swins train recipes/imagenet1k_swin_tiny_rssd.py --data IMAGENET
Hardware  4 GPUs, 119 hours, as reported
Expected  top-1 80.6, top-5 95.1, as reported; its Swin is not Microsoft's, ours is
Obtained  not run: ImageNet is not at hand
"""

from swins.recipes import AdamW
from swins.tasks.classification import Classification, Model

RECIPE = Classification(
    model=Model("swin_tiny_patch4_window7_224", drop_path_rate=0.2),
    optim=AdamW(decay_all=True),
)
