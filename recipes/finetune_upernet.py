"""Train a segmenter on your own images and masks: two folders, images/ and masks/, or ADE20K, CamVid, Cityscapes.

Paper     none; the settings are ours, for small data sets: all weights of a model that knows other classes, or a
          backbone that knows ImageNet, a small rate, crops of several scales
Command   swins train recipes/finetune_upernet.py --data FOLDER
          FOLDER: images/ and masks/, PNGs whose values are numbers of classes; their names in classes.txt, a line each
          from a segmenter: --set model.weights=FILE, of mmsegmentation, Hugging Face or any other program, or a run
          classes of few pixels: --set loss.class_weights=balanced
Hardware  any; a GPU for more than a few hundred images
Expected  depends on the data
Obtained  not run on data of its own; tests/test_segmentation.py trains a small model on garments
"""

from swins.data.segment_augment import ScaleAndCrop
from swins.recipes import AdamW, Cosine
from swins.tasks.segmentation import Data, Model, Segmentation

RECIPE = Segmentation(
    model=Model("upernet_swin_tiny", weights="pretrained", drop_path_rate=0.1),
    data=Data(batch=8, size=512, cache=2048),
    augment=ScaleAndCrop(),
    optim=AdamW(learning_rate=6e-5, per_images=8, clip_norm=5.0),
    schedule=Cosine(warmup_rate=1e-7, warmup_epochs=1, min_rate=6e-7),
    epochs=40,
    checkpoint_steps=200,
)
