"""Classes of few images that count as much as others: the weights, and the loss, as Keras' own class_weight has it."""

import dataclasses

import keras
import numpy as np
import pytest
from training import SMALL, changed

from swins import recipes
from swins.data.class_weights import class_weights, label_counts
from swins.data.split import Arrays, Split
from swins.errors import SwinsError
from swins.images import Preprocess, open_image
from swins.tasks import classification

LABELS = np.array([0] * 6 + [1] * 3 + [2])
WEIGHTS = (10 / 18, 10 / 9, 10 / 3)  # scikit-learn's compute_class_weight("balanced")
ROWS = [(f"{i}", None, int(label)) for i, label in enumerate(LABELS)]
PREPARE = Preprocess((28, 28), (28, 28), True, (0.5,), (0.5,))
BALANCED = changed(SMALL, loss={"class_weights": "balanced"}, augment={"pad": 0, "flip": 0.0, "smoothing": 0.0})


@pytest.mark.parametrize("samples", [ROWS, Arrays("x", LABELS, LABELS)], ids=["files", "arrays"])
def test_classes_count_alike_however_many_images_they_have(samples):
    split = Split("x", samples, ("a", "b", "c"))
    assert label_counts(split).tolist() == [6, 3, 1]
    weights = class_weights(split, "balanced", label_counts)
    assert weights == pytest.approx(WEIGHTS)
    assert np.sum(label_counts(split) * weights) == pytest.approx(len(LABELS))
    assert class_weights(split, "", label_counts) is None
    assert class_weights(split, (1, 2, 0), label_counts) == (1.0, 2.0, 0.0)


def test_what_is_not_known_before_it_is_read_is_refused():
    split = Split("tfds", range(3), ("a", "b"))
    with pytest.raises(SwinsError, match="tfds: its labels are not known before they are read; give a weight"):
        class_weights(split, "balanced", label_counts)
    with pytest.raises(SwinsError, match="a number a class; got 1 and 2 classes"):
        class_weights(split, (1.0,), label_counts)
    for text in ("loss.class_weights=even", "loss.class_weights=(-1, 2)", "loss.class_weights=()"):
        with pytest.raises(SwinsError, match=r"class_weights must be None, .balanced., or numbers"):
            recipes.with_settings(SMALL, [text])


@pytest.mark.core
@pytest.mark.backends
def test_the_loss_is_that_of_keras_class_weight(rng):
    split = Split("x", ROWS, ("a", "b", "c"))
    reading = classification.training(BALANCED, PREPARE, split)
    images = rng.integers(0, 256, (10, 28, 28), "uint8")
    samples = [reading.sample(*pair, rng, None) for pair in zip(map(open_image, images), LABELS, strict=True)]
    _, arrays = reading.batch(samples, rng)
    np.testing.assert_allclose(arrays["weight"], np.take(WEIGHTS, LABELS), rtol=1e-6)
    logits = rng.standard_normal((10, 3)).astype("float32")
    ours = classification.losses(BALANCED, None, arrays, {"logits": keras.ops.convert_to_tensor(logits)})
    given = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, use_bias=False, kernel_initializer="identity")])
    given.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), optimizer=keras.optimizers.SGD(0.0)
    )
    theirs = given.train_on_batch(logits, LABELS, class_weight=dict(enumerate(WEIGHTS)))
    assert float(keras.ops.convert_to_numpy(ours["cross_entropy"])) == pytest.approx(float(np.max(theirs)), rel=1e-5)
    # validation counts all alike, and a mixed image counts as its parts
    assert "weight" not in classification.validating(BALANCED, PREPARE, split).batch(samples, None)[1]
    mixed = changed(BALANCED, augment={"mixup": 1.0})
    rows = classification.training(mixed, PREPARE, split).batch(samples, rng)[1]
    np.testing.assert_allclose(rows["weight"], rows["target"] @ np.float32(WEIGHTS), rtol=1e-6)
    plain = dataclasses.replace(BALANCED, loss=classification.Loss())
    assert "weight" not in classification.training(plain, PREPARE, split).batch(samples, rng)[1]
