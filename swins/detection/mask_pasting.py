"""Masks of boxes brought to the image (arXiv:1703.06870, section 3.1), as mmdet does it.

A mask's values lie in the middles of its cells; each pixel's middle takes the value between the four around it, cells
beyond the mask being 0; half or more is object. It is separable: out = A_y M A_x^T. A box without an area has none.

Letters: n boxes, (h, w) cells of a mask, (H, W) pixels of the image.
"""

import numpy as np
from keras import ops

from swins.boxes import floats
from swins.errors import SwinsError

THRESHOLD = 0.5


def overlap_of_cells(low: float, high: float, pixels: np.ndarray, cells: int) -> np.ndarray:
    """How much of each cell of a side from `low` to `high` each pixel takes -> (pixels, cells) float32."""
    places = (np.float32(pixels) + np.float32(0.5) - low) / (high - low) * np.float32(cells) - np.float32(0.5)
    return np.maximum(1 - np.abs(places[:, None] - np.arange(cells, dtype="float32")), 0)


def paste(masks: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Masks of boxes as bitmaps of the image: (n, h, w), (n, 4) -> (n, H, W) bool.

    Args:
        masks: probabilities of each box's own class.
        boxes: xyxy in pixels of the image, which they may exceed.
        size: (H, W) of the image.

    Raises:
        SwinsError: not one mask a box.
    """
    masks, boxes = np.asarray(masks, "float32"), np.asarray(boxes, "float32").reshape(-1, 4)
    if masks.ndim != 3 or len(masks) != len(boxes):
        raise SwinsError(
            f"masks are (n, h, w), one a box; got {masks.shape} and {len(boxes)} boxes; give as many of each"
        )
    height, width = size
    bitmaps = np.zeros((len(boxes), height, width), bool)
    for bitmap, mask, (left, top, right, bottom) in zip(bitmaps, masks, boxes, strict=True):
        if not (left < right and top < bottom and np.isfinite(right - left) and np.isfinite(bottom - top)):
            continue
        sides = [(left, right, width, mask.shape[1]), (top, bottom, height, mask.shape[0])]
        (x, across), (y, down) = (
            (
                pixels := np.arange(max(int(low) - 1, 0), max(min(int(high) + 2, end), 0)),
                overlap_of_cells(low, high, pixels, cells),
            )
            for low, high, end, cells in sides
        )
        if len(x) and len(y):
            bitmap[y[0] : y[-1] + 1, x[0] : x[-1] + 1] = down @ mask @ across.T >= THRESHOLD
    return bitmaps


def paste_in_graph(masks, boxes, size: tuple):
    """The same in a graph, of any number of leading axes: (..., h, w), (..., 4) -> (..., H, W) bool; one by one.

    size: (H, W), integers, or scalar tensors where a graph takes any size.
    """
    masks, boxes = floats(masks), floats(boxes)
    lead, (height, width) = ops.shape(masks)[:-2], masks.shape[-2:]

    def one(values):
        mask, box = values
        rows = overlaps_in_graph(box[1], box[3], size[0], height)
        columns = overlaps_in_graph(box[0], box[2], size[1], width)
        return ops.matmul(ops.matmul(rows, mask), ops.transpose(columns)) >= THRESHOLD

    bitmaps = ops.map(one, (ops.reshape(masks, (-1, height, width)), ops.reshape(boxes, (-1, 4))))
    return ops.reshape(bitmaps, (*lead, *size))


def overlaps_in_graph(low, high, pixels, cells: int):
    """As `overlap_of_cells`, of the pixels of a whole side -> (pixels, cells); nothing if it ends where it begins."""
    side = high - low
    places = floats(ops.arange(pixels, dtype="int32")) + 0.5 - low
    places = places / ops.where(side > 0, side, 1.0) * cells - 0.5
    hat = ops.maximum(1 - ops.abs(places[:, None] - ops.arange(cells, dtype="float32")), 0.0)
    return ops.where(side > 0, hat, 0.0)
