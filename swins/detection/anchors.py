"""Anchors of a pyramid (arXiv:1506.01497, section 3.1.1): the boxes that proposals are coded against.

Each cell has three, of one area and of heights 0.5, 1 and 2 times the width, around the cell's upper left corner: no
half cell is added and nothing is rounded, as mmdet has it. Letters: B images, A anchors of all levels.
"""

from collections.abc import Sequence

import numpy as np
from keras import ops

from swins.boxes import floats

STRIDES = (4, 8, 16, 32, 64)  # pixels from cell to cell of each level
SCALE = 8.0  # side of a square anchor over the stride
RATIOS = (0.5, 1.0, 2.0)  # height over width, in the order of the network's channels
PER_CELL = len(RATIOS)
MULTIPLE = 32  # pixels: an image of its own is padded so that its sides are multiples


def base_anchors(stride: int) -> np.ndarray:
    """The anchors around (0, 0) of a level: (PER_CELL, 4) float32 xyxy, in pixels."""
    heights = np.sqrt(np.float32(RATIOS))
    sides = np.float32(stride * SCALE) * np.stack([1 / heights, heights], -1)
    return np.concatenate([-0.5 * sides, 0.5 * sides], -1)


def level_anchors(rows, columns, stride: int):
    """Anchors of one level: row by row, cell by cell, by ratio -> (rows * columns * PER_CELL, 4) xyxy in pixels.

    rows, columns: integers, or scalar tensors where a graph takes any size.
    """
    x, y = (floats(ops.arange(count, dtype="int32")) * stride for count in (columns, rows))
    grid = [ops.broadcast_to(side, (rows, columns)) for side in (x[None, :], y[:, None])]
    boxes = ops.stack([*grid, *grid], -1)[:, :, None] + ops.convert_to_tensor(base_anchors(stride))
    return ops.reshape(boxes, (-1, 4))


def anchors(map_sizes: Sequence[tuple], strides: Sequence[int] = STRIDES) -> list:
    """Anchors of each level, fine to coarse -> [(A_l, 4), ...] float32 xyxy in pixels.

    map_sizes: (rows, columns) of each level's map, integers or scalar tensors.
    """
    return [level_anchors(*size, stride) for size, stride in zip(map_sizes, strides, strict=True)]


def usable_anchors(
    map_sizes: Sequence[tuple],
    sizes,
    strides: Sequence[int] = STRIDES,
    *,
    multiple: int = MULTIPLE,
    border: float | None = None,
):
    """Which anchors an image is trained on -> (B, A) bool.

    Those of the cells that the image has when it is padded on its own, not with its batch.

    Args:
        map_sizes: (rows, columns) of each level's map.
        sizes: (B, 2) heights and widths of the images before padding, in pixels.
        strides: pixels from cell to cell of each level.
        multiple: what the sides of a padded image are multiples of, in pixels.
        border: if given, anchors that lie further than so many pixels outside the unpadded image are left out too.
    """
    sizes = floats(sizes)
    padded = ops.ceil(sizes / multiple) * multiple
    levels = []
    for (rows, columns), stride in zip(map_sizes, strides, strict=True):
        y, x = (
            floats(ops.arange(count, dtype="int32")) < ops.ceil(side / stride)[:, None]
            for count, side in zip((rows, columns), ops.unstack(padded, 2, -1), strict=True)
        )
        cells = ops.reshape(y[:, :, None] & x[:, None, :], (-1, rows * columns, 1))
        levels.append(ops.reshape(ops.repeat(cells, PER_CELL, -1), (-1, rows * columns * PER_CELL)))
    usable = ops.concatenate(levels, 1)
    if border is None:
        return usable
    left, top, right, bottom = ops.unstack(ops.concatenate(anchors(map_sizes, strides), 0), 4, -1)
    height, width = ops.unstack(sizes[:, :, None], 2, 1)
    return usable & (left >= -border) & (top >= -border) & (right < width + border) & (bottom < height + border)
