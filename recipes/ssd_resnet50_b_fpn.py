"""SSD on ResNet-50 at 300 pixels: one map at stride 8 and five more, feature pyramid.

Project   RuslanGreenhead/swin_transformer, experiment 4
Command   swins train recipes/ssd_resnet50_b_fpn.py --data COCO
Begins    torchvision's IMAGENET1K_V2 weights, through timm's copy on the Hub; or --set model.weights=FILE
Differs   crowds are left out; images are scaled bicubically and antialiased,
          boxes clipped before they are scored; random numbers are not the reference's own
Hardware  there 4 GPUs of 64 images each, 6.3 to 7.5 hours
Expected  COCO val2017 AP .2502 by the project's own protocol (swins eval --protocol r_ssd)
Obtained  not run: it needs COCO and GPUs
"""

from swins.data.box_augment import Pattern1
from swins.recipes import Sgd, Steps
from swins.tasks.detection import Data, Detection, Model

RECIPE = Detection(
    model=Model("ssd300_resnet50_b_fpn", weights="pretrained"),
    data=Data(batch=256),
    augment=Pattern1(),
    optim=Sgd(learning_rate=2.6e-3, per_images=32, weight_decay=5e-4, momentum=0.9, clip_norm=5.0),
    schedule=Steps(warmup_rate=1e-5, warmup_epochs=1, epochs=(43, 54)),
    epochs=65,
)
