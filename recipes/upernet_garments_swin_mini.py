"""The embedded segmenter, its first part: a UPerNet on Swin-mini that says of each pixel which garment it is of.

Paper     none; made to be trained on a CPU without network, from the embedded Mask R-CNN
Command   swins train recipes/upernet_garments_swin_mini.py \
              --data garments:/usr/share/datasets/fashion-mnist,count=24000,size=64,objects=1-2,scale=21-48,colour=False
          the folder is Debian's: apt-get install dataset-fashion-mnist; its 60,000 training images make the canvases
          to train on
Hardware  2 CPU cores: 26 images a second and core, so 46 minutes of one for 72,000 images, and validation
Expected  an mIoU of 0.85 over 11 classes on the validation canvases is aimed at, in 45 minutes
Obtained  mIoU 60.83 on its 6,000 validation canvases, in about an hour of one core; upernet_garments_swin_mini_more.py
          goes on from there, and made the embedded one
"""

from swins.data.segment_augment import Squash
from swins.recipes import AdamW, Cosine
from swins.tasks.segmentation import Data, Model, Segmentation

RECIPE = Segmentation(
    model=Model(
        "upernet_swin_mini",
        weights="demo/mask_rcnn_swin_mini_fpn/model.keras",
        in_chans=1,
        compile=False,
    ),
    data=Data(batch=16, size=64, mean=(0.286,), std=(0.353,)),
    augment=Squash(),
    optim=AdamW(learning_rate=1e-3, per_images=0, ema=0.999),
    schedule=Cosine(warmup_epochs=0.25, warmup_rate=1e-5, min_rate=1e-5),
    epochs=3,
    checkpoint_steps=200,
)
