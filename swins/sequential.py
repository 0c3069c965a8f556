"""Attention of some queries after the others, so that only their weights exist at once.

Letters: B batch, K windows of an image, N tokens of a window, D channels of a head.
"""

import math

import keras
from keras import ops


def by_queries(attend, chunk, q, k, v, bias, shift_mask=None):
    """attend(k, v, q, bias[, shift_mask]) of all queries at once, or if `chunk` is not 0, of so many after each other.

    q, k, v (B*K, heads, N, D), bias (heads, N, N), shift_mask (K, N, N) -> (B*K, heads, N, D), of v's dtype.
    """
    rows = [x for x in (q, bias, shift_mask) if x is not None]
    if not chunk:
        return attend(k, v, *rows)
    n = q.shape[2]
    count = math.ceil(n / chunk)

    def parts(x):  # along the queries' axis, which is the last but one
        axis = len(x.shape) - 2
        x = ops.pad(x, [(0, count * chunk - n if i == axis else 0) for i in range(axis + 2)])
        return ops.moveaxis(ops.reshape(x, (*ops.shape(x)[:axis], count, chunk, x.shape[-1])), axis, 0)

    attend = keras.remat(attend)  # or gradients would keep every part's weights

    def step(_, part):
        y = attend(k, v, *part)  # k and v as arguments: TensorFlow gives no gradient to what remat's functions capture
        return y, y

    chunks = tuple(parts(x) for x in rows)
    first = ops.zeros_like(chunks[0][0], dtype=v.dtype)  # TensorFlow wants a carry like the output
    y = ops.moveaxis(ops.scan(step, first, chunks)[1], 0, 2)
    return ops.reshape(y, (*ops.shape(y)[:2], count * chunk, y.shape[-1]))[:, :, :n]
