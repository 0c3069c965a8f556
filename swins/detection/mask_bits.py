"""Masks of eight pixels a byte, as training arrays have them: an eighth of the memory, and no pixel less.

The first of the eight is the lowest bit, as `numpy.packbits(masks, -1, bitorder="little")` makes them.
"""

import numpy as np
from keras import ops

BITS = np.arange(8, dtype="uint8")


def unpacked(masks, dtype="float32"):
    """Masks (..., W / 8) uint8 -> (..., W) of 0 and 1, of a type."""
    bits = ops.bitwise_and(ops.right_shift(ops.expand_dims(masks, -1), BITS), np.uint8(1))
    shape = ops.shape(masks)
    return ops.cast(ops.reshape(bits, (*shape[:-1], 8 * shape[-1])), dtype)
