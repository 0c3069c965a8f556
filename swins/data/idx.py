"""MNIST's and Fashion-MNIST's IDX files: train-* and t10k-*."""

import numpy as np

from swins.data.split import Arrays, Split
from swins.errors import SwinsError
from swins.images import read_idx

TRAIN_IMAGES = "train-images-idx3-ubyte.gz"


def read(folder, part):
    """Samples of one part's files."""
    images = read_idx(folder / f"{part}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte.gz")
    if len(images) != len(labels):
        raise SwinsError(f"{folder}: images and labels must be as many; got {len(images)} and {len(labels)}")
    return Arrays(part, images, labels)


def from_idx(folder):
    """MNIST's and Fashion-MNIST's files: train-* and t10k-*."""
    return named(folder, read(folder, "train"), read(folder, "t10k"))


def from_test_files(folder, held_out, seed):
    """The files t10k-* alone: some of each class are held out, by the seed."""
    whole = read(folder, "t10k")
    held = np.zeros(len(whole), bool)
    for label in np.unique(whole.labels):
        own = np.flatnonzero(whole.labels == label)
        order = np.random.default_rng((seed, int(label))).permutation(own)
        held[order[: max(1, round(held_out * len(own))) if len(own) > 1 else 0]] = True
    parts = (Arrays(whole.name, whole.images[kept], whole.labels[kept]) for kept in (~held, held))
    return named(folder, *parts)


def named(folder, training, validation):
    """The Splits of two parts, whose classes are called by their numbers.

    Raises:
        SwinsError: for a class without images to train on.
    """
    names = tuple(str(i) for i in range(int(max(training.labels, default=-1)) + 1))
    bare = sorted(set(range(len(names))) - set(training.labels.tolist()))
    if bare:
        raise SwinsError(
            f"{folder}: labels must be 0 to the largest, each with images; the largest is {len(names) - 1}, and "
            f"{len(bare)} have none: {', '.join(map(str, bare[:5]))}; mend the labels"
        )
    return Split(folder.name, training, names), Split(folder.name, validation, names)
