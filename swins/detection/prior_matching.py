"""Which object each prior is to find."""

import math

from keras import ops

from swins.boxes import area, corners, first_maximum, floats, iou
from swins.errors import SwinsError


def match(priors, boxes, labels, valid, threshold: float = 0.5):
    """Match priors with the objects of their images (arXiv:1512.02325, section 2.2), all shapes static but for B.

    A prior takes the object that it overlaps most, the first of equals, if by `threshold` or more. Then each object
    claims the prior that overlaps it most, the first of equals, however little; of several objects that claim a prior
    the last has it. Boxes without an area, or not finite, are no objects.

    Letters: B images, G objects of an image, with those that fill up; P priors.

    Args:
        priors: (P, 4) cxcywh.
        boxes: (B, G, 4) xyxy, in the priors' unit.
        labels: (B, G) integers from 0.
        valid: (B, G): whether it is an object.
        threshold: least intersection over union.

    Returns:
        labels (B, P) int32: 0 for background, else 1 + the object's; index (B, P) int32: the place of that object among
        the image's, which means nothing for background.

    Raises:
        SwinsError: G is 0.
    """
    boxes, labels, valid = floats(boxes), ops.cast(labels, "int32"), ops.cast(valid, "bool")
    if boxes.shape[1] == 0:
        raise SwinsError("objects of an image are filled up to one or more; got none; add a row whose valid is 0")
    count = ops.shape(boxes)[1]
    space = area(boxes)
    valid = (valid & (space > 0) & (space < math.inf))[..., None]
    overlap = ops.where(valid, iou(boxes, corners(priors)), -1.0)  # (B, G, P)
    best, index = first_maximum(overlap, 1)
    _, favourite = first_maximum(overlap, 2)
    claimed = valid & (favourite[..., None] == ops.arange(ops.shape(priors)[0], dtype="int32"))
    places = ops.arange(count, dtype="float32")[:, None]  # floats: see first_maximum
    claim = ops.cast(ops.max(ops.where(claimed, places, -1.0), 1), "int32")
    index = ops.where(claim >= 0, claim, index)
    positive = (claim >= 0) | (best >= threshold)
    return ops.where(positive, 1 + ops.take_along_axis(labels, index, 1), 0), index
