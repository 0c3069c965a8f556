"""Swin V2-B on Places365 at 256 pixels, from scratch, as ChristophReich1996/Swin-Transformer-V2 trains it.

Source    shared specification, dense.md part F; what is different here is said in cifar10_swinv2_tiny.py
Data      Places365's small images, all of 256 by 256 pixels: train/ and val/ with a folder a class
Command   swins train recipes/places365_swinv2_base.py --data places365
Hardware  several GPUs; the source's are not known
Expected  top-1 44.56 after 13 epochs, as reported
Obtained  not run: Places365 is not at hand
"""

from swins.recipes import AdamW, Cosine
from swins.tasks.classification import Augment, Classification, Data, Model

RECIPE = Classification(
    model=Model(
        "swin_transformer_v2_b",
        start="torch",
        image_size=256,
        window_size=8,
        drop_path_rate=0.1,
        dtype="mixed_bfloat16",
    ),
    data=Data(batch=256, crop=1.0),
    augment=Augment(scale=None, flip=0.0, rand_augment="rand-m9-n3-mstd0.5", erase=0.0, mixup=1.0, cutmix=1.0),
    optim=AdamW(learning_rate=1e-3, per_images=0, beta_2=0.95, clip_norm=0.0, decay_all=True),
    schedule=Cosine(warmup_rate=5e-7, min_rate=5e-6, warmup_epochs=2),
    epochs=500,
)
