"""How pixels of image files come to a model's size in a TensorFlow graph: each preparation's way.

Each function takes an image (h, w, C) of levels 0 to 255 and its preparation, and gives float32 levels of the size that
the model is given, with those pixels that are none of the image's: (H, W, C), (H, W, 1) bool of what is shown.
"""

from swins.errors import SwinsError
from swins.images import Preprocess
from swins.keep_ratio import BETWEEN, ONE, PRODUCT, KeepRatioPreprocess


def cut(image, prepare: Preprocess):
    """Preprocess's own: Pillow's bicubic or bilinear, then the centre, to the bit."""
    import tensorflow as tf

    return tf.cast(prepare.levels(tf.cast(image, "uint8")), "float32"), tf.ones((*prepare.image_size, 1), bool)


def scaled_sides(size, prepare: KeepRatioPreprocess):
    """`swins.keep_ratio.scaled_sides` in a graph: (..., 2) heights and widths -> (..., 2) int32, on the one canvas."""
    import tensorflow as tf

    sides = tf.cast(size, "float64")
    room = tf.constant(prepare.image_size, "float64")
    limits = [prepare.long / tf.reduce_max(sides, -1), prepare.short / tf.reduce_min(sides, -1)]
    factor = tf.minimum(tf.minimum(*limits), tf.reduce_min(room / sides, -1))
    return tf.maximum(tf.cast(sides * factor[..., None] + 0.5, "int32"), 1)


def axis(side, to):
    """Of each pixel of a scaled axis: the two that it lies between, and their weights, int32, as OpenCV has them."""
    import tensorflow as tf

    places = (tf.cast(tf.range(to), "float64") + 0.5) * (1.0 / (to / side)) - 0.5
    places = tf.cast(places, "float32")
    first = tf.floor(places)
    part, first = places - first, tf.cast(first, "int32")
    weights = [tf.cast(tf.round(part * ONE), "int32") for part in (1 - part, part)]
    return first, weights


def laid(image, prepare: KeepRatioPreprocess):
    """KeepRatioPreprocess's: OpenCV's fixed-point bilinear, the same integers as `swins.keep_ratio.bilinear`.

    Raises:
        SwinsError: for several canvases, as a graph has one.
    """
    import tensorflow as tf

    if len(prepare.canvases) != 1:
        raise SwinsError(f"a SavedModel has one canvas; got {len(prepare.canvases)}; name one that has room for all")
    size = tf.shape(image)[:2]
    height, width = tf.unstack(scaled_sides(size, prepare))
    pixels, (h, w) = tf.cast(image, "int32"), tf.unstack(size)
    left, (near, far) = axis(w, width)
    outside = (left < 0) | (left >= w - 1)  # where the nearest pixel alone counts
    near, far = tf.where(outside, int(ONE), near), tf.where(outside, 0, far)
    left = tf.clip_by_value(left, 0, w - 1)
    pair = tf.gather(pixels, left, axis=1), tf.gather(pixels, tf.minimum(left + 1, w - 1), axis=1)
    rows = tf.bitwise.right_shift(pair[0] * near[:, None] + pair[1] * far[:, None], BETWEEN)
    top, (near, far) = axis(h, height)
    above, below = (tf.gather(rows, tf.clip_by_value(top + i, 0, h - 1)) for i in (0, 1))
    near, far = near[:, None, None], far[:, None, None]
    result = tf.bitwise.right_shift(above * near, PRODUCT) + tf.bitwise.right_shift(below * far, PRODUCT)
    result = tf.cast(tf.bitwise.right_shift(result + 2, 2), "float32")
    beside = [[0, prepare.image_size[0] - height], [0, prepare.image_size[1] - width], [0, 0]]
    return tf.pad(result, beside), tf.pad(tf.ones((height, width, 1), bool), beside)


SCALINGS = {Preprocess: cut, KeepRatioPreprocess: laid}


def scaling(prepare):
    """The function of a preparation's kind. Raises SwinsError for one that has none."""
    for kind, function in SCALINGS.items():
        if isinstance(prepare, kind):
            return function
    raise SwinsError(f"image files are served as {' or '.join(k.__name__ for k in SCALINGS)} say; got {prepare!r}")
