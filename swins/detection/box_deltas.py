"""Deltas: how a region network moves a box (arXiv:1311.2524, appendix C), with the numbers of mmdet.

The distance of the centres in sides of the reference, and the logarithms of the sides over the reference's, divided by
what they spread. Boxes are xyxy in pixels. Letters: B images, N boxes of an image, K classes.
"""

from keras import ops

from swins.boxes import LIMIT, centres, decode, encode, floats

RPN_STDS = (1.0, 1.0, 1.0, 1.0)
REGION_STDS = (0.1, 0.1, 0.2, 0.2)
CASCADE_STDS = (REGION_STDS, (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))


def encode_deltas(boxes, references, stds: tuple = REGION_STDS):
    """The deltas from references to boxes: xyxy, xyxy -> (..., 4). A reference without an area counts as 1 pixel."""
    references = centres(references)
    sides = ops.where(references[..., 2:] > 0, references[..., 2:], 1.0)
    references = ops.concatenate([references[..., :2], sides], -1)
    return encode(boxes, references, tuple(1 / std for std in stds))


def decode_deltas(deltas, references, stds: tuple = REGION_STDS, sizes=None):
    """References moved by deltas -> xyxy (..., 4).

    Args:
        deltas: (B, N, 4), or (B, N, K, 4) of each class. A side changes by no more than 1000 / 16 times, up and down.
        references: xyxy in pixels, of a shape that fits: (B, N, 4), (N, 4), or (B, N, 1, 4).
        stds: what the deltas were divided by.
        sizes: (B, 2) heights and widths that boxes end at, in pixels; None for no end.
    """
    deltas = floats(deltas) * floats(stds)
    deltas = ops.concatenate([deltas[..., :2], ops.maximum(deltas[..., 2:], -LIMIT)], -1)
    boxes = decode(deltas, centres(references), scales=(1.0,) * 4)
    return boxes if sizes is None else clip_to_sizes(boxes, sizes)


def clip_to_sizes(boxes, sizes):
    """xyxy boxes (B, ..., 4) within their own images, of heights and widths (B, 2)."""
    ends = ops.flip(floats(sizes), -1)
    ends = ops.concatenate([ends, ends], -1)
    ends = ops.reshape(ends, (-1, *(1,) * (len(boxes.shape) - 2), 4))
    return ops.minimum(ops.maximum(floats(boxes), 0.0), ends)


def of_class(deltas, labels):
    """Each box's deltas of one class: (B, N, 4K) class by class, (B, N) integers -> (B, N, 4).

    A label below 0, of background, takes the first class's.
    """
    deltas = ops.reshape(deltas, (-1, *deltas.shape[1:-1], deltas.shape[-1] // 4, 4))
    labels = ops.maximum(ops.cast(labels, "int32"), 0)
    return ops.take_along_axis(deltas, labels[..., None, None], -2)[..., 0, :]
