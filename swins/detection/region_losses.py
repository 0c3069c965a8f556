"""Losses of proposals, regions and masks, divided as mmdet divides them; all in float32.

A batch's fillers, images of weight 0, change nothing but the share of images that are none, by which each loss is
multiplied, so that means over batches count images (see `ssd_loss`).

Letters: B images, A anchors, S regions of an image, P the first of them, which may be an object's, K classes.
"""

from keras import ops

from swins.boxes import extent, floats
from swins.detection.assignment import Regions, Samples
from swins.detection.box_deltas import REGION_STDS, RPN_STDS, decode_deltas, encode_deltas, of_class

STAGE_WEIGHTS = (1.0, 0.5, 0.25)  # of Cascade's stages
CASCADE_BETA = 1 / 9  # of Cascade's proposals
GIOU_WEIGHT = 10.0
SMALLEST = 1e-6  # of areas that are divided by


def image_weights(weight, like):
    """(weights of the images (B, 1), the share of images that are no fillers); None: all count."""
    weight = ops.ones_like(floats(like[:, 0])) if weight is None else floats(weight)
    return weight[:, None], ops.mean(floats(weight > 0))


def binary_entropy(logits, targets):
    """Cross entropy of each logit with its target, 0 or 1."""
    return ops.maximum(logits, 0.0) - logits * targets + ops.log1p(ops.exp(-ops.abs(logits)))


def smooth_l1(errors, beta: float):
    """The absolute of errors, and a parabola below beta; 0: none."""
    size = ops.abs(errors)
    return size if beta == 0 else ops.where(size < beta, 0.5 * size * size / beta, size - 0.5 * beta)


def giou(boxes, others):
    """Generalized intersection over union (arXiv:1902.09630) of boxes and others, pair by pair: (..., 4) -> (...)."""
    left, top, right, bottom = ops.unstack(boxes, 4, -1)
    a, b, c, d = ops.unstack(others, 4, -1)
    common = extent(ops.maximum(left, a), ops.maximum(top, b), ops.minimum(right, c), ops.minimum(bottom, d))
    union = (right - left) * (bottom - top) + (c - a) * (d - b) - common
    union = ops.maximum(union, SMALLEST)
    hull = extent(ops.minimum(left, a), ops.minimum(top, b), ops.maximum(right, c), ops.maximum(bottom, d))
    hull = ops.maximum(hull, SMALLEST)
    return common / union - (hull - union) / hull


def rpn_losses(logits, deltas, anchors, samples: Samples, truths: dict, beta: float = 0.0) -> dict:
    """The losses of proposals -> {"rpn_class": scalar, "rpn_box": scalar}.

    Sums over the sampled anchors, divided by their number; an image without an object's counts one more.

    Args:
        logits: (B, A); deltas: (B, A, 4); anchors: (A, 4) xyxy.
        samples: of the anchors.
        truths: "boxes" (B, G, 4) xyxy; perhaps "weight" (B,), 0 for fillers.
        beta: below which errors of boxes are squared; 0 for never, CASCADE_BETA.
    """
    weight, share = image_weights(truths.get("weight"), samples.places)
    positive, valid = floats(samples.positive), floats(samples.valid)
    counts = [ops.maximum(ops.sum(x, 1, keepdims=True), 1.0) for x in (positive, valid - positive)]
    total = ops.maximum(ops.sum(weight * (counts[0] + counts[1])), 1.0)

    entropy = binary_entropy(ops.take_along_axis(floats(logits), samples.places, 1), positive)
    places = samples.places[..., None]
    boxes = ops.take_along_axis(floats(truths["boxes"]), samples.owners[..., None], 1)
    boxes = ops.where(samples.positive[..., None], boxes, 0.0)
    targets = encode_deltas(boxes, ops.take(floats(anchors), samples.places, 0), RPN_STDS)
    errors = ops.take_along_axis(floats(deltas), places, 1) - ops.stop_gradient(targets)
    errors = smooth_l1(ops.where(samples.positive[..., None], errors, 0.0), beta)
    return {
        "rpn_class": share * ops.sum(weight * valid * entropy) / total,
        "rpn_box": share * ops.sum(weight[..., None] * errors) / total,
    }


def delta_errors(deltas, regions: Regions, stds: tuple):
    """L1 of the deltas of the regions' classes: (B, S, 4) -> (B, S); means something where a region is an object's."""
    targets = ops.stop_gradient(encode_deltas(regions.targets, regions.boxes, stds))
    return ops.sum(ops.abs(ops.where(regions.positive[..., None], deltas - targets, 0.0)), -1)


def giou_errors(deltas, regions: Regions, stds: tuple):
    """Cascade's: GIOU_WEIGHT * (1 - GIoU) of the decoded boxes, which end nowhere: (B, S, 4) -> (B, S)."""
    boxes = decode_deltas(ops.where(regions.positive[..., None], deltas, 0.0), regions.boxes, stds)
    return ops.where(regions.positive, GIOU_WEIGHT * (1 - giou(boxes, regions.targets)), 0.0)


def region_losses(
    logits, deltas, regions: Regions, stds: tuple = REGION_STDS, weight=None, box_errors=delta_errors
) -> dict:
    """The losses of the box head -> {"class": scalar, "box": scalar}; both are divided by all sampled regions.

    Args:
        logits: (B, S, K + 1), the background's last; deltas: (B, S, 4K) class by class.
        regions: as sampled; stds: what deltas are divided by.
        weight: (B,), 0 for fillers; None: no image is one.
        box_errors: `delta_errors` or `giou_errors`.
    """
    weight, share = image_weights(weight, regions.labels)
    valid = weight * floats(regions.valid)
    total = ops.maximum(ops.sum(valid), 1.0)
    logits = floats(logits)
    labels = ops.where(regions.positive, regions.labels, logits.shape[-1] - 1)
    entropy = ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    errors = box_errors(of_class(floats(deltas), regions.labels), regions, stds)
    return {"class": share * ops.sum(valid * entropy) / total, "box": share * ops.sum(valid * errors) / total}


def mask_loss(logits, targets, regions: Regions, weight=None):
    """The loss of the mask head -> scalar: cross entropy of the pixels of each object's own class, their mean.

    Args:
        logits: (B, P, h, w, K); targets: (B, P, h, w) of 0 and 1, as `swins.detection.mask_targets` gives them.
        regions: as sampled, of which the first P are looked at; weight: (B,), 0 for fillers; None: no image is one.
    """
    places = ops.shape(logits)[1]
    labels, positive = regions.labels[:, :places], regions.positive[:, :places]
    weight, share = image_weights(weight, labels)
    index = ops.maximum(labels, 0)[:, :, None, None, None]
    own = ops.take_along_axis(floats(logits), ops.broadcast_to(index, (*ops.shape(logits)[:-1], 1)), -1)[..., 0]
    entropy = ops.mean(binary_entropy(own, floats(targets)), (2, 3))
    counted = weight * floats(positive)
    return share * ops.sum(counted * entropy) / ops.maximum(ops.sum(counted), 1.0)
