"""Masks of eight pixels a byte become those that were packed, eagerly and in a graph of any batch."""

import keras
import numpy as np
import pytest
from keras import ops

from swins.detection.mask_bits import unpacked

pytestmark = [pytest.mark.backends, pytest.mark.core]


@pytest.mark.parametrize("dtype", ["float32", "uint8", "bool"])
def test_masks_are_those_that_were_packed(dtype, rng):
    masks = rng.random((2, 3, 5, 32)) < 0.5
    packed = np.packbits(masks, -1, bitorder="little")
    result = unpacked(ops.convert_to_tensor(packed), dtype)
    assert keras.backend.standardize_dtype(result.dtype) == dtype
    np.testing.assert_array_equal(ops.convert_to_numpy(result), masks.astype(dtype))
    one = ops.convert_to_numpy(unpacked(ops.take(ops.convert_to_tensor(packed), 1, 0)[2]))
    np.testing.assert_array_equal(one, masks[1, 2])


def test_in_a_graph_of_any_batch(rng):
    masks = rng.random((3, 4, 16)) < 0.5
    packed = np.packbits(masks, -1, bitorder="little")
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        run = tf.function(unpacked, input_signature=[tf.TensorSpec((None, 4, 2), "uint8")], jit_compile=True)
    elif keras.backend.backend() == "jax":
        import jax

        run = jax.jit(unpacked)
    else:
        run = unpacked
    np.testing.assert_array_equal(ops.convert_to_numpy(run(ops.convert_to_tensor(packed))), masks)
