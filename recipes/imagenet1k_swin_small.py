"""Swin-S on ImageNet-1k from scratch, with Microsoft's settings.

Paper     arXiv:2103.14030, section 4.1 and appendix A2.1
Command   swins train recipes/imagenet1k_swin_small.py --data IMAGENET
Hardware  8 GPUs of 128 images in Microsoft's command
Expected  top-1 83.2 (Microsoft's repository)
Obtained  not run: ImageNet is not at hand
"""

from swins.tasks.classification import Classification, Model

RECIPE = Classification(model=Model("swin_small_patch4_window7_224", drop_path_rate=0.3, dtype="mixed_bfloat16"))
