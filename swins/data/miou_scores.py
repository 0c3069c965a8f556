"""Scores of segmentations: intersections over unions of classes, over all pixels of all images together.

mmsegmentation's: of each class, what is right over what is of the class, or said to be (IoU), and over what is of the
class (Acc); their means, mIoU and mAcc; and the part of all pixels that is right, aAcc. Pixels that are ignored do not
count, whatever is said of them. A class that is neither there nor said to be has no IoU, one that is not there no Acc:
they are None, and not in the means. Numbers are from 0 to 1.

H, W: pixels of a mask; K: classes.
"""

import numpy as np

from swins.data.class_masks import IGNORED, stated
from swins.errors import SwinsError

SCORES = {  # name: words
    "mIoU": "mean IoU of the classes",
    "mAcc": "mean accuracy of the classes",
    "aAcc": "accuracy of all pixels",
}
CLASS_COLUMNS = ("label", "name", "pixels", "IoU", "Acc")


class ConfusionMatrix:
    """How many pixels of each class are said to be of each: matrix (K, K) of integers, a row a true class.

    num_classes: K; ignored: the class of pixels that do not count.
    """

    def __init__(self, num_classes: int, ignored: int = IGNORED):
        self.ignored = ignored
        self.matrix = np.zeros((num_classes, num_classes), np.int64)

    def add(self, truth: np.ndarray, predicted: np.ndarray) -> None:
        """Count an image's pixels.

        Args:
            truth: (H, W) integers; predicted: (H, W) integers from 0 to K - 1.

        Raises:
            SwinsError: for masks of other sizes than each other, and for numbers that are none of the classes.
        """
        truth, predicted = np.asarray(truth), np.asarray(predicted)
        if truth.shape != predicted.shape:
            raise SwinsError(f"masks must have one size; got {stated(predicted.shape)} for {stated(truth.shape)}")
        valid, count = truth != self.ignored, len(self.matrix)
        truth, predicted = truth[valid].astype(np.int64), predicted[valid].astype(np.int64)
        for values in (truth, predicted):
            if values.size and not 0 <= values.min() <= values.max() < count:
                raise SwinsError(f"masks must be of classes 0 to {count - 1}; got {values.min()} to {values.max()}")
        self.matrix += np.bincount(truth * count + predicted, minlength=count**2).reshape(count, count)

    def scores(self) -> dict:
        """{name: number} of SCORES; None where there is nothing to compute it from."""
        return summary(self.matrix)


def record(result, truth) -> dict:
    """What scoring needs of one image, as JSON: how many pixels of a true class are said to be of another.

    Args:
        result: a Segmentation, whose `mask` is (H, W) integers; truth: the ClassMask.

    Raises:
        SwinsError: if their sizes differ.
    """
    mask, predicted = truth.pixels(), np.asarray(result.mask)
    count = 1 + int(max(predicted.max(initial=0), IGNORED))
    matrix = ConfusionMatrix(count)
    matrix.add(mask, predicted)
    rows, columns = np.nonzero(matrix.matrix)
    pairs = {"truth": rows.tolist(), "predicted": columns.tolist(), "pixels": matrix.matrix[rows, columns].tolist()}
    return {"size": list(truth.size), **pairs}


def matrix_of(records: list, num_classes: int | None = None) -> np.ndarray:
    """The confusion matrix of records, (K, K); of as many classes as occur, if it is not said."""
    rows, columns, pixels = (
        np.concatenate([np.zeros(0, np.int64), *(np.asarray(own[name], np.int64) for own in records)])
        for name in ("truth", "predicted", "pixels")
    )
    count = num_classes or 1 + int(max(rows.max(initial=0), columns.max(initial=0)))
    matrix = np.zeros((count, count), np.int64)
    np.add.at(matrix, (rows, columns), pixels)
    return matrix


def part(numbers, of) -> np.ndarray:
    """Numbers over others, NaN where these are 0."""
    return np.where(of > 0, numbers / np.maximum(of, 1), np.nan)


def of_classes(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """IoU and Acc of each class, (K,) floats, NaN where there is nothing to compute them from."""
    right, there, said = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    return part(right, there + said - right), part(right, there)


def number(value) -> float | None:
    """A float, None for NaN."""
    return None if np.isnan(value) else float(value)


def mean(values) -> float | None:
    """The mean of those that are not NaN, None where all are."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else None


def summary(matrix: np.ndarray) -> dict:
    """{name: number} of SCORES of a confusion matrix (K, K); None where no pixel counts."""
    ious, accuracies = of_classes(matrix)
    right = part(np.trace(matrix), matrix.sum())
    return {"mIoU": mean(ious), "mAcc": mean(accuracies), "aAcc": number(right)}


def score(records: list) -> dict:
    """The numbers of SCORES of all records; None where no pixel counts."""
    return summary(matrix_of(records))


def class_table(records: list, classes) -> tuple:
    """A header, and a row for each of the classes' names: its label, name, pixels, IoU and Acc."""
    matrix = matrix_of(records, len(classes))
    columns = zip(matrix.sum(1).tolist(), *of_classes(matrix), strict=True)
    rows = [
        [label, name, pixels, *(None if (v := number(value)) is None else round(v, 5) for value in values)]
        for (label, name), (pixels, *values) in zip(enumerate(classes), columns, strict=True)
    ]
    return CLASS_COLUMNS, rows


def columns(records: list, facts: dict) -> tuple:
    """A table's header, and its rows: each image's pixels that count, those that are right, and its own scores."""
    lines = []
    for own in records:
        matrix = matrix_of([own])
        values = [None if value is None else round(value, 5) for value in summary(matrix).values()]
        lines.append([int(matrix.sum()), int(np.trace(matrix)), *values])
    return ["pixels", "right", *SCORES], lines


def tables(records: list, facts: dict) -> dict:
    """The table of classes, that lies beside an evaluation's predictions."""
    return {"classes": class_table(records, facts["classes"])}


def segmentation_scores(truths, masks, classes, ignored: int = IGNORED) -> dict:
    """mIoU, mAcc and aAcc of masks, and "per_class", {name of a class: its IoU}; None where no pixel counts.

    Args:
        truths: true masks, (H, W) integers each; masks: the same of a segmenter, from 0 to K - 1.
        classes: names of all classes; ignored: what true masks have where pixels do not count.

    Raises:
        SwinsError: unless there are as many masks as truths, of the same sizes, and of these classes.

    Example:
    >>> segmentation_scores([[[0, 1], [1, 255]]], [[[0, 1], [0, 0]]], ("sky", "road"))["mIoU"]
    0.5
    """
    if len(truths) != len(masks):
        raise SwinsError(f"every true mask needs another; got {len(truths)} true ones and {len(masks)}")
    matrix = ConfusionMatrix(len(classes), ignored)
    for truth, predicted in zip(truths, masks, strict=True):
        matrix.add(truth, predicted)
    ious = map(number, of_classes(matrix.matrix)[0])
    return {**matrix.scores(), "per_class": dict(zip(classes, ious, strict=True))}
