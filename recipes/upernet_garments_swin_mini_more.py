"""The embedded segmenter: the run of upernet_garments_swin_mini, on with canvases that it has not seen.

Paper     none; made to be trained on a CPU without network
Command   swins train recipes/upernet_garments_swin_mini_more.py --data garments:FOLDER,count=32000,seed=1,...
          FOLDER and the rest as upernet_garments_swin_mini.py, whose run in runs/ it begins with, says
Hardware  2 CPU cores: 20 images a second and core, so half an hour of one, and validation
Expected  an mIoU of 0.85 over 11 classes on the validation canvases is aimed at
Obtained  mIoU 64.67 on its 8,000 validation canvases: demo/upernet_swin_mini/. What is missing are names of garments:
          background or garment is nearly always right
"""

from dataclasses import replace

from swins.recipe_files import find
from swins.recipes import load

BEFORE = load(find("upernet_garments_swin_mini"))
RECIPE = replace(
    BEFORE,
    model=replace(BEFORE.model, weights="runs/upernet_garments_swin_mini/model.keras"),
    schedule=replace(BEFORE.schedule, warmup_epochs=0.05),
    epochs=1,
)
