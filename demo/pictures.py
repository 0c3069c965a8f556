"""Make the few pictures of `swins predict --demo` -> pictures/: garments to classify, canvases to find garments on.

Command: python demo/pictures.py. The models saw none of them in training; a file is called as what is on it.
"""

import pathlib

from PIL import Image

from swins import files
from swins.data.detection_layouts import find_evaluation_split
from swins.images import read_idx
from swins.labels import FASHION_MNIST

HERE = pathlib.Path(__file__).parent
SOURCE = HERE / "fashion_mnist"
CLASSES = ("ankle boot", "trouser", "bag", "sandal", "dress", "pullover")  # the first test image of each
CANVASES = f"garments:{SOURCE},count=22000,size=64,objects=1-2,scale=21-48,colour=False"  # as the detector's recipe
COUNT = 5  # of canvases: the first ones to validate on, whatever the detector makes of them


def garments():
    """{file: pixels (28, 28) uint8} of one image of each of CLASSES."""
    images, labels = (read_idx(SOURCE / f"t10k-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    numbers = {name: int((labels == FASHION_MNIST.index(name)).argmax()) for name in CLASSES}
    return {f"garments/{name.replace(' ', '_')}.png": images[number] for name, number in numbers.items()}


def canvases():
    """{file: pixels (64, 64) uint8} of the first canvases."""
    split, pictures = find_evaluation_split(CANVASES), {}
    for number in range(COUNT):
        _, pixels, objects = split[number]
        names = [split.classes[label].replace(" ", "_") for label in objects.labels]
        pictures[f"canvases/{'_and_'.join(names)}.png"] = pixels
    return pictures


def main():
    for name, pixels in (garments() | canvases()).items():
        path = HERE / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as partial:
            Image.fromarray(pixels).save(partial, format="PNG", optimize=True)


if __name__ == "__main__":
    main()
