"""Train a small detector for two steps and print its losses: python tests/dense_devices.py NAME OUT.

TF_DEVICES makes so many virtual devices on TensorFlow; XLA_FLAGS is JAX's own.
"""

import json
import pathlib
import sys

import keras
from devices import virtual_devices
from test_detection import RECIPE as SSD
from test_instances import RECIPE as MASK_RCNN
from training import changed, log

from swins.train import loop

RECIPES = {"ssd": SSD, "mask_rcnn": MASK_RCNN}
DATA = "garments:demo/fashion_mnist,count=8,size=64,objects=0-2,scale=16-40"


def main(name, out):
    virtual_devices()
    recipe = changed(RECIPES[name], model={"compile": keras.backend.backend() == "jax"}, data={"batch": 4})
    said = []
    loop.train(recipe, DATA, pathlib.Path(out), say=said.append)
    (row,) = log(pathlib.Path(out))
    devices = int(next(line for line in said if "device(s)" in line).split()[-2])
    print(json.dumps({"devices": devices, **{part: float(row[part]) for part in ("loss", "val_loss")}}))


if __name__ == "__main__":
    main(*sys.argv[1:])
