"""Mask R-CNN on Swin-T, the schedule "3x": 36 epochs of COCO at several scales, half of the images a part.

Paper     arXiv:2103.14030, table 2; open-mmlab/mmdetection, mask_rcnn_swin-t-p4-w7_fpn_ms-crop-3x_coco
Command   swins train recipes/mask_rcnn_swin_tiny_3x.py --data COCO
          as the project's fp16: --set model.dtype=mixed_bfloat16
Begins    Swin-T's published ImageNet weights; or --set model.weights=FILE (of any program)
Differs   images are laid on one of two canvases, the same for a whole batch
Hardware  there 8 GPUs of 2 images each
Expected  COCO val2017: box AP .460, mask AP .416 (both projects)
Obtained  not run: it needs COCO and GPUs
"""

from swins.data.instance_augment import CropOrScale
from swins.recipes import AdamW, Steps
from swins.tasks.instances import Data, Instances, Model

NO_DECAY = ("norm", "relative_position_bias_table")  # all else decays, biases and batch norms among them

RECIPE = Instances(
    model=Model("mask_rcnn_swin_tiny_fpn", weights="pretrained"),
    data=Data(batch=16),
    augment=CropOrScale(),
    optim=AdamW(
        learning_rate=1e-4, per_images=16, weight_decay=0.05, no_decay=NO_DECAY, decay_biases=True, clip_norm=0.0
    ),
    schedule=Steps(warmup_rate=1e-7, warmup_epochs=0, warmup_updates=1000, epochs=(27, 33)),
    epochs=36,
)
