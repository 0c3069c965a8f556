"""Sides of feature maps, and maps split along them, in few nodes of TensorFlow's graphs.

What is known of a shape stays a number: a tensor is a node, which takes time to trace, to load and to run
(tests/test_windows.py counts them).

Letters: B batch, (H, W) tokens of a feature map, C channels.
"""

import keras
from keras import ops


def on_tensorflow(x):
    """Whether a map is TensorFlow's: no other backend's, and not symbolic."""
    return keras.backend.backend() == "tensorflow" and not keras.backend.is_keras_tensor(x)


def sides(x):
    """(H, W) of a map (B, H, W, C): integers, or scalar tensors in a TensorFlow graph that takes any size."""
    known = tuple(x.shape[1:3])
    if None not in known:
        return known
    if on_tensorflow(x):
        import tensorflow as tf

        counted = tf.unstack(tf.shape(x), 4)[1:3]  # fewer nodes than `ops.shape`'s
        return tuple(n if side is None else side for side, n in zip(known, counted, strict=True))
    return ops.shape(x)[1:3]


def parts(x, at, axis):
    """A map up to row or column `at`, and from it. Known sizes are split: TensorFlow is slow at slices' gradients."""
    side, rows = x.shape[axis], (slice(None),) * axis
    if side is None or not isinstance(at, int):
        return x[(*rows, slice(at))], x[(*rows, slice(at, None))]
    if on_tensorflow(x):
        import tensorflow as tf

        return tf.split(x, [at % side, side - at % side], axis)  # `ops.split` computes these in its graph
    return ops.split(x, [at % side], axis)


def laid_out(tokens, x):
    """Tokens (n, C') as those of x (..., C) lie: (..., C')."""
    first, *others = x.shape[:-1]
    if None in others:
        others = sides(x) if len(others) == 2 else ops.shape(x)[1:-1]
    return ops.reshape(tokens, (-1 if first is None else first, *others, tokens.shape[-1]))
