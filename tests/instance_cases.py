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


def regions(canvas, count=80, places=6):
    """Masks (places, H, W) bool, boxes (count, 4) float32, their objects (count,): for what masks' targets are.

    Many boxes lie on whole and half pixels, where means are a half exactly; one has no width, one is the canvas.
    """
    (height, width), rng = canvas, np.random.default_rng((18, *canvas))
    rows, columns = np.mgrid[:height, :width]
    masks = np.zeros((places, height, width), bool)
    for number, mask in enumerate(masks):
        centre, radii = rng.uniform(0, [height, width]), rng.uniform(3, height, 2)
        mask[:] = ((rows - centre[0]) / radii[0]) ** 2 + ((columns - centre[1]) / radii[1]) ** 2 < 1
        mask ^= (rng.random(mask.shape) < 0.1) & (number % 2 == 1)
    masks[0] = (rows > 10) & (columns < 20)
    low = rng.uniform(-5, [width - 4, height - 4], (count, 2))
    boxes = np.concatenate([low, low + rng.uniform(0, [width, height], (count, 2))], 1).astype("float32")
    boxes[::4], boxes[1::8] = np.round(boxes[::4]), np.round(2 * boxes[1::8]) / 2
    boxes[-2:] = (5, 5, 5, 9), (0, 0, width, height)
    return masks, boxes, rng.integers(0, places, count)


CANVASES = ((64, 96), (160, 128), (32, 32))
