"""A question that no published weights were asked: the weather a garment is for, 300 pictures to learn it from.

python recipes/data/weather_garments.py OUT: makes OUT/train, OUT/val and OUT/test of Fashion-MNIST's test images in
demo/fashion_mnist, which the embedded model was not trained on: 100 pictures of each answer, 400, and the other 9,300.
"""

import pathlib
import sys

from PIL import Image

from swins.images import read_idx

KINDS = {  # Fashion-MNIST's labels of each answer
    "warm": (0, 3, 5),  # T-shirt, dress, sandal
    "cold": (2, 4, 9),  # pullover, coat, ankle boot
    "any": (1, 6, 7, 8),  # trouser, shirt, sneaker, bag
}
TRAIN, VAL = 100, 400  # of each answer; of all
FILES = pathlib.Path(__file__).parents[2] / "demo" / "fashion_mnist"


def main(out):
    answers = {label: answer for answer, labels in KINDS.items() for label in labels}
    trained, validated = dict.fromkeys(KINDS, 0), 0
    for part in ("train", "val", "test"):
        for answer in KINDS:
            pathlib.Path(out, part, answer).mkdir(parents=True, exist_ok=True)
    labels = read_idx(FILES / "t10k-labels-idx1-ubyte.gz")
    for number, image in enumerate(read_idx(FILES / "t10k-images-idx3-ubyte.gz")):
        answer = answers[int(labels[number])]
        part = "train" if trained[answer] < TRAIN else "val" if validated < VAL else "test"
        trained[answer] += part == "train"
        validated += part == "val"
        Image.fromarray(image).save(pathlib.Path(out, part, answer, f"{number}.png"))


if __name__ == "__main__":
    main(*sys.argv[1:])
