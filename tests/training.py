"""What the tests of training have in common."""

import contextlib
import csv
import dataclasses
import gzip
import warnings

import keras
import numpy as np
import pytest

from swins.recipes import AdamW, Cosine
from swins.tasks.classification import Augment, Classification, Data, Model
from swins.train import loop

NAME = "swin_mini_patch2_window4_28.fashion_mnist"
COMPILED = keras.backend.backend() == "jax"  # a whole step is compiled sooner than its operations one by one
CLASSES = ("boots", "shirts", "trousers")
SMALL = Classification(
    model=Model(NAME, depths=(1,), num_heads=(3,), embed_dim=24, drop_path_rate=0.0, compile=COMPILED),
    data=Data(batch=20, crop=1.0, threads=2),
    augment=Augment(scale=None, pad=1, rand_augment="", erase=0.0, mixup=0.0, cutmix=0.0),
    optim=AdamW(learning_rate=2e-3, per_images=0, ema=0.5),
    schedule=Cosine(warmup_epochs=0),
    epochs=2,
)
# of a finished run's result.json
RESULT = {
    "recipe": {"model.name": NAME},
    "top1": 0.75,
    "top5": 1.0,
    "images": 70,
    "classes": ["Bag", "ankle boot", "Trouser"],
    "preprocess": {"image_size": [28, 28], "crop": 0.7, "mean": [0.4], "std": [0.2]},
    "date": "2026-11-20",
}


def write_idx(folder, part, images, labels):
    """One part of an IDX data set, gzipped."""
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes(), 1))


def quiet(text):
    pass


def log(folder):
    """Rows of a run's log.csv."""
    with open(folder / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


def changed(recipe, **sections):
    """A recipe with some fields of its sections replaced."""
    return dataclasses.replace(recipe, **{k: dataclasses.replace(getattr(recipe, k), **v) for k, v in sections.items()})


def one_program(function):
    """A function of trees of arrays: on JAX compiled as a whole, which is quicker there than one operation by one."""
    if not COMPILED:
        return function
    import jax

    return jax.jit(function)


@contextlib.contextmanager
def optimised_graphs():
    """TensorFlow optimises graphs before it runs them, as it does outside of these tests (conftest.py)."""
    import tensorflow as tf

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


@contextlib.contextmanager
def eagerly():
    """TensorFlow without graphs, which are traced for longer than a small network is trained."""
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Even though the `tf.config.experimental_run_functions_eagerly`")
        tf.config.run_functions_eagerly(True)
        try:
            yield
        finally:
            tf.config.run_functions_eagerly(False)


def train_with_a_kill(recipe, data, folder, monkeypatch, step):
    """Train a recipe, killed once after a step of which there is a checkpoint, and again to its end."""

    class Killed(BaseException):
        pass

    on_train_batch_end, kills = loop.Progress.on_train_batch_end, {step}

    def killed(self, batch, logs=None):
        on_train_batch_end(self, batch, logs)
        if self.run.step in kills:
            kills.remove(self.run.step)
            raise Killed

    monkeypatch.setattr(loop.Progress, "on_train_batch_end", killed)
    recipe = dataclasses.replace(recipe, checkpoint_steps=1)
    with pytest.raises(Killed):
        loop.train(recipe, data, folder, say=quiet)
    loop.train(recipe, data, folder, say=quiet)
