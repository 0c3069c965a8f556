"""The embedded detector: an SSD on Swin-mini that finds garments on grey canvases of 64 pixels.

Paper     none; made to be trained on a CPU without network, from the embedded classifier
Command   swins train recipes/ssd_garments_swin_mini.py \
              --data garments:demo/fashion_mnist,count=22000,size=64,objects=1-2,scale=21-48,colour=False
Hardware  2 CPU cores
Expected  AP50 of at least 0.85 on the validation canvases, in an hour of one core
Obtained  AP 62.04, AP50 85.05 on the 5,500 validation canvases, in 50 CPU minutes: demo/ssd64_swin_mini/
"""

from swins.data.box_augment import Resize
from swins.recipes import AdamW, Cosine
from swins.tasks.detection import Data, Detection, Model, Selection

RECIPE = Detection(
    model=Model(
        "ssd64_swin_mini",
        weights="demo/fashion_mnist/swin_mini_patch2_window4_28.fashion_mnist.safetensors",
        in_chans=1,
        drop_path_rate=0.1,
    ),
    data=Data(batch=16, objects=2, mean=(0.286,), std=(0.353,)),
    augment=Resize(),
    selection=Selection(min_score=0.01),
    optim=AdamW(learning_rate=2e-3, per_images=0, ema=0.999),
    schedule=Cosine(warmup_epochs=0.25, warmup_rate=1e-5, min_rate=1e-5),
    epochs=4,
    checkpoint_steps=100,
)
