"""Fine-tune a pretrained Swin on your own folder of images, one sub-folder a class.

Paper     none; the settings are ours, for small data sets: a small rate, smaller for earlier layers, light augmentation
Command   swins train recipes/finetune.py --data FOLDER
          offline, or from weights of your own, a PyTorch or .keras file, with the name of its variant:
          --set model.weights=FILE --set model.name=NAME
Hardware  any; on 2 CPU cores about 5 images/s of swin_tiny at 224 pixels (benchmarks/README.md, Training)
Expected  depends on the data
Obtained  not run on data of its own; tests/test_train.py fine-tunes the embedded model on a folder
"""

from swins.recipes import AdamW, Cosine
from swins.tasks.classification import Augment, Classification, Data, Model

RECIPE = Classification(
    model=Model("swin_tiny_patch4_window7_224.ms_in1k", weights="pretrained", drop_path_rate=0.1),
    data=Data(batch=32, crop=0.9),
    augment=Augment(scale=(0.35, 1.0), rand_augment="", color_jitter=0.2, erase=0.0, mixup=0.0, cutmix=0.0),
    optim=AdamW(learning_rate=1e-4, per_images=32, layer_decay=0.8, clip_norm=1.0),
    schedule=Cosine(warmup_rate=1e-7, min_rate=1e-6, warmup_epochs=1),
    epochs=10,
    keep="best",
    checkpoint_steps=200,
)
