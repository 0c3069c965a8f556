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
    """

    name: str
    samples: object
    classes: tuple
    strays: tuple = ()
    notes: tuple = ()

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]

    def digest(self):
        """A short digest of names and labels, as far as they are known without reading the samples."""
        known = [(name, label) for name, _, label in self.samples] if isinstance(self.samples, list) else []
        text = json.dumps([self.classes, known, getattr(self.samples, "labels", np.zeros(0)).tolist()])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class Arrays:
    """Samples from arrays: images (N, H, W[, C]) uint8, labels (N,)."""

    def __init__(self, name, images, labels):
        self.name, self.images, self.labels = name, images, labels

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return f"{self.name}[{index}]", self.images[index], int(self.labels[index])


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
