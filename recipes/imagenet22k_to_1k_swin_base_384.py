"""Swin-B from ImageNet-22k to ImageNet-1k at 384 pixels.

Paper     arXiv:2103.14030, appendix A2.1: 30 epochs, a constant small rate, weight decay 1e-8; Microsoft's
          configuration has a cosine from 2e-5 for 512 images, 5 epochs of warm-up,
          Mixup and CutMix as in training, and squashes images to 384 pixels where this crops (crop=1.0), and
          begins with the head's rows of the 1,000 classes where this begins with a new head. As there, it begins with
          the weights that ImageNet-22k gave at 384 pixels
Command   swins train recipes/imagenet22k_to_1k_swin_base_384.py --data IMAGENET
Hardware  8 GPUs of 64 images, two such a step, in Microsoft's command for 224 pixels: KERAS_BACKEND=jax and
          --set optim.accumulate=2
Expected  top-1 86.4 (Microsoft's repository)
Obtained  not run: ImageNet and the Hub are not at hand
"""

from swins.recipes import AdamW, Cosine
from swins.tasks.classification import Classification, Data, Model

RECIPE = Classification(
    model=Model(
        "swin_base_patch4_window12_384.ms_in22k",
        weights="pretrained",
        drop_path_rate=0.2,
        dtype="mixed_bfloat16",
    ),
    data=Data(batch=1024, crop=1.0),
    optim=AdamW(learning_rate=2e-5, weight_decay=1e-8),
    schedule=Cosine(warmup_rate=2e-8, min_rate=2e-7, warmup_epochs=5),
    epochs=30,
)
