"""SSD on Swin-T at 336 pixels: one map at stride 8 and five more.

Project   RuslanGreenhead/swin_transformer, experiment 8
Command   swins train recipes/ssd_swin_tiny_b.py --data COCO
Begins    Swin-T's published ImageNet weights; or --set model.weights=FILE (of any program)
Differs   patches are merged as in the paper, not by a convolution; drop-path acts on both branches of all kept blocks;
          biases do not decay; crowds are left out; images are scaled bicubically and antialiased,
          boxes clipped before they are scored; random numbers are not the reference's own
Hardware  there 4 GPUs of 64 images each, 6.3 to 7.5 hours
Expected  COCO val2017 AP .2581 by the project's own protocol (swins eval --protocol r_ssd)
Obtained  not run: it needs COCO and GPUs
"""

from swins.data.box_augment import Pattern1
from swins.recipes import AdamW, Steps
from swins.tasks.detection import Data, Detection, Model

RECIPE = Detection(
    model=Model("ssd336_swin_tiny_b", weights="pretrained"),
    data=Data(batch=256),
    augment=Pattern1(),
    optim=AdamW(learning_rate=1e-4, per_images=32, weight_decay=0.05, clip_norm=5.0),
    schedule=Steps(warmup_rate=1e-7, warmup_epochs=2, epochs=(34, 44, 51)),
    epochs=52,
)
