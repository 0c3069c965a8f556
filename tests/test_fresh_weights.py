"""First weights: spread as Keras' own draw them under every backend, the same again after the same seed."""

import keras
import numpy as np
import pytest
from keras import initializers

from swins import fresh_weights

SHAPES = {"dense": (300, 400), "convolution": (3, 3, 96, 128)}
OURS = {
    "papers_normal": (fresh_weights.papers_normal, lambda: initializers.RandomNormal(stddev=0.02)),
    "kaiming": (
        fresh_weights.kaiming,
        lambda: initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
    ),
    "xavier": (fresh_weights.xavier, lambda: initializers.GlorotUniform()),
    "torch_linear": (
        lambda: fresh_weights.torch_linear(300)["kernel_initializer"],
        lambda: initializers.RandomUniform(-(300**-0.5), 300**-0.5),
    ),
}


def drawn(make, shape):
    keras.utils.set_random_seed(1)
    return keras.ops.convert_to_numpy(make()(shape))


@pytest.mark.backends
@pytest.mark.core
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", OURS)
def test_they_are_spread_as_keras_draws_them(name, shape):
    ours, theirs = (drawn(make, shape) for make in OURS[name])
    assert ours.shape == theirs.shape == shape and ours.dtype == theirs.dtype == np.float32
    assert ours.std() == pytest.approx(theirs.std(), rel=0.02)
    assert abs(ours.mean()) < 0.02 * ours.std()
    shares = np.linspace(0.001, 0.999, 31)
    np.testing.assert_allclose(np.quantile(ours, shares), np.quantile(theirs, shares), atol=0.1 * theirs.std())
    np.testing.assert_array_equal(ours, drawn(OURS[name][0], shape))


@pytest.mark.backends
@pytest.mark.parametrize("name", OURS)
def test_they_are_saved(name):
    layer = keras.layers.Dense(4, kernel_initializer=OURS[name][0]())
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(again.kernel_initializer) is type(layer.kernel_initializer)
    assert again.kernel_initializer.get_config() == layer.kernel_initializer.get_config()
