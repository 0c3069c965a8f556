"""What the mask head is to give of a region: its object's mask within the region, at the head's resolution.

As mmdetection computes it: RoIAlign of the whole mask, with as many points a bin as it has pixels; from a half on it is
foreground. The mean of points on a grid is a product of matrices, rows times mask times columns, so that every mask is
read once, and a few at a time are in memory.

B: images; G: places for objects; H, W: pixels of their canvas; N: regions of an image; S: bins of a side; R: regions at
a time; L: pixels of an axis; P: points of an axis.
"""

import math

import numpy as np
from keras import ops

from swins.detection.mask_bits import unpacked

SIDE = 28
HALF = 0.5
AT_A_TIME = 2**22  # pixels of masks that are in memory at a time, as float32


def means(low, high, length: int, bins: int):
    """Which pixels of an axis each bin is a mean of, and how much each counts -> (R, S, L).

    Args:
        low, high: (R,) ends of the regions on the axis, in pixels; length: pixels of the axis.
    """
    most = math.ceil(length / bins)
    size = ((high - low) / bins)[:, None, None]
    count = ops.ceil(size)
    place, point = ops.arange(bins, dtype="float32")[:, None], ops.arange(most, dtype="float32")
    at = (low - HALF)[:, None, None] + place * size + (point + HALF) * size / ops.maximum(count, 1)  # (R, S, P)
    counted = ops.cast((point < count) & (at >= -1) & (at <= length), "float32") / ops.maximum(count, 1)
    at = ops.clip(at, 0, length - 1)
    first = ops.floor(at)
    part = at - first
    first = ops.cast(first, "int32")
    rows = ops.arange(ops.size(low) * bins, dtype="int32")
    rows = ops.reshape(rows, (-1, bins, 1)) * length
    places = [rows + first, rows + ops.minimum(first + 1, length - 1)]
    values = [counted * (1 - part), counted * part]
    places, values = (ops.reshape(ops.stack(pair), (-1,)) for pair in (places, values))
    table = ops.scatter(places[:, None], values, (low.shape[0] * bins * length,))
    return ops.reshape(table, (-1, bins, length))


def aligned(masks, boxes, bins: int):
    """Means of masks (R, H, W) float32 in the bins of boxes (R, 4) in their pixels -> (R, S, S)."""
    left, top, right, bottom = (boxes[:, i] for i in range(4))
    rows = means(top, bottom, masks.shape[1], bins)
    columns = means(left, right, masks.shape[2], bins)
    return ops.matmul(ops.matmul(rows, masks), ops.transpose(columns, (0, 2, 1)))


def mask_targets(masks, boxes, sources, side: int = SIDE):
    """Masks of regions -> (B, N, S, S) float32 of 0 and 1, without a gradient.

    Args:
        masks: (B, G, H, W / 8) uint8, as `swins.detection.mask_bits` has them; boxes: (B, N, 4) xyxy of regions, in
            pixels of the canvas; sources: (B, N) integers, the object of each region, from 0 to G - 1.
    """
    (batch, places, height, bytes_across), count = masks.shape, boxes.shape[1]
    width, total = 8 * bytes_across, batch * count
    at_a_time = min(total, max(1, AT_A_TIME // (height * width)))
    steps = -(-total // at_a_time)
    limits = np.array([width, height, width, height], "float32")
    boxes = ops.clip(ops.reshape(ops.cast(boxes, "float32"), (-1, 4)), 0, limits)
    first = np.repeat(np.arange(batch, dtype="int32") * places, count)
    owners = ops.add(ops.reshape(ops.cast(sources, "int32"), (-1,)), first)
    spare = steps * at_a_time - total
    boxes = ops.reshape(ops.pad(boxes, ((0, spare), (0, 0))), (steps, at_a_time, 4))
    owners = ops.reshape(ops.pad(owners, ((0, spare),)), (steps, at_a_time))
    table = ops.reshape(masks, (-1, height, bytes_across))

    def some(part):
        own, places = part
        return aligned(unpacked(ops.take(table, places, 0)), own, side)

    results = some((boxes[0], owners[0]))[None] if steps == 1 else ops.map(some, (boxes, owners))
    results = ops.reshape(results, (-1, side, side))[:total]
    return ops.stop_gradient(ops.cast(ops.reshape(results, (batch, count, side, side)) >= HALF, "float32"))
