"""RoIAlign against torchvision's, from reference/regions.py: values, gradients, levels, any size, on every backend."""

import keras
import numpy as np
import pytest
import region_cases as cases
from keras import ops
from test_anchors import reference
from test_boxes import compiled

from swins.detection.roi_align import ADAPTIVE, roi_align, roi_levels

SAMPLINGS = (ADAPTIVE, 2)


def gradients(function, values):
    """The gradients of a scalar function of a list of arrays, compiled by JAX."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(jax.grad(function))(values)
    tensors = [ops.convert_to_tensor(value) for value in values]
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(tensors)
            total = function(tensors)
        return tape.gradient(total, tensors)
    for tensor in tensors:
        tensor.requires_grad_(True)
    function(tensors).backward()
    return [tensor.grad for tensor in tensors]


@pytest.mark.slow
@pytest.mark.backends
@pytest.mark.parametrize("sampling", [pytest.param(ADAPTIVE, marks=pytest.mark.core), 2])
def test_bins_are_torchvisions(sampling):
    maps, boxes = cases.roi_cases()
    levels = compiled(roi_levels)(boxes)
    np.testing.assert_array_equal(levels.reshape(-1), reference()["roi_levels"])
    assert (np.bincount(levels.reshape(-1)) > 10).all()
    bins = compiled(lambda *values: roi_align(values[:4], values[4], 7, sampling=sampling), [*maps, boxes])
    wanted = reference()[f"bins_{sampling}"].reshape(2, 100, 7, 7, 2)
    np.testing.assert_allclose(bins(*maps, boxes), wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.slow
@pytest.mark.backends
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_gradients_are_torchs(sampling):
    maps, boxes = cases.roi_cases()
    upstream = ops.convert_to_tensor(cases.pattern((2, 100, 7, 7, 2)))

    def total(maps):
        return ops.sum(upstream * roi_align(maps, boxes, 7, sampling=sampling))

    found = [ops.convert_to_numpy(x)[0, ..., 0].reshape(-1) for x in gradients(total, maps)]
    wanted = reference()[f"gradients_{sampling}"]
    np.testing.assert_allclose(np.concatenate(found), wanted, atol=2e-5 * np.abs(wanted).max())


@pytest.mark.backends
def test_half_precision_and_no_regions_of_a_window():
    """Maps of bfloat16 give bins of bfloat16; boxes keep their precision, on an image of 2000 pixels too."""
    maps = [np.zeros((1, 2000 // s, 64 // s, 1), "float32") for s in (4, 8, 16, 32)]
    maps[0][0] = np.random.default_rng(0).random((500, 1, 1))  # rows of one number each
    boxes = np.float32([[[10, 1801.0 + shift, 30, 1807.0 + shift] for shift in (0.0, 0.5, 1.0)]])

    def align(*maps):
        half = roi_align([ops.cast(x, "bfloat16") for x in maps], boxes, 1)
        assert keras.backend.standardize_dtype(half.dtype) == "bfloat16"
        return roi_align(maps, boxes, 1), ops.cast(half, "float32")

    whole, half = compiled(align)(*maps)
    np.testing.assert_allclose(half, whole, atol=4e-3)
    assert len(set(whole.ravel().tolist())) == 3


@pytest.mark.backends
def test_boxes_that_are_no_numbers_break_nothing():
    maps, _ = cases.roi_cases()
    nan, inf = np.nan, np.inf
    boxes = np.float32(
        [[nan] * 4, [0, nan, 9, 9], [-inf, 0, inf, 9], [inf] * 4, [-1e30, -1e30, 1e30, 1e30], [1, 1, 9, 9]]
    )
    bins = compiled(lambda *maps: roi_align(maps, np.stack([boxes, boxes]), 2))(*maps)
    assert np.isfinite(bins).all()
    np.testing.assert_allclose(bins[:, 5:], compiled(lambda *m: roi_align(m, boxes[[[5]] * 2], 2))(*maps), atol=1e-5)


@pytest.mark.slow
def test_a_graph_takes_any_size_and_number():
    import tensorflow as tf

    maps, boxes = cases.roi_cases()
    signature = [*[tf.TensorSpec((None, None, None, 2))] * 4, tf.TensorSpec((None, None, 4))]
    graph = tf.function(lambda *values: roi_align(values[:4], values[4], 7), input_signature=signature)
    for count in (1, 60):
        part = [x[:1, : x.shape[1] // 2] for x in maps], boxes[:1, :count]
        wanted = ops.convert_to_numpy(roi_align(*part, 7))
        np.testing.assert_allclose(graph(*part[0], part[1]).numpy(), wanted, atol=5e-5)
