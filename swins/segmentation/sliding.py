"""Answers of a segmenter for images of any size: whole, window by window, and averaged over sizes and mirror images.

Logits are enlarged twice, as mmsegmentation does: to the size of the network's images, then to that of the originals;
`argmax` of the last axis is the mask. Letters: B images, (H, W) pixels, K classes.
"""

import itertools

from keras import ops

from swins.checked_numbers import integers
from swins.errors import SwinsError
from swins.segmentation.pyramid_pooling import resized
from swins.segmentation.upernet import LOGITS

RATIOS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # of mmsegmentation's tests at several sizes


def in_pixels(model, images):
    """A network's logits of images, one for each of their pixels: (B, H, W, C) -> (B, H, W, K)."""
    return resized(model(images, training=False)[LOGITS], ops.shape(images)[1:3])


def enlarged(logits, size):
    """Logits at the originals' size, (height, width) in pixels; as they are where none is given."""
    return logits if size is None else resized(logits, tuple(size))


def whole(model, images, size=None):
    """Logits of whole images: (B, H, W, C) -> (B, H, W, K) float32, or (B, *size, K).

    Args:
        model: a UPerNet, or another of images -> {"logits": map}.
        images: prepared as the model takes them.
        size: (height, width) in pixels of the originals; None for the images' own.
    """
    return enlarged(in_pixels(model, images), size)


def starts_of(length: int, window: int, stride: int) -> list:
    """Where windows begin along an axis; the last one ends with it: 10, 4, 4 -> [0, 4, 6]."""
    last = max(length - window, 0)
    return [min(k * stride, last) for k in range((last + stride - 1) // stride + 1)]


def slide(model, images, window, stride, size=None):
    """Logits of images window by window, averaged where these overlap: (B, H, W, C) -> (B, H, W, K), or (B, *size, K).

    A window larger than the images is cut to them.

    Args:
        model: a UPerNet, or another of images -> {"logits": map}.
        images: prepared as the model takes them, of a known height and width.
        window: pixels of a window's side, or (height, width).
        stride: pixels from window to window, or (vertical, horizontal); no more than the window's.
        size: (height, width) in pixels of the originals; None for the images' own.

    Raises:
        SwinsError: windows that leave gaps, images of an unknown size.
    """
    window, stride = integers("window", window, 2), integers("stride", stride, 2)
    if any(step < 1 or step > side for step, side in zip(stride, window, strict=True)):
        raise SwinsError(
            f"a stride must be from 1 to its window's side, or pixels are left out; got {stride}, {window}"
        )
    height, width = ops.shape(images)[1:3]
    if not (isinstance(height, int) and isinstance(width, int)):
        raise SwinsError("windows are laid over images of a known size; call slide outside of a graph of open sizes")
    tall, wide = min(window[0], height), min(window[1], width)
    total, count = 0.0, ops.zeros((1, height, width, 1))
    for top, left in itertools.product(starts_of(height, tall, stride[0]), starts_of(width, wide, stride[1])):
        logits = in_pixels(model, images[:, top : top + tall, left : left + wide])
        around = [[0, 0], [top, height - top - tall], [left, width - left - wide], [0, 0]]
        total = total + ops.pad(logits, around)
        count = count + ops.pad(ops.ones((1, tall, wide, 1)), around)
    return enlarged(total / count, size)


def averaged(model, images, size=None, *, ratios=RATIOS, flip=True, inference=whole):
    """Probabilities of classes, averaged over sizes of the images and their mirror images: -> (B, H, W, K).

    Each size's logits are brought to the originals' size, and their softmax is averaged.

    Args:
        model: a UPerNet, or another of images -> {"logits": map}, that takes images of any size.
        images: (B, H, W, C), prepared as the model takes them, of a known height and width.
        size: (height, width) in pixels of the originals; None for the images' own.
        ratios: of the sides, which are rounded.
        flip: whether mirror images are asked too.
        inference: (model, images, size) -> logits: `whole`, or a `slide` of some window.
    """
    height, width = ops.shape(images)[1:3]
    size, total = size or (height, width), 0.0
    for ratio in ratios:
        sides = tuple(max(1, int(side * ratio + 0.5)) for side in (height, width))
        copy = images if sides == (height, width) else resized(images, sides)
        total = total + ops.softmax(inference(model, copy, size), -1)
        if flip:
            total = total + ops.softmax(ops.flip(inference(model, ops.flip(copy, 2), size), 2), -1)
    return total / (len(ratios) * (1 + bool(flip)))
