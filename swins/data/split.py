"""A Split: samples (name, image, truth) that can be read in any order; image is a path, bytes or a uint8 array."""

import hashlib
import json
from dataclasses import dataclass

import numpy as np

from swins.errors import SwinsError


@dataclass(frozen=True)
class Split:
    """Samples that can be read in any order; strays are files that are no images by their names.

    notes: lines on what was taken for what, such as the order of the classes.
    category_ids: the data set's own number of each class, where it has such. defects: a line, "place<TAB>what", for
    each annotation that was mended or left out.
    """

    name: str
    samples: object
    classes: tuple
    strays: tuple = ()
    notes: tuple = ()
    category_ids: tuple = ()
    defects: tuple = ()

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]

    def summary(self) -> str:
        """How many samples, and their digest, as a run's recipe.json records them."""
        return f"{len(self)} images, {self.digest()}"

    def digest(self):
        """A short digest of names and labels, as far as they are known without reading the samples."""
        samples = getattr(self.samples, "samples", self.samples)  # of those that are cached
        if hasattr(samples, "digest"):
            return samples.digest()
        known = [(name, plain(truth)) for name, _, truth in samples] if isinstance(samples, list) else []
        text = json.dumps([self.classes, known, getattr(samples, "labels", np.zeros(0)).tolist()])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class Arrays:
    """Samples from arrays: images (N, H, W[, C]) uint8, labels (N,)."""

    def __init__(self, name, images, labels):
        self.name, self.images, self.labels = name, images, labels

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return f"{self.name}[{index}]", self.images[index], int(self.labels[index])


def plain(truth):
    """A truth as JSON has it: a class number, or the digest of something larger."""
    return truth.digest() if hasattr(truth, "digest") else truth


def fitted(truth, size):
    """A truth in the pixels of its image as it was read, (height, width); one that has no such thing as it is.

    Raises:
        SwinsError: if it is of an image of other proportions.
    """
    return truth.fitted(size) if hasattr(truth, "fitted") else truth


def require_label(source, name, label, num_classes):
    """Raise SwinsError for a label that is none of the classes."""
    if not 0 <= label < num_classes:
        raise SwinsError(
            f"{source}: labels must be from 0 to {num_classes - 1}; {name} has {label}; mend it, or take other data"
        )


def require_truth(split, name, truth):
    """Raise SwinsError for a class number that is none of a Split's classes; other truths are their task's to check."""
    if split.classes and isinstance(truth, int):
        require_label(split.name, name, truth, len(split.classes))


def left_out(source, strays):
    """A line about files that are no images."""
    few = ", ".join([*map(str, strays[:3]), *["..."] * (len(strays) > 3)])
    return f"left out of {source}, no images by their endings: {len(strays)} ({few})"
