"""What mmdetection's transforms make of images, boxes and masks -> instance_augment.json beside this file.

Command: PYTHONPATH=FOLDER_OF_mmcv_ops_stub:tests python tests/reference/instance_augment.py, in an environment with
mmdet 3.3.0, mmcv-lite 2.1.0, OpenCV (see dense's oracles; 10 seconds). Each case is one of tests/instance_cases.py; of
each step what was drawn is kept, of images and masks a digest, of boxes the numbers.
"""

import json
import pathlib
import random

import instance_cases
import mmcv_ops_stub  # noqa: F401 (before mmdet)
import numpy as np
import torch
from instance_cases import CROP_SHORT, CROP_SIDES, LONG, SHORT, digest
from mmdet.datasets.transforms import RandomCrop, RandomFlip, Resize
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmdet.utils import register_all_modules

FILE = pathlib.Path(__file__).with_suffix(".json")


class Logged(RandomCrop):
    """RandomCrop, which remembers what it drew."""

    def _get_crop_size(self, image_size):
        self.drawn = list(super()._get_crop_size(image_size))
        return tuple(self.drawn)

    def _rand_offset(self, margin):
        offset = super()._rand_offset(margin)
        self.drawn += offset
        return offset


def result(state, **drawn):
    """What is kept of a case."""
    labels = state["gt_bboxes_labels"].tolist()
    return {
        **{name: [int(n) for n in np.ravel(value)] for name, value in drawn.items()},
        "size": list(state["img"].shape[:2]),
        "image": digest(state["img"]),
        "boxes": [[float(x) for x in box] for box in state["gt_bboxes"].tensor.numpy().astype("float32")],
        "kept": labels,
        "masks": digest(state["gt_masks"].masks.astype(bool)),
    }


def resize(state, short):
    return Resize(scale=(LONG, short), keep_ratio=True)(state)


def flip(state, wanted):
    return RandomFlip(prob=1.0)(state) if wanted else state


def main():
    register_all_modules()
    rows = []
    for number in range(instance_cases.CASES):
        np.random.seed(number)
        random.seed(number)
        image, boxes, masks = instance_cases.case(number)
        state = {
            "img": image,
            "img_shape": image.shape[:2],
            "gt_bboxes": HorizontalBoxes(torch.from_numpy(boxes)),
            "gt_bboxes_labels": np.arange(len(boxes)),
            "gt_ignore_flags": np.zeros(len(boxes), bool),
            "gt_masks": BitmapMasks(masks, *image.shape[:2]),
        }
        flipped, cropped = bool(np.random.randint(2)), number % 3 == 2
        first, short = (int(np.random.randint(len(sides))) for sides in (CROP_SHORT, SHORT))
        if number % 3 == 0:  # the whole image at one scale: scaled, then flipped
            rows.append(result(flip(resize(state, SHORT[short]), flipped), flipped=flipped, short=short))
            continue
        state = flip(state, flipped)
        drawn = {"flipped": flipped, "short": short}
        if cropped:
            crop = Logged(crop_size=CROP_SIDES, crop_type="absolute_range", allow_negative_crop=True)
            state = crop(resize(state, CROP_SHORT[first]))
            drawn |= {"first": first, "crop": crop.drawn}
        rows.append(result(resize(state, SHORT[short]), **drawn))
    FILE.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")


if __name__ == "__main__":
    main()
