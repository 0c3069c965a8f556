"""Train a detector on your own images with boxes: COCO JSON, Roboflow's export of it, Pascal VOC or YOLO folders.

Paper     none; the settings are ours, for small data sets: a backbone that knows ImageNet, a small rate, the
          SSD paper's augmentation
Command   swins train recipes/ssd_finetune.py --data FOLDER
          offline, or from weights of your own, of a Swin or a detector: --set model.weights=FILE, from fresh ones
          --set model.weights= (and --set optim.learning_rate=1e-3)
Hardware  any; on 2 CPU cores about 3 images/s
Expected  depends on the data
Obtained  not run on data of its own; tests/test_detection.py fine-tunes the embedded detector on garments
"""

from swins.data.box_augment import SsdPaper
from swins.recipes import AdamW, Cosine
from swins.tasks.detection import Data, Detection, Model

RECIPE = Detection(
    model=Model("ssd336_swin_tiny_b_fpn", weights="pretrained", drop_path_rate=0.1),
    data=Data(batch=16, cache=2048),
    augment=SsdPaper(),
    optim=AdamW(learning_rate=2e-4, per_images=16, clip_norm=5.0),
    schedule=Cosine(warmup_rate=1e-6, min_rate=2e-6, warmup_epochs=1),
    epochs=40,
    checkpoint_steps=200,
)
