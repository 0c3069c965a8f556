"""Fine-tune a published Mask R-CNN on your own images with masks: COCO JSON, Roboflow's export of it, YOLO's polygons.

Paper     none; the settings are ours, for small data sets: all weights of a model that knows COCO but the layers that
          the number of classes decides, which are fresh and named, a small rate, several scales
Command   swins train recipes/finetune_mask_rcnn.py --data FOLDER --set model.weights=FILE
          FILE: mmdetection's or Swin-Transformer-Object-Detection's checkpoint, a run or an artefact; of a Cascade
          Mask R-CNN, or of another backbone, also --set model.name=cascade_mask_rcnn_swin_small_fpn
          annotations of boxes alone: --set model.masks=False
Hardware  a GPU
Expected  depends on the data
Obtained  not run on data of its own; tests/test_instances.py fine-tunes a small model on garments
"""

from swins.data.instance_augment import KeepRatio
from swins.recipes import AdamW, Cosine
from swins.tasks.instances import Data, Instances, Model

RECIPE = Instances(
    model=Model("mask_rcnn_swin_tiny_fpn", weights="pretrained", drop_path_rate=0.1),
    data=Data(batch=8, cache=2048),
    augment=KeepRatio(short=(480, 544, 608, 672, 736, 800)),
    optim=AdamW(learning_rate=5e-5, per_images=8, clip_norm=5.0),
    schedule=Cosine(warmup_rate=1e-7, warmup_epochs=1, min_rate=5e-7),
    epochs=24,
    checkpoint_steps=200,
)
