"""What the mask head is to give of a region: its object's mask within the region, at the head's resolution.

As mmdetection computes it: RoIAlign of the whole mask, with as many points a bin as it has pixels; from a half on it is
foreground. The sum of points on a grid is a product of matrices, rows times mask times columns, so that every mask is
read once, and a few at a time are in memory. It is divided by their number last, as there, so that a half stays one.

B: images; G: places for objects; H, W: pixels of their canvas; N: regions of an image; S: bins of a side; R: regions at
a time; L: pixels of an axis; P: points of an axis.
"""

from keras import ops

from swins.detection.mask_bits import unpacked
from swins.detection.roi_align import ADAPTIVE, axis_of

SIDE = 28
HALF = 0.5
AT_A_TIME = 2**22  # pixels of masks that are in memory at a time, as float32
TOGETHER = 2**17  # pixels of the masks of an image's regions, up to which all images are looked at together
FEW = 4  # regions at a time where a graph takes any size


def sums(low, high, length, bins: int):
    """Which pixels of an axis each bin is a sum of, how much each counts -> (R, S, L), and its points -> (R, 1, 1).

    Args:
        low, high: (R,) ends of the regions on the axis, in pixels; length: pixels of the axis, an
            integer, or a scalar tensor where a graph takes any size.
    """
    most, end = -(-length // bins), ops.cast(length, "float32")
    start, size, count = (x[:, None, None] for x in axis_of(low, high, 1.0, end, bins, ADAPTIVE)[:3])
    place, point = ops.arange(bins, dtype="float32")[:, None], ops.arange(most, dtype="float32")
    at = start + place * size + (point + HALF) * size / ops.maximum(count, 1)  # (R, S, P)
    counted = ops.cast((point < count) & (at >= -1) & (at <= end), "float32")
    at = ops.clip(at, 0, end - 1)
    first = ops.floor(at)
    part = at - first
    first = ops.cast(first, "int32")
    rows = ops.arange(ops.size(low) * bins, dtype="int32")
    rows = ops.reshape(rows, (-1, bins, 1)) * length
    places = [rows + first, rows + ops.minimum(first + 1, length - 1)]
    values = [counted * (1 - part), counted * part]
    places, values = (ops.reshape(ops.stack(pair), (-1,)) for pair in (places, values))
    table = ops.scatter(places[:, None], values, (ops.size(low) * bins * length,))
    return ops.reshape(table, (-1, bins, length)), ops.maximum(count, 1)


def aligned(masks, boxes, bins: int):
    """Means of masks (R, H, W) float32 in the bins of boxes (R, 4) in their pixels -> (R, S, S)."""
    left, top, right, bottom = (boxes[:, i] for i in range(4))
    height, width = ops.shape(masks)[1:]
    rows, down = sums(top, bottom, height, bins)
    columns, across = sums(left, right, width, bins)
    return ops.matmul(ops.matmul(rows, masks), ops.transpose(columns, (0, 2, 1))) / (down * across)


def mask_targets(masks, boxes, sources, side: int = SIDE):
    """Masks of regions -> (B, N, S, S) float32 of 0 and 1, without a gradient.

    Args:
        masks: (B, G, H, W / 8) uint8, as `swins.detection.mask_bits` has them; boxes: (B, N, 4) xyxy of regions, in
            pixels of the canvas; sources: (B, N) integers, the object of each region, from 0 to G - 1.
    """
    places, height, bytes_across = ops.shape(masks)[1:]
    batch, count = ops.shape(boxes)[0], boxes.shape[1]
    width = 8 * bytes_across
    boxes = ops.clip(ops.cast(boxes, "float32"), 0, ops.cast(ops.stack([width, height, width, height]), "float32"))
    first = ops.arange(batch, dtype="int32")[:, None] * places
    owners = ops.cast(sources, "int32") + first
    table = ops.reshape(masks, (-1, height, bytes_across))

    def some(part):
        own, owners = part
        return aligned(unpacked(ops.take(table, owners, 0)), own, side)

    known = isinstance(height * width, int)
    if known and count * height * width <= TOGETHER:
        results = some((ops.reshape(boxes, (-1, 4)), ops.reshape(owners, (-1,))))
    else:
        at_a_time = min(count, max(1, AT_A_TIME // (height * width)) if known else FEW)
        spare = -count % at_a_time
        boxes, owners = ops.pad(boxes, ((0, 0), (0, spare), (0, 0))), ops.pad(owners, ((0, 0), (0, spare)))
        parts = ops.reshape(boxes, (-1, at_a_time, 4)), ops.reshape(owners, (-1, at_a_time))
        results = ops.reshape(ops.map(some, parts), (-1, count + spare, side, side))[:, :count]
    results = ops.reshape(results, (-1, count, side, side))
    return ops.stop_gradient(ops.cast(results >= HALF, "float32"))
