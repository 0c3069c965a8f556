"""First weights: spread as Keras' own draw them under every backend, the same again after the same seed."""

import io
import zipfile
from unittest import mock

import h5py
import keras
import numpy as np
import pytest
from keras import initializers

import swins
from swins import fresh_weights
from swins.errors import SwinsError
from swins.weights import artefacts

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
def test_none_are_drawn_where_weights_follow_and_all_must(tmp_path):
    model = swins.create("swin_mini_patch2_window4_28", depths=(1,), embed_dim=8, num_heads=(2,))
    model.save(tmp_path / "model.keras")
    with mock.patch.object(fresh_weights.Normal, "draw", side_effect=AssertionError), fresh_weights.weights_follow():
        zeros = swins.create("swin_mini_patch2_window4_28", depths=(1,), embed_dim=8, num_heads=(2,))
    assert not keras.ops.convert_to_numpy(zeros.get_layer("head").kernel).any()
    again = artefacts.read_model(tmp_path / "model.keras")
    for ours, theirs in zip(again.weights, model.weights, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(ours), keras.ops.convert_to_numpy(theirs))
    with zipfile.ZipFile(tmp_path / "model.keras") as whole, zipfile.ZipFile(tmp_path / "less.keras", "w") as less:
        for name in whole.namelist():
            content = whole.read(name)
            if name == "model.weights.h5":
                file = io.BytesIO(content)
                with h5py.File(file, "r+") as weights:
                    place = next(k for k in weights["layers"] if "head" in k or k.startswith("dense"))
                    del weights["layers"][place]["vars"]["0"]
                content = file.getvalue()
            less.writestr(name, content)
    with pytest.raises(SwinsError, match=r"not a readable \.keras file"):
        artefacts.read_model(tmp_path / "less.keras")


@pytest.mark.backends
@pytest.mark.parametrize("name", OURS)
def test_they_are_saved(name):
    layer = keras.layers.Dense(4, kernel_initializer=OURS[name][0]())
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(again.kernel_initializer) is type(layer.kernel_initializer)
    assert again.kernel_initializer.get_config() == layer.kernel_initializer.get_config()
