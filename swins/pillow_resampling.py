"""Pillow's bicubic and bilinear resize of 8-bit pixels, to the bit, in integers that every backend computes alike.

A side is scaled by a weighted sum of the pixels near each new one's centre, with Keys' cubic (a = -1/2) or a triangle,
which is widened where the side becomes shorter; weights are 22-bit fixed-point numbers, and pixels have 8 bits between
the two sides. Only what is cut out is computed. B images; H, W: pixels of an image; C: channels; T: weights of a
new pixel.
"""

import functools
import math
import types

import numpy as np
from keras import ops

BITS = 22  # of a weight, after the point
HALF = 1 << (BITS - 1)
TOGETHER = 16  # weights whose products are in memory at a time


def scaled_size(size, target, keep_ratio):
    """(height, width) after resizing: `target`, or with the aspect kept, the smallest that covers it."""
    if not keep_ratio:
        return target
    (h, w), (th, tw) = size, target
    if th == tw:  # torchvision's rounding
        return (th, th * w // h) if h <= w else (th * h // w, th)
    ratio = min(h / th, w / tw)  # timm's
    return round(h / ratio), round(w / ratio)


def height_first(size, scaled):
    """Whether Pillow 13 scales the height first: where it loses more than twice the pixels that the width does.

    Earlier ones always begin with the width: of such images pixels differ, by 2/255 at most in what was measured.
    """
    (h, w), (th, tw) = size, scaled
    return (h > th) & (h - th > 2 * (w - tw))


def operations(pixels):
    """The operations on a tensor: `keras.ops`, or TensorFlow's, whose graphs also have sides that are not known yet."""
    if not of_tensorflow(pixels):
        return ops
    import tensorflow as tf

    return types.SimpleNamespace(
        take=tf.gather,
        cast=tf.cast,
        right_shift=tf.bitwise.right_shift,
        clip=tf.clip_by_value,
        minimum=tf.minimum,
        multiply=tf.multiply,
        divide=tf.divide,
        subtract=tf.subtract,
        sum=tf.reduce_sum,
    )


def of_tensorflow(value):
    """Whether a value is a tensor of TensorFlow, under whatever backend: `tf.data` gives them under all."""
    return any(f"{kind.__module__}.".startswith("tensorflow.") for kind in type(value).__mro__)


def known_sides(pixels):
    """(H, W) of an image or a batch: integers where they are known, else scalars of a TensorFlow graph."""
    sides = tuple(pixels.shape[-3:-1])
    if None not in sides:
        return tuple(map(int, sides))
    import tensorflow as tf

    shape = tf.shape(pixels)
    return tuple(shape[axis] if side is None else side for axis, side in zip((-3, -2), sides, strict=True))


def cubic(x, where):
    """Keys' cubic of distances of at least 0, in pixels; a = -1/2, in the order of operations that Pillow has."""
    near = (1.5 * x - 2.5) * x * x + 1.0
    return where(x < 1.0, near, where(x < 2.0, (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5, 0.0 * x))


def triangle(x, where):
    """What is left of 1 at distances of at least 0, in pixels."""
    return where(x < 1.0, 1.0 - x, 0.0 * x)


FILTERS = {"bicubic": (2.0, cubic), "bilinear": (1.0, triangle)}  # how far each reaches in pixels, and its weights


def taps(side, scaled, start, count, interpolation):
    """Which pixels of a side, and how much of each, make `count` pixels of the scaled side from `start` on.

    Returns:
        (first (count,), weights (T, count)), int32: weight t is that of pixel first + t. NumPy's where all is known,
        else TensorFlow's.
    """
    support = FILTERS[interpolation][0]
    if all(isinstance(number, int) for number in (side, scaled, start)):
        places = np.arange(start, start + count, dtype="float64")
        reach = support * max(side / scaled, 1.0)
        order = np.arange(2 * math.ceil(reach) + 1, dtype="float64")[:, None]
        first, weights = weighted((np.float64(side), np.float64(scaled)), places, order, interpolation, np)
        return first.astype("int32"), fixed_point(weights / weights.sum(0), np).astype("int32")
    import tensorflow as tf

    side, scaled = (tf.cast(number, "float64") for number in (side, scaled))
    places = tf.cast(start + tf.range(count), "float64")
    reach = support * tf.maximum(side / scaled, 1.0)
    order = tf.range(2.0 * tf.math.ceil(reach) + 1.0, dtype="float64")[:, None]
    first, weights = weighted((side, scaled), places, order, interpolation, tf)
    weights = fixed_point(weights / tf.reduce_sum(weights, 0), tf)
    return tf.cast(first, "int32"), tf.cast(weights, "int32")


def weighted(sides, places, order, interpolation, xp):
    """The first pixel of each of `places` and the weights of the next ones, float64.

    sides: of the image and of the scaled one; xp: NumPy or TensorFlow.
    """
    side, scaled = sides
    support, weight = FILTERS[interpolation]
    scale = side / scaled
    wide = xp.maximum(scale, 1.0)
    centres = (places + 0.5) * scale
    first = xp.maximum(xp.floor(centres - support * wide + 0.5), 0.0)
    last = xp.minimum(xp.floor(centres + support * wide + 0.5), side)
    weights = weight(xp.abs((order + first - centres + 0.5) * (1.0 / wide)), xp.where)
    return first, xp.where(order < last - first, weights, 0.0 * weights)


def fixed_point(weights, xp):
    """Weights as whole numbers of 2 ** -BITS, halves away from zero."""
    return xp.sign(weights) * xp.floor(xp.abs(weights) * float(1 << BITS) + 0.5)


def resampled(pixels, axis, sides, start, count, interpolation):
    """`count` pixels from `start` on of a scaled side, axis -3 or -2 of pixels (..., H, W, C) uint8 -> uint8.

    sides: the image's along that axis, and the scaled one.
    """
    do, place = operations(pixels), len(pixels.shape) + axis
    side = sides[0]
    first, weights = taps(*sides, start, count, interpolation)
    behind = (..., *(None,) * (-1 - axis))

    def terms(t):
        near = np.minimum(first + t, side - 1) if known else do.minimum(first + t, side - 1)
        return do.cast(do.take(pixels, near, axis=place), "int32")

    if known := isinstance(weights, np.ndarray):
        total = HALF
        for begin in range(0, len(weights), TOGETHER):
            part = weights[begin : begin + TOGETHER]
            products = do.multiply(terms(np.arange(begin, begin + len(part), dtype="int32")[:, None]), part[behind])
            total = total + do.sum(products, place)
    else:
        import tensorflow as tf

        def add(t, sums):
            return t + 1, sums + terms(t) * weights[t][behind]

        _, total = tf.while_loop(lambda t, _: t < tf.shape(weights)[0], add, add(0, HALF))
    return do.cast(do.clip(do.right_shift(total, BITS), 0, 255), "uint8")


def centre(pixels, resize, keep_ratio, image_size, interpolation="bicubic"):
    """The centre of images (..., H, W, C) uint8 that are scaled as `swins.images.Preprocess` says -> uint8.

    resize, keep_ratio, image_size, interpolation: a Preprocess's. Sides may be unknown in a graph of TensorFlow.
    """
    h, w = known_sides(pixels)
    if isinstance(h, int) and isinstance(w, int):
        scaled = scaled_size((h, w), resize, keep_ratio)
        starts = [round((side - cut) / 2) for side, cut in zip(scaled, image_size, strict=True)]
        cuts = tuple(zip((h, w), scaled, starts, image_size, strict=True))
        return both(pixels, cuts, interpolation, height_first((h, w), scaled))
    import tensorflow as tf

    scaled = scaled_in_graph((h, w), resize, keep_ratio)
    halves = [tf.cast(side - cut, "float64") / 2 for side, cut in zip(scaled, image_size, strict=True)]
    starts = [tf.cast(tf.round(half), "int32") for half in halves]
    cuts = tuple(zip((h, w), scaled, starts, image_size, strict=True))
    ways = [functools.partial(both, pixels, cuts, interpolation, order) for order in (True, False)]
    result = tf.cond(height_first((h, w), scaled), *ways)
    return tf.ensure_shape(result, (*pixels.shape[:-3], *image_size, pixels.shape[-1]))


def both(pixels, cuts, interpolation, upright):
    """Pixels scaled and cut along both sides, if upright the height first.

    cuts: of the height and the width: (the image's side, the scaled one, where what is cut out begins, its pixels).
    """
    for axis in (-3, -2) if upright else (-2, -3):
        side, scaled, start, count = cuts[axis + 3]
        pixels = resampled(pixels, axis, (side, scaled), start, count, interpolation)
    return pixels


def scaled_in_graph(size, target, keep_ratio):
    """`scaled_size` of a size that a graph of TensorFlow does not know yet."""
    import tensorflow as tf

    if not keep_ratio:
        return tuple(tf.constant(side) for side in target)
    (h, w), (th, tw) = size, target
    if th == tw:
        return tuple(tf.cond(h <= w, lambda: (th, th * w // h), lambda: (th * h // w, tw)))
    ratio = tf.minimum(h / th, w / tw)
    return tuple(tf.cast(tf.round(tf.cast(side, "float64") / ratio), "int32") for side in (h, w))
