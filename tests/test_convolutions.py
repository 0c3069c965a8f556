"""Convolutions in strips of rows, and of pyramids before they are enlarged, are those of whole maps."""

import keras
import numpy as np
import pytest
from training import one_program

from swins import convolutions
from swins.convolutions import Conv2D, strips_of
from swins.segmentation.pyramid_convolution import convolved_pyramid
from swins.segmentation.pyramid_pooling import resized

SIZES = [((16, 24), (8, 12), (4, 6), (2, 3)), ((13, 9), (7, 5), (1, 2)), ((6, 7), (6, 7)), ((5, 5),)]


@pytest.mark.backends
@pytest.mark.parametrize(("padding", "stride"), [("same", 1), ("valid", 1), ("valid", 2)])
@pytest.mark.parametrize("kernel", [3, (5, 1), (1, 3)])
@pytest.mark.parametrize("shape", [(1, 96, 20, 4), (1, 18, 7, 3), (1, 64, 4, 5), (1, 25, 9, 2), (1, 38, 38, 2)])
def test_strips_are_the_whole(shape, kernel, padding, stride, monkeypatch):
    images = np.random.default_rng(0).standard_normal(shape, "float32")
    options = {"activation": "relu", "bias_initializer": "ones", "data_format": "channels_last"}
    layer = Conv2D(6, kernel, stride, padding, **options)
    plain = keras.layers.Conv2D.from_config({**layer.get_config(), "name": "plain"})
    plain.build(shape)
    layer.build(shape)
    layer.set_weights(plain.get_weights())
    monkeypatch.setattr(convolutions, "on_tensorflows_cpu", lambda: True)
    monkeypatch.setattr(convolutions, "LEAST_WEIGHTS", 1)
    assert strips_of(shape, tuple(layer.kernel.shape)) == {96: 3, 18: 2, 64: 2, 25: 2, 38: 2}[shape[1]]
    wanted, got = (keras.ops.convert_to_numpy(each(images)) for each in (plain, layer))
    assert wanted.shape == got.shape
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


def test_maps_that_stay_whole(monkeypatch):
    large = (3, 3, 512, 512)
    for shape in ((None, 64, 64, 8), (1, None, 64, 8), (1, 15, 64, 8), (2, 64, 64, 8), (8, 128, 16, 2048)):
        assert strips_of(shape, large) == 1
    for kernel in ((1, 1, 1024, 1024), (3, 3, 128, 256), (3, 3, 1024, 24)):
        assert strips_of((1, 64, 64, 8), kernel) == 1 < strips_of((1, 64, 64, 8), large)
    monkeypatch.setattr(convolutions, "LEAST_WEIGHTS", 1)
    images = np.random.default_rng(0).standard_normal((1, 32, 32, 3), "float32")
    for options in ({"strides": 2}, {"dilation_rate": 2}, {"groups": 3}, {"kernel_size": 2}):
        layer = Conv2D(6, **{"kernel_size": 3, "padding": "same", "data_format": "channels_last", **options})
        plain = keras.layers.Conv2D.from_config({**layer.get_config(), "name": "plain"})
        plain.build(images.shape)
        layer.build(images.shape)
        layer.set_weights(plain.get_weights())
        np.testing.assert_array_equal(layer(images), plain(images))


@pytest.mark.backends
@pytest.mark.parametrize(
    "sizes", [((16, 24), (8, 12), (4, 6), (2, 3)), ((13, 9), (7, 5), (1, 2)), ((6, 7), (6, 7)), ((5, 5),)]
)
@pytest.mark.parametrize("side", [1, 3, 5])
def test_a_pyramid_convolved_where_its_maps_are_small(sizes, side):
    rng = np.random.default_rng(0)
    maps = [rng.standard_normal((2, *size, 3 + i), "float32") for i, size in enumerate(sizes)]
    channels = sum(x.shape[-1] for x in maps)
    conv = Conv2D(4, side, padding="same", use_bias=False, data_format="channels_last")
    conv.build((None, None, None, channels))

    @one_program
    def both(maps):
        together = keras.ops.concatenate([resized(x, sizes[0]) for x in maps], -1)
        return conv(together), convolved_pyramid(conv, maps)

    wanted, got = map(keras.ops.convert_to_numpy, both(maps))
    assert wanted.shape == got.shape
    np.testing.assert_allclose(got, wanted, atol=2e-6 * np.abs(wanted).max())
