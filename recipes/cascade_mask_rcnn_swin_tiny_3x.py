"""Cascade Mask R-CNN on Swin-T: three stages, 36 epochs of COCO at several scales, half of the images a part.

Paper     arXiv:2103.14030, table 2; SwinTransformer/Swin-Transformer-Object-Detection,
          cascade_mask_rcnn_swin_tiny_patch4_window7_mstrain_480-800_giou_4conv1f_adamw_3x_coco
Command   swins train recipes/cascade_mask_rcnn_swin_tiny_3x.py --data COCO
          larger: --set model.name=cascade_mask_rcnn_swin_base_fpn
Begins    Swin-T's published ImageNet weights; or --set model.weights=FILE (of any program)
Differs   images are laid on one of two canvases, the same for a whole batch; batch norms of the heads take the
          statistics of each device's own regions under TensorFlow, of all under JAX; float32 where the project has
          fp16: --set model.dtype=mixed_bfloat16
Hardware  there 8 GPUs of 2 images each
Expected  COCO val2017: box AP .504, mask AP .437 (its README; Swin-S .519 and .450, Swin-B the same)
Obtained  not run: it needs COCO and GPUs
"""

from swins.data.instance_augment import CropOrScale
from swins.recipes import AdamW, Steps
from swins.tasks.instances import Data, Instances, Model

NO_DECAY = ("norm", "relative_position_bias_table")  # all else decays, biases and batch norms among them

RECIPE = Instances(
    model=Model("cascade_mask_rcnn_swin_tiny_fpn", weights="pretrained"),
    data=Data(batch=16),
    augment=CropOrScale(),
    optim=AdamW(
        learning_rate=1e-4, per_images=16, weight_decay=0.05, no_decay=NO_DECAY, decay_biases=True, clip_norm=0.0
    ),
    schedule=Steps(warmup_rate=1e-7, warmup_epochs=0, warmup_updates=500, epochs=(27, 33)),
    epochs=36,
)
