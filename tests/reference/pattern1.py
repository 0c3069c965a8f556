"""What "pattern 1" does to boxes and colours on average, in albumentations -> pattern1.json beside this file.

Command: python tests/reference/pattern1.py, in an environment of its own: albumentations 1.3.1, opencv-python-headless
4.10, numpy 1. The steps are those that specs/dense.md A.8 lists, written anew.
"""

import json
import pathlib
import random

import albumentations as A
import numpy as np

SIDE, COUNT = 60, 6000
SCENES = {  # (height, width), boxes: one smaller than the border, one larger
    "small": [[50, 70], [[10, 5, 30, 40], [41, 20, 55, 28]]],
    "large": [[120, 160], [[30, 60, 62, 100], [100, 10, 140, 90]]],
}
random.seed(0)
np.random.seed(0)

colours = A.OneOf(
    [
        A.RandomBrightnessContrast(brightness_limit=0.2, contrast_limit=0.2, p=0.5),
        A.HueSaturationValue(hue_shift_limit=10, sat_shift_limit=15, val_shift_limit=10, p=0.5),
        A.RGBShift(r_shift_limit=15, g_shift_limit=15, b_shift_limit=15, p=0.3),
        A.ToGray(p=0.05),
    ],
    p=1.0,
)
places = A.Compose(
    [
        A.PadIfNeeded(int(1.5 * SIDE), int(1.5 * SIDE), border_mode=0, value=(104, 117, 123), p=0.5),
        A.RandomSizedBBoxSafeCrop(SIDE, SIDE, p=0.7),
        A.HorizontalFlip(p=0.5),
        A.Resize(SIDE, SIDE),
    ],
    bbox_params=A.BboxParams("pascal_voc", min_area=1, min_visibility=0.2, label_fields=["labels"]),
)


def summary(rows):
    """{name: [mean, deviation]} of the columns of [{name: number}]."""
    return {name: [float(np.mean(v)), float(np.std(v))] for name in rows[0] for v in [[row[name] for row in rows]]}


def moved(size, boxes):
    """Corners of both boxes, parts of the image's sides."""
    image, rows = np.zeros((*size, 3), np.uint8), []
    for _ in range(COUNT):
        own = places(image=image, bboxes=boxes, labels=[0, 1])["bboxes"]
        rows.append({f"{i} {j}": own[i][j] / SIDE for i in range(2) for j in range(4)})
    return summary(rows)


def coloured(pixels):
    """Means and deviations of the channels."""
    rows = []
    for _ in range(COUNT):
        own = colours(image=np.array(pixels, np.uint8))["image"].reshape(-1, 3).astype(float)
        rows.append({f"{name} {i}": getattr(own[:, i], name)() for name in ("mean", "std") for i in range(3)})
    return summary(rows)


if __name__ == "__main__":
    pixels = np.random.default_rng(0).integers(30, 226, (6, 6, 3)).tolist()
    facts = {"side": SIDE, "scenes": SCENES, "pixels": pixels, "coloured": coloured(pixels)}
    facts |= {name: moved(*scene) for name, scene in SCENES.items()}
    pathlib.Path(__file__).with_suffix(".json").write_text(json.dumps(facts) + "\n")
