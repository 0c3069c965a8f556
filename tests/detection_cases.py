"""Random cases of detection, the same for the tests and for reference/detection.py, which needs no Keras."""

import numpy as np

MAPS = (6, 4, 3, 2, 1, 1)  # sides of the maps whose priors the losses' cases have: 326
CLASSES = 6
LARGE = {  # sides of the maps that whole networks give, by how many priors they have
    8732: (38, 19, 10, 5, 3, 1),
    10492: (42, 21, 10, 5, 3, 1),
    10684: (42, 21, 11, 6, 3, 1),
    4722: (28, 14, 7, 4, 2, 1),
}
OBLONG = ((5, 8), (3, 4), (2, 2), (1, 2), (1, 1), (1, 1))
OBLONG_IMAGE = (160, 256)  # height, width
# of `nms`, beside the cases they are of
OPTIONS = (
    {},
    {"min_score": 0.3, "max_overlap": 0.6, "candidates": 20, "most": 10},
    {"min_score": 0.0, "max_overlap": 0.5, "most": 15},
    {"max_overlap": 0.2, "candidates": 10},
)
COUNT, PLACES = 50, 40  # cases of each options, boxes of each case


def suppression_cases(shared=True):
    """(boxes (COUNT, PLACES, 4) or, of each class, (COUNT, PLACES, 3, 4), scores (COUNT, PLACES, 3)) for each options.

    Every other case lies on a grid, where overlaps are often equal, and some boxes have no area; many scores are equal,
    or no numbers; coordinates are negative too; classes may have no score that counts.
    """
    rng = np.random.default_rng(16)
    for _ in OPTIONS:
        shape = (COUNT, PLACES) if shared else (COUNT, PLACES, 3)
        low, sides = rng.uniform(-12, 20, (*shape, 2)), rng.uniform(0, 16, (*shape, 2))
        boxes = np.concatenate([low, low + sides], -1)
        boxes[::2] = np.floor(boxes[::2])
        scores = np.round(rng.random((COUNT, PLACES, 3)) ** 2 * 20) / 20
        scores[1::4] = rng.random(scores[1::4].shape)
        scores *= np.where(rng.random((COUNT, 1, 3)) < 0.1, 0.01, 1.0)
        scores[rng.random(scores.shape) < 0.02] = np.nan
        yield boxes.astype("float32"), scores.astype("float32")


def loss_cases(priors, count=200, images=3, objects=5):
    """Outputs and truths of batches: {"codes", "scores", "boxes", "labels", "valid"}.

    Boxes lie on a grid of 1/64, so that every program has the same overlaps; some are equal, tiny, or the whole image.
    Images have from no object to all; what fills up is no number.
    """
    rng = np.random.default_rng(17)
    for case in range(count):
        ends = np.sort(rng.permuted(np.tile(np.arange(65), (images, objects, 2, 1)), axis=-1)[..., :2], -1)
        if case % 3 == 0:
            ends[..., 1] = np.minimum(ends[..., 0] + rng.integers(1, 9, ends.shape[:-1]), 64)
        boxes = np.moveaxis(ends, -1, -2).reshape(images, objects, 4) / 64
        if case % 4 == 0:
            boxes[:, 2] = boxes[:, 0]
        if case % 5 == 0:
            boxes[:, 1] = (0, 0, 1, 1)
        valid = np.arange(objects) < rng.integers(0, objects + 1, (images, 1))
        if case % 10 == 9:
            valid[1:] = False
        if case % 50 == 49:
            valid[:] = False
        boxes[~valid] = np.nan
        scores = 3 * rng.standard_normal((images, len(priors), CLASSES + 1))
        yield {
            "codes": (2 * rng.standard_normal((images, len(priors), 4))).astype("float32"),
            "scores": (np.round(scores) if case % 6 == 0 else scores).astype("float32"),
            "boxes": boxes.astype("float32"),
            "labels": rng.integers(0, CLASSES, (images, objects)),
            "valid": valid,
        }


def coding_cases():
    """Priors cxcywh (80, 4), boxes xyxy (80, 4), codes (80, 4), some of which are large."""
    rng = np.random.default_rng(18)
    priors = np.concatenate([rng.uniform(0, 1, (80, 2)), rng.uniform(0.02, 1, (80, 2))], -1)
    low = rng.uniform(-0.1, 0.9, (80, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.001, 1, (80, 2))], -1)
    codes = rng.standard_normal((80, 4)) * np.where(np.arange(80) % 4, 2.0, 40.0)[:, None]
    return [array.astype("float32") for array in (priors, boxes, codes)]


def pattern(shape):
    """Numbers that a gradient is multiplied with, so that its sum tells where it lies."""
    return np.cos(np.arange(np.prod(shape), dtype="float64")).reshape(shape)
