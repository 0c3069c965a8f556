"""Train a small model for two epochs and evaluate another on 1,009 images, under some backend; print what came of it.

    python tests/devices.py DATA OUT

The last line is a list: of one device, and of all of them; as one of several processes it trains on all alone.
ASKED_AT is the step after which the last of two processes is sent SIGTERM. TF_DEVICES makes so many virtual devices on
TensorFlow; XLA_FLAGS and KERAS_DISTRIBUTION_* are JAX's and Keras' own.
"""

import contextlib
import json
import os
import pathlib
import signal
import sys
import time
from unittest import mock

import keras
import numpy as np

import swins
from swins import devices
from swins.data import labelled
from swins.evaluate import evaluation, records
from swins.opening import Opened
from swins.recipes import AdamW, Cosine
from swins.tasks.classification import CLASSIFICATION, Augment, Classification, Data, Model
from swins.train import folder, loop

RECIPE = Classification(
    model=Model(
        "swin_mini_patch2_window4_28.fashion_mnist",
        depths=(1,),
        num_heads=(1,),
        embed_dim=16,
        drop_path_rate=0.0,
        compile=keras.backend.backend() == "jax",
    ),
    data=Data(batch=32, crop=1.0, threads=2),
    augment=Augment(scale=None, pad=1, rand_augment="", erase=0.1, mixup=0.0, cutmix=0.0),
    optim=AdamW(learning_rate=1e-3, per_images=0, clip_norm=0.1),
    schedule=Cosine(warmup_epochs=1),
    epochs=2,
)

NUMBERS = {"embed_dim": 8, "depths": (1,), "num_heads": (1,), "num_classes": 10}


def evaluated():
    """[images, right ones, right ones among five] of 1,009 images in batches of 64, the last of 49."""
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (1009, 28, 28), "uint8"), rng.integers(0, 10, 1009)
    samples = [(str(i), image, int(label)) for i, (image, label) in enumerate(zip(pixels, labels, strict=True))]
    scope, _, count = devices.start(join=False)
    keras.utils.set_random_seed(0)
    with scope():
        model = swins.SwinTransformer(image_size=28, patch_size=4, in_chans=1, **NUMBERS)
        dataset = labelled.Dataset("noise", len(samples), samples)
        prepare = swins.preprocess(RECIPE.model.name)
        opened = Opened("noise", model, CLASSIFICATION, {})
        how = evaluation.Evaluation(batch=64, several=count > 1, progress=False)
        rows = records.run(opened, prepare, dataset, {}, how).rows
    scores = CLASSIFICATION.score([record for _, record in rows])
    return [len(rows), *(round(part * len(rows)) for part in scores.values())]


class Asked(loop.Progress):
    """Progress of a process that is asked to end."""

    def on_train_batch_end(self, batch, logs=None):
        if self.run.step == int(os.environ["ASKED_AT"]) and os.environ["KERAS_DISTRIBUTION_PROCESS_ID"] == "1":
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(6)  # JAX looks for it every second
        super().on_train_batch_end(batch, logs)


def virtual_devices():
    """Make of TensorFlow's CPU as many devices as TF_DEVICES says; its graphs take their few steps as they come."""
    if os.environ.get("TF_DEVICES") and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        (cpu,) = tf.config.list_physical_devices("CPU")
        virtual = [tf.config.LogicalDeviceConfiguration()] * int(os.environ["TF_DEVICES"])
        tf.config.set_logical_device_configuration(cpu, virtual)
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


def one_then_all(work, out):
    """[what a function of a folder gives on the first device alone, what it gives on all]."""
    with mock.patch.object(devices, "start", lambda join=True: (contextlib.nullcontext, devices.ALONE, 1)):
        one = work(pathlib.Path(out) / "one")
    return [one, work(pathlib.Path(out) / "all")]


def trained(data, out):
    """What a run says of itself."""
    said = []

    def say(text):
        said.append(text)
        print(text, file=sys.stderr)

    loop.train(RECIPE, data, out, say=say)
    return {
        "went_on": any("going on after" in line for line in said),
        "devices": next(line for line in said if "device(s)" in line).split(", ")[-1],
        "rows": [dict(part.split(" ") for part in line.split(", ")) for line in said if "val_loss" in line],
    }


def main(data, out):
    virtual_devices()
    folder.draw = lambda *_: None  # nobody looks at these runs' curves
    if os.environ.get("ASKED_AT"):
        loop.Progress = Asked
    if os.environ.get("KERAS_DISTRIBUTION_NUM_PROCESSES"):
        results = [trained(data, out)]
    else:
        results = one_then_all(lambda place: {**trained(data, place), "evaluated": evaluated()}, out)
    print(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
