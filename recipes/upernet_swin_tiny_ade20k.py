"""UPerNet on Swin-T, 160,000 updates of ADE20K's 150 classes.

Project   open-mmlab/mmsegmentation (swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512), mim-example
          and SwinTransformer/Swin-Transformer-Semantic-Segmentation
Command   swins train recipes/upernet_swin_tiny_ade20k.py --data ADEChallengeData2016
          swins eval runs/upernet_swin_tiny_ade20k --data ADEChallengeData2016 --protocol mmseg
          half the memory: --set model.dtype=mixed_bfloat16
Begins    Swin-T's published ImageNet weights; or --set model.weights=FILE (of any program)
Differs   biases do not decay; while it trains, validation images are squashed to 512x512: the second command keeps
          their proportions, as the published numbers do
Hardware  there 8 GPUs of 2 images each
Expected  mIoU 44.41 of ADE20K's 2,000 validation images (mmsegmentation); 44.51, and 45.81 with --inference averaged
          (Swin-Transformer-Semantic-Segmentation)
Obtained  not run: it needs ADE20K and GPUs
"""

from swins.data.segment_augment import ScaleAndCrop
from swins.recipes import AdamW, Poly
from swins.tasks.segmentation import Data, Loss, Model, Segmentation

RECIPE = Segmentation(
    model=Model("upernet_swin_tiny", weights="pretrained"),
    data=Data(batch=16, size=512),
    augment=ScaleAndCrop(),
    loss=Loss(mean="all"),
    optim=AdamW(learning_rate=6e-5, per_images=16, weight_decay=0.01, clip_norm=0.0),
    schedule=Poly(warmup_rate=6e-11, warmup_epochs=0, warmup_updates=1500),
    epochs=10,
    updates_per_epoch=16000,
)
