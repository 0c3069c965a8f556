"""SSD on ResNet-50 with a feature pyramid, from scratch, on blood cells: BCCD, 205 images of 3 classes to train on.

Paper     none; the settings are ours
Command   git clone https://github.com/Shenggan/BCCD_Dataset
          swins train recipes/ssd_bccd_resnet50_b_fpn.py --data BCCD_Dataset/BCCD
          swins eval runs/ssd_bccd_resnet50_b_fpn --data BCCD_Dataset/BCCD --split test
Hardware  one GPU
Expected  torchvision's SSD300 from scratch on that machine at that time (benchmarks/torchvision_ssd_bccd.json: 400 s,
          1369 updates of 16 images): AP 24.47, AP50 65.39 of the 72 test images
Obtained  AP 51.48, AP50 85.03 of the 87 validation images, AP 50.44, AP50 87.29 of the 72 test images, after 1800
          updates, 0.174 hours of one H200 that nine other runs shared; of the validation images AP50 78.81 after 400 s
          and 82.86 after 1350 updates. On Swin-T (model.name ssd336_swin_tiny_b_fpn, optim.learning_rate 5e-4): AP50
          77.57 of the test images
"""

from swins.data.box_augment import SsdPaper
from swins.recipes import AdamW, Cosine
from swins.tasks.detection import Data, Detection, Model

RECIPE = Detection(
    model=Model("ssd300_resnet50_b_fpn"),
    data=Data(batch=16, cache=2048, threads=3),
    augment=SsdPaper(),
    optim=AdamW(learning_rate=1e-3, per_images=0),
    schedule=Cosine(warmup_rate=1e-6, min_rate=1e-6, warmup_epochs=1),
    epochs=36,
    updates_per_epoch=50,
    checkpoint_steps=0,
)
