"""The embedded segmenter: a UPerNet on Swin-mini that says of each pixel of a grey canvas which garment it is of.

Paper     none; made to be trained on a CPU without network, from the embedded detector
Command   swins train recipes/upernet_garments_swin_mini.py \
              --data garments:/usr/share/datasets/fashion-mnist,count=24000,size=64,objects=1-2,scale=21-48,colour=False
          the folder is Debian's: apt-get install dataset-fashion-mnist; its 60,000 training images make the canvases
          to train on
Hardware  2 CPU cores: 29 images a second and core, so 42 minutes of one for 72,000 images, and validation
Expected  an mIoU of 0.85 over 11 classes on the validation canvases is aimed at, in 45 minutes
Obtained  mIoU 65.20 in about 45 CPU minutes: not good enough to be embedded (55.30 from the classifier, with
          demo/fashion_mnist's images). Batch norms' statistics did not fit the averaged weights then; mended since
"""

from swins.data.segment_augment import Squash
from swins.recipes import AdamW, Cosine
from swins.tasks.segmentation import Data, Model, Segmentation

RECIPE = Segmentation(
    model=Model(
        "upernet_swin_mini",
        weights="demo/ssd64_swin_mini/model.keras",
        in_chans=1,
        compile=False,
    ),
    data=Data(batch=16, size=64, mean=(0.286,), std=(0.353,)),
    augment=Squash(),
    optim=AdamW(learning_rate=1.5e-3, per_images=0, ema=0.999),
    schedule=Cosine(warmup_epochs=0.25, warmup_rate=1e-5, min_rate=1e-5),
    epochs=3,
    checkpoint_steps=200,
)
