"""Window geometry against literal matrices and timm's own indices."""

import numpy as np
import pytest
from keras import ops
from shared_fixtures import needs_tensorflow

import swins
from swins import windows

pytestmark = [pytest.mark.backends, pytest.mark.core]


def grid(height, width):
    return ops.reshape(ops.arange(height * width, dtype="float32"), (1, height, width, 1))


def test_partition_is_row_by_row():
    cut = ops.convert_to_numpy(windows.partition(grid(4, 6), (2, 3)))[..., 0]
    assert cut.tolist() == [
        [0, 1, 2, 6, 7, 8],
        [3, 4, 5, 9, 10, 11],
        [12, 13, 14, 18, 19, 20],
        [15, 16, 17, 21, 22, 23],
    ]


@pytest.mark.parametrize("window", [(2, 3), (4, 1), (1, 6), (4, 6)])
def test_reverse_undoes_partition(rng, window):
    x = rng.standard_normal((3, 4, 6, 5), dtype="float32")
    np.testing.assert_array_equal(
        ops.convert_to_numpy(windows.reverse(windows.partition(x, window), window, (4, 6))), x
    )


@pytest.mark.parametrize("shift", [(0, 0), (1, 0), (0, 2), (2, 3), (-2, -3)])
def test_roll_is_numpys(rng, shift):
    x = rng.standard_normal((2, 5, 7, 3), dtype="float32")
    rolled = windows.roll(ops.convert_to_tensor(x), shift)
    np.testing.assert_array_equal(ops.convert_to_numpy(rolled), np.roll(x, (-shift[0], -shift[1]), axis=(1, 2)))
    np.testing.assert_array_equal(ops.convert_to_numpy(windows.roll(rolled, [-s for s in shift])), x)


def test_pad_appends_zeros_and_crop_takes_them_off(rng):
    x = rng.standard_normal((2, 5, 7, 3), dtype="float32")
    padded = ops.convert_to_numpy(windows.pad(x, (4, 7)))
    assert padded.shape == (2, 8, 7, 3)
    assert not padded[:, 5:].any()
    np.testing.assert_array_equal(windows.crop(padded, (5, 7)), x)


def test_neighbours_order_has_the_column_slow():
    stacked = ops.convert_to_numpy(windows.neighbours(grid(3, 2)))
    assert stacked.tolist() == [[[[0, 2, 1, 3]], [[4, 0, 5, 0]]]]


def test_regions_of_a_rolled_map():
    # 4x4 map, window 2, shift 1: 9 regions, the last row and column came around the edge
    ids = windows.reverse(windows.region_ids((4, 4), (2, 2), (1, 1))[..., None], (2, 2), (4, 4))
    assert ops.convert_to_numpy(ids)[0, :, :, 0].tolist() == [[0, 0, 1, 2], [0, 0, 1, 2], [3, 3, 4, 5], [6, 6, 7, 8]]


def test_an_axis_without_shift_has_one_region():
    ids = windows.reverse(windows.region_ids((2, 4), (2, 2), (0, 1))[..., None], (2, 2), (2, 4))
    assert ops.convert_to_numpy(ids)[0, :, :, 0].tolist() == [[3, 3, 4, 5], [3, 3, 4, 5]]


def test_shift_mask_keeps_regions_apart():
    mask = ops.convert_to_numpy(windows.shift_mask((2, 4), (2, 2), (0, 1)))
    no, yes = windows.MASKED, 0.0
    assert mask[0].tolist() == [[yes] * 4] * 4
    assert mask[1].tolist() == [[yes, no, yes, no], [no, yes, no, yes], [yes, no, yes, no], [no, yes, no, yes]]


def test_relative_index_literal():
    assert windows.relative_index((2, 2)).tolist() == [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]


def test_relative_index_covers_the_table_once_per_offset():
    index = windows.relative_index((3, 5))
    assert sorted(set(index.ravel())) == list(range(5 * 9))


@needs_tensorflow
@pytest.mark.parametrize(("size", "most"), [(28, 1200), (None, 3000)])
def test_graphs_have_few_nodes(size, most):
    """Of the embedded classifier's form; where shapes of known sizes were tensors, it had 2,514."""
    import tensorflow as tf

    model = swins.create("swin_mini_patch2_window4_28", image_size=size or (None, None))
    images = tf.TensorSpec((None, *model.input.shape[1:]), tf.float32)
    graph = tf.function(lambda x: model(x, training=False), autograph=False).get_concrete_function(images).graph
    assert len(graph.get_operations()) <= most
