"""Boxes: corners and centres, overlap, coding against priors, clipping, and class-wise non-maximum suppression.

A box is xyxy, (left, top, right, bottom), or cxcywh, its centre, width and height. All is computed in float32, whatever
the policy. Letters: B images, P boxes of an image, K classes, C candidates of a class.
"""

import math

import keras
import numpy as np
from keras import ops

SCALES = (10.0, 10.0, 5.0, 5.0)  # SSD's: divided by its variances 0.1, 0.1, 0.2, 0.2
LIMIT = math.log(1000 / 16)  # a decoded side is at most so many times the prior's, as in torchvision
SMALLEST = 1e-7  # of a coded side, over the prior's


def floats(x):
    """The same in float32."""
    return ops.cast(x, "float32")


def corners(boxes):
    """cxcywh -> xyxy, (..., 4)."""
    boxes = floats(boxes)
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return ops.concatenate([centre - half, centre + half], -1)


def centres(boxes):
    """xyxy -> cxcywh, (..., 4)."""
    boxes = floats(boxes)
    low, high = boxes[..., :2], boxes[..., 2:]
    return ops.concatenate([(low + high) / 2, high - low], -1)


def extent(left, top, right, bottom):
    """Area between four sides, 0 where the right or the bottom comes first."""
    return ops.maximum(right - left, 0.0) * ops.maximum(bottom - top, 0.0)


def area(boxes):
    """Areas of xyxy boxes, (..., 4) -> (...); 0 where the right or the bottom comes first."""
    return extent(*ops.unstack(floats(boxes), 4, -1))


def iou(boxes, others):
    """Intersection over union of each xyxy box with each other, (..., N, 4), (..., M, 4) -> (..., N, M).

    0 where neither has an area, and for boxes that are no numbers.
    """
    rows = [side[..., None] for side in ops.unstack(floats(boxes), 4, -1)]
    columns = [side[..., None, :] for side in ops.unstack(floats(others), 4, -1)]
    starts, ends = zip(rows[:2], columns[:2], strict=True), zip(rows[2:], columns[2:], strict=True)
    common = extent(*(ops.maximum(*pair) for pair in starts), *(ops.minimum(*pair) for pair in ends))
    union = extent(*rows) + extent(*columns) - common
    return ops.where(union > 0, common / ops.where(union > 0, union, 1.0), 0.0)


def encode(boxes, priors, scales: tuple = SCALES):
    """Code boxes against priors: xyxy (..., P, 4), cxcywh (P, 4) -> (..., P, 4).

    The distance of the centres in sides of the prior, and the logarithms of the sides over the prior's, times `scales`.
    Codes are finite: a side that is shorter than 1e-7 of the prior's counts as that.
    """
    boxes, priors = centres(boxes), floats(priors)
    distance = (boxes[..., :2] - priors[..., :2]) / priors[..., 2:]
    ratio = ops.maximum(boxes[..., 2:] / priors[..., 2:], SMALLEST)
    return ops.concatenate([distance, ops.log(ratio)], -1) * floats(scales)


def decode(codes, priors, scales: tuple = SCALES, limit: float = LIMIT):
    """The boxes that `encode` coded: (..., P, 4), cxcywh (P, 4) -> xyxy (..., P, 4).

    limit: the largest logarithm of a side over the prior's, so that no side overflows; math.inf for none.
    """
    codes, priors = floats(codes) / floats(scales), floats(priors)
    centre = codes[..., :2] * priors[..., 2:] + priors[..., :2]
    sides = ops.exp(ops.minimum(codes[..., 2:], limit)) * priors[..., 2:]
    return corners(ops.concatenate([centre, sides], -1))


def clip(boxes, size: tuple = (1.0, 1.0)):
    """xyxy boxes within an image of this (height, width), in the boxes' unit: (..., 4) -> (..., 4)."""
    height, width = size
    return ops.minimum(ops.maximum(floats(boxes), 0.0), floats((width, height, width, height)))


def first_maximum(x, axis: int):
    """The largest numbers along an axis, and the places of the first of them: (values, int32 places).

    Not argmax: TensorFlow promises no order of equals. Places are floats until the end: TensorFlow takes integers off
    an accelerator.
    """
    shape = [1] * len(x.shape)
    shape[axis] = -1
    size = ops.shape(x)[axis]
    values = ops.max(x, axis, keepdims=True)
    places = ops.where(x == values, ops.reshape(ops.arange(size, dtype="float32"), shape), ops.cast(size, "float32"))
    return ops.squeeze(values, axis), ops.cast(ops.min(places, axis), "int32")


def stable_top_k(x, k: int):
    """The k largest of the last axis, the first of equals first: (..., N) -> (values, int32 places), each (..., k)."""
    if keras.backend.backend() != "torch":
        return ops.top_k(x, k)
    places = ops.argsort(-x)[..., :k]  # PyTorch's top_k promises no order of equals, its argsort does
    return ops.take_along_axis(x, places, -1), places


def float32_below(number: float) -> float:
    """The largest float32 that is not above a number: what exceeds it exceeds the number, and the reverse."""
    nearest = np.float32(number)
    return float(nearest if float(nearest) <= number else np.nextafter(nearest, np.float32(-np.inf)))


def picked(boxes, scores, max_overlap: float, most: int):
    """The best over all classes again and again, without what it suppresses -> places (B, most) int32, -1 for none.

    Args:
        boxes: (B, K, C, 4) xyxy; scores: (B, K, C), -inf for what counts not. Places are among an image's K * C.
    """
    classes, count = scores.shape[1:]
    nothing = -math.inf
    rows = ops.reshape(boxes, (-1, count, 4))
    first = classes * ops.arange(ops.shape(scores)[0], dtype="int32")  # row of each image
    labels, steps, columns = (ops.arange(n, dtype="int32") for n in (classes, most, count))

    def unfinished(step, left, best, places):
        return ops.any(best > nothing)

    def pick(step, left, best, places):
        """left: scores of what is not suppressed, (B, K, C); best: the best of each class, (B, K)."""
        score, label = first_maximum(best, 1)
        row, row_scores = (ops.take(x, first + label, 0) for x in (rows, ops.reshape(left, (-1, count))))
        _, place = first_maximum(row_scores, 1)
        overlap = iou(ops.take_along_axis(row, place[:, None, None], 1), row)[:, 0]
        gone = (overlap > max_overlap) | (columns == place[:, None])
        row_scores = ops.where(gone, nothing, row_scores)
        own = labels == label[:, None]
        left = ops.where(own[:, :, None], row_scores[:, None], left)
        best = ops.where(own, ops.max(row_scores, 1, keepdims=True), best)
        here = (steps == step) & (score > nothing)[:, None]
        return step + 1, left, best, ops.where(here, (label * count + place)[:, None], places)

    places = ops.full((ops.shape(scores)[0], most), -1, dtype="int32")
    start = (ops.cast(0, "int32"), scores, ops.max(scores, 2), places)
    return ops.while_loop(unfinished, pick, start, maximum_iterations=most)[-1]


def nms(boxes, scores, *, min_score: float = 0.05, max_overlap: float = 0.45, candidates: int = 400, most: int = 200):
    """Class-wise non-maximum suppression, then the best over all classes; every shape is static but for B.

    Greedy, as torchvision's `batched_nms`: a box goes where it overlaps a better one of its class that stays. Of equal
    scores the lower class comes first, then the lower place. The work ends with the `most`-th box, or the last.

    Args:
        boxes: (B, P, 4) xyxy in any unit, those of all classes; or (B, P, K, 4), of each class.
        scores: (B, P, K), without the background's. NaN is never chosen. P and K are known.
        min_score: only higher scores count.
        max_overlap: boxes of a class that overlap more are one object's; intersection over union.
        candidates: boxes of a class that are looked at, the best.
        most: boxes that an image has at most.

    Returns:
        boxes (B, most, 4), scores (B, most) falling, labels (B, most) int32 from 0, and how many there are (B,) int32.
        What is left of a row is 0, its labels -1.
    """
    boxes, scores = floats(boxes), floats(scores)
    total, classes = scores.shape[1:]
    count = min(candidates, total)
    scores = ops.transpose(ops.where(scores > min_score, scores, -math.inf), (0, 2, 1))
    scores, index = stable_top_k(scores, count)  # (B, K, C)
    if len(boxes.shape) == 4:
        boxes = ops.reshape(boxes, (-1, total * classes, 4))
        index = index * classes + ops.arange(classes, dtype="int32")[:, None]
    boxes = ops.take_along_axis(boxes, ops.reshape(index, (-1, classes * count, 1)), 1)

    rows = ops.reshape(boxes, (-1, classes, count, 4))
    places = picked(rows, scores, float32_below(max_overlap), most)
    kept, places = places >= 0, ops.maximum(places, 0)
    scores = ops.take_along_axis(ops.reshape(scores, (-1, classes * count)), places, 1)
    return (
        ops.where(kept[..., None], ops.take_along_axis(boxes, places[..., None], 1), 0.0),
        ops.where(kept, scores, 0.0),
        ops.where(kept, places // count, -1),
        ops.sum(ops.cast(kept, "int32"), -1),
    )
