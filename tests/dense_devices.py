"""Train a small detector for two steps on one device and on all, and print its losses there, a list.

    python tests/dense_devices.py NAME OUT

TF_DEVICES makes so many virtual devices on TensorFlow; XLA_FLAGS is JAX's own.
"""

import functools
import json
import sys

import keras
from devices import one_then_all, virtual_devices
from test_detection import RECIPE as SSD
from test_instances import RECIPE as MASK_RCNN
from training import changed, log

from swins.train import loop

RECIPES = {"ssd": SSD, "mask_rcnn": MASK_RCNN}
DATA = "garments:demo/fashion_mnist,count=8,size=64,objects=0-2,scale=16-40"


def trained(name, out):
    recipe = changed(RECIPES[name], model={"compile": keras.backend.backend() == "jax"}, data={"batch": 4})
    said = []
    loop.train(recipe, DATA, out, say=said.append)
    (row,) = log(out)
    devices = int(next(line for line in said if "device(s)" in line).split()[-2])
    return {"devices": devices, **{part: float(row[part]) for part in ("loss", "val_loss")}}


def main(name, out):
    virtual_devices()
    print(json.dumps(one_then_all(functools.partial(trained, name), out)))


if __name__ == "__main__":
    main(*sys.argv[1:])
