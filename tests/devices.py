"""Train a small model for two epochs and print its losses: python tests/devices.py DATA OUT, under some backend.

TF_DEVICES makes so many virtual devices on TensorFlow; XLA_FLAGS and KERAS_DISTRIBUTION_* are JAX's and Keras' own.
"""

import json
import os
import sys

import keras

from swins.train import run
from swins.train.recipe import Augment, Data, Model, Optim, Recipe

RECIPE = Recipe(
    model=Model("swin_mini_patch2_window4_28.fashion_mnist", depths=(1, 1), embed_dim=24, drop_path_rate=0.0),
    data=Data(batch=32, crop=1.0, threads=2),
    augment=Augment(scale=None, pad=1, rand_augment="", erase=0.1, mixup=0.0, cutmix=0.0),
    optim=Optim(learning_rate=1e-3, per_images=0, warmup_epochs=1),
    epochs=2,
)


def main(data, out):
    if os.environ.get("TF_DEVICES") and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        (cpu,) = tf.config.list_physical_devices("CPU")
        virtual = [tf.config.LogicalDeviceConfiguration()] * int(os.environ["TF_DEVICES"])
        tf.config.set_logical_device_configuration(cpu, virtual)
    said = []
    run.train(RECIPE, data, out, say=said.append)
    rows = [dict(part.split(" ") for part in line.split(", ")) for line in said if "val_loss" in line]
    print(json.dumps({"devices": next(line for line in said if "device(s)" in line).split(", ")[-1], "rows": rows}))


if __name__ == "__main__":
    main(*sys.argv[1:])
