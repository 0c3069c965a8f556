"""A task that no published weights know: which way a garment is turned, 300 pictures to learn it from.

python recipes/data/turned_garments.py OUT: makes OUT/train and OUT/val of Fashion-MNIST's test images in
demo/fashion_mnist, which the embedded model was not trained on: 75 and 100 pictures of each of four ways.
"""

import pathlib
import sys

import numpy as np
from PIL import Image

from swins.images import read_idx

WAYS = ("upright", "left", "upside down", "right")
COUNTS = {"train": 75, "val": 100}  # of each way
IMAGES = pathlib.Path(__file__).parents[2] / "demo" / "fashion_mnist" / "t10k-images-idx3-ubyte.gz"


def main(out):
    pixels = iter(enumerate(read_idx(IMAGES)))
    for part, count in COUNTS.items():
        for turns, way in enumerate(WAYS):
            folder = pathlib.Path(out, part, way)
            folder.mkdir(parents=True, exist_ok=True)
            for _ in range(count):
                number, image = next(pixels)
                Image.fromarray(np.rot90(image, turns)).save(folder / f"{number}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
