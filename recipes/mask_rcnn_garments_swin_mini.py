"""The embedded Mask R-CNN: a small one on Swin-mini that outlines garments on grey canvases of 64 pixels.

Paper     none; made to be trained on a CPU without network, from the embedded classifier
Command   swins train recipes/mask_rcnn_garments_swin_mini.py \
              --data garments:demo/fashion_mnist,count=15000,size=64,objects=1-2,scale=21-48,colour=False
Hardware  2 CPU cores: 15 images a second and core, so 50 minutes of one for 45,000 images, and validation
Expected  box AP50 of at least 0.90 and mask AP50 of at least 0.85 on the validation canvases, in an hour
Obtained  not run to its end yet
"""

from swins.data.instance_augment import KeepRatio
from swins.recipes import AdamW, Cosine
from swins.tasks.instances import Data, Instances, Loss, Model, Selection

RECIPE = Instances(
    model=Model(
        "mask_rcnn_swin_mini_fpn",
        weights="demo/fashion_mnist/swin_mini_patch2_window4_28.fashion_mnist.safetensors",
        in_chans=1,
    ),
    data=Data(batch=16, objects=2, mean=(0.286,), std=(0.353,)),
    augment=KeepRatio(short=(64,), long=64, canvases=((64, 64),)),
    loss=Loss(candidates=64, proposals=64, anchors=96, regions=32, region_share=0.2),
    selection=Selection(min_score=0.01, boxes=20, candidates=100, proposals=100),
    optim=AdamW(learning_rate=1.5e-3, per_images=0, ema=0.999),
    schedule=Cosine(warmup_epochs=0.25, warmup_rate=1e-5, min_rate=1e-5),
    epochs=3,
    checkpoint_steps=200,
)
