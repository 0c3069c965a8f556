"""MNIST's and Fashion-MNIST's IDX files: train-* and t10k-*."""

from swins.data.split import Arrays, Split
from swins.errors import SwinsError
from swins.images import read_idx

TRAIN_IMAGES = "train-images-idx3-ubyte.gz"


def from_idx(folder):
    """MNIST's and Fashion-MNIST's files: train-* and t10k-*."""

    def read(part):
        images = read_idx(folder / f"{part}-images-idx3-ubyte.gz")
        labels = read_idx(folder / f"{part}-labels-idx1-ubyte.gz")
        if len(images) != len(labels):
            raise SwinsError(f"{folder}: images and labels must be as many; got {len(images)} and {len(labels)}")
        return Arrays(part, images, labels)

    training, validation = read("train"), read("t10k")
    names = tuple(str(i) for i in range(int(max(training.labels, default=-1)) + 1))
    bare = sorted(set(range(len(names))) - set(training.labels.tolist()))
    if bare:
        raise SwinsError(
            f"{folder}: labels must be 0 to the largest, each with images; the largest is {len(names) - 1}, and "
            f"{len(bare)} have none: {', '.join(map(str, bare[:5]))}; mend the labels"
        )
    return Split(folder.name, training, names), Split(folder.name, validation, names)
