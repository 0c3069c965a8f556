"""Images, boxes and masks that our augmentations and mmdetection's are given: see reference/instance_augment.py."""

import hashlib

import numpy as np

SHORT, LONG = (48, 56, 64, 72, 80), 133  # a tenth of the recipes' sides, so that images are small
CROP_SHORT, CROP_SIDES = (40, 50, 60), (38, 60)
ROOM = (160, 160)  # a canvas on which all fit
CASES = 60


def case(number):
    """The image (h, w, 3) uint8, boxes (n, 4) float32, some over its edges, and masks (n, h, w) uint8 of a case."""
    rng = np.random.default_rng((17, number))
    height, width = (int(side) for side in rng.integers(24, 140, 2))
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    count = int(rng.integers(0, 6))
    low = rng.uniform(-0.1, 0.9, (count, 2)) * [width, height]
    boxes = np.concatenate([low, low + rng.uniform(0.05, 0.9, (count, 2)) * [width, height]], 1).astype("float32")
    rows, columns = np.mgrid[:height, :width]
    masks = np.zeros((count, height, width), np.uint8)
    for mask, box in zip(masks, boxes.tolist(), strict=True):
        x, y, right, bottom = box
        across, down = (2 * columns + 1 - x - right) / (right - x), (2 * rows + 1 - y - bottom) / (bottom - y)
        mask[:] = (across**2 + down**2 < 1) ^ (rng.random((height, width)) < 0.1)
    return image, boxes, masks


def digest(array):
    """A short digest of an array's numbers and its shape."""
    return hashlib.sha256(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes()).hexdigest()[:16]
