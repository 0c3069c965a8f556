"""Learn a small data set by heart, masks and all: Mask R-CNN on Swin-T, from fresh weights.

Paper     none; a check that data, boxes, masks and losses fit together: it fails only by a fault
Command   swins train recipes/mask_rcnn_overfit_swin_tiny.py --data FOLDER
          where FOLDER validates on the images that it trains on: COCO's annotations/instances_train2017.json beside a
          copy of it, instances_val2017.json, and train2017/ beside a link to it, val2017/
Hardware  one GPU
Expected  of 80 images of COCO train2017 mask AP50 of at least 0.85; at fewer pixels too many small objects have no
          anchor that overlaps them by 0.3, so that none may learn them
Obtained  not run: on one H100 (JAX 0.11, 512 pixels) the loss was no number at the second update; three updates on a
          CPU (JAX 0.10, images of 128 pixels; of 512, on Swin-mini) are sound. To be found out
"""

from swins.data.instance_augment import KeepRatio
from swins.recipes import AdamW, Cosine
from swins.tasks.instances import Data, Instances, Loss, Model

RECIPE = Instances(
    model=Model("mask_rcnn_swin_tiny_fpn"),
    data=Data(batch=8, cache=2048, threads=3),
    augment=KeepRatio(short=(800,), long=800, canvases=((800, 800),), flip=0.0),
    loss=Loss(candidates=500, proposals=500, sampling=2),
    optim=AdamW(learning_rate=4e-4, per_images=0, weight_decay=1e-4, clip_norm=5.0),
    schedule=Cosine(warmup_rate=1e-6, min_rate=1e-6, warmup_updates=200, warmup_epochs=0),
    epochs=8,
    updates_per_epoch=300,
    checkpoint_steps=0,
)
