"""How often each class occurs in a Split, as images or as pixels of masks, and how much it counts in a loss."""

import numpy as np

from swins.data.split import Split
from swins.errors import SwinsError, unknown_name
from swins.settings import finite

BALANCED = "balanced"
DRAWN = 256  # samples that are counted where they are drawn as they are read


def weights_of_classes(value) -> bool:
    """Whether a value is what `class_weights` takes."""
    if isinstance(value, str):
        return value in ("", BALANCED)
    return bool(value) and all(finite(weight) and weight >= 0 for weight in value) and any(value)


def label_counts(split: Split) -> np.ndarray:
    """How many images of each class a Split has, (K,) integers.

    Raises:
        SwinsError: if they are not known without reading all of them.
    """
    samples = getattr(split.samples, "samples", split.samples)  # of those that are cached
    if isinstance(samples, list):
        labels = [label for _, _, label in samples]
    elif (labels := getattr(samples, "labels", None)) is None:
        raise SwinsError(f"{split.name}: its labels are not known before they are read; give a weight for each class")
    return np.bincount(np.asarray(labels, np.int64), minlength=len(split.classes))


def pixel_counts(split: Split) -> np.ndarray:
    """How many pixels of each class the masks of a Split have, (K,) integers; of drawn samples the first 256 tell."""
    samples = getattr(split.samples, "samples", split.samples)  # of those that are cached
    count = len(samples) if isinstance(samples, list) else min(len(samples), DRAWN)
    classes = len(split.classes)
    return sum((samples[i][2].counts(classes) for i in range(count)), np.zeros(classes, np.int64))


def class_weights(split: Split, weights: str | tuple, counts=pixel_counts) -> tuple | None:
    """By how much the pixels, or the images, of each class count, K numbers; None for all alike.

    Args:
        weights: "" for all alike; "balanced": the mean number of pixels of a class over the class's own, so that all
            classes count alike, scikit-learn's rule; or a number a class. Classes without pixels do not enter the mean
            and have 1.
        counts: what counts them, `pixel_counts` or `label_counts`.

    Raises:
        SwinsError: for another text, another number of numbers, or such as are no weights.
    """
    if weights == "":
        return None
    if isinstance(weights, str):
        if weights != BALANCED:
            raise unknown_name("class_weights", weights, (BALANCED,))
        counts = counts(split)
        present = counts > 0
        mean = counts.sum() / max(present.sum(), 1)
        return tuple(np.where(present, mean / np.maximum(counts, 1), 1.0).tolist())
    if len(weights) != len(split.classes):
        raise SwinsError(
            f"class_weights must be a number a class; got {len(weights)} and {len(split.classes)} classes; give one "
            'each, or "balanced"'
        )
    if not (all(finite(weight) and weight >= 0 for weight in weights) and any(weights)):
        raise SwinsError(f"class_weights must be numbers of at least 0, not all 0; got {weights!r:.100}; mend them")
    return tuple(map(float, weights))
