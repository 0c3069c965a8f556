"""Fine-tune the embedded model on a task of 300 pictures, all weights at once.

Source    none; what turned_garments_two_phases.py is compared with
Command   python recipes/data/turned_garments.py turned_garments
          swins train recipes/turned_garments_one_phase.py --data turned_garments
Hardware  2 CPU cores
Expected  depends on the rate: a fresh head wants a larger one than the backbone
Obtained  top-1 84.25 of 400 images in 226 s of 2 CPU cores that others shared; with a rate of 3e-4 75.25;
          results/turned_garments_one_phase/
"""

from swins.recipes import AdamW, Cosine
from swins.tasks.classification import Augment, Classification, Data, Model

RECIPE = Classification(
    model=Model(
        "swin_mini_patch2_window4_28.fashion_mnist",
        weights="demo/fashion_mnist/swin_mini_patch2_window4_28.fashion_mnist.safetensors",
        drop_path_rate=0.1,
        compile=False,
    ),
    data=Data(batch=20, crop=1.0),
    augment=Augment(scale=None, pad=2, flip=0.0, rand_augment="", erase=0.0, mixup=0.0, cutmix=0.0),
    optim=AdamW(learning_rate=1e-3, per_images=0, layer_decay=0.8, clip_norm=1.0),
    schedule=Cosine(warmup_rate=0.0, min_rate=0.0, warmup_epochs=1),
    epochs=20,
)
