"""Images and masks that tests of segmenters' data and mmsegmentation's transforms are given alike."""

import numpy as np

SIZES = ((60, 91), (75, 40), (33, 200), (17, 17))
RATIOS = (0.5, 0.83, 1.0, 1.37, 2.0)
SHORT, LONG = 48, 96
CROP = (20, 30)  # height and width of crops that are counted
CLASSES = 5


def noise(size, seed):
    """(An image of RGB, a mask of 5 classes and 255), the same for everybody."""
    rng = np.random.default_rng(seed)
    image, mask = rng.integers(0, 256, (*size, 3), np.uint8), rng.integers(0, CLASSES + 1, size).astype(np.uint8)
    return image, np.where(mask == CLASSES, np.uint8(255), mask)


def uneven():
    """A mask (48, 64), most of which is of class 0, so that most crops of it are refused."""
    mask = np.zeros((48, 64), np.uint8)
    mask[30:, 40:], mask[:10, :15], mask[20:26, :8] = 1, 2, 255
    return mask


def colours():
    """An image (4, 4) of RGB, of colours and greys."""
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (4, 4, 3), np.uint8)
    image[0] = [[0, 0, 0], [255, 255, 255], [128, 128, 128], [250, 20, 30]]
    return image


def predictions():
    """[(true mask, predicted mask)] of 6 classes: with ignored pixels, a class without pixels, one never said."""
    rng, pairs = np.random.default_rng(5), []
    for size in ((10, 12), (7, 9), (16, 5)):
        truth = rng.integers(0, CLASSES - 1, size)
        guess = np.where(rng.random(size) < 0.6, truth, rng.integers(0, CLASSES, size))
        pairs.append((np.where(rng.random(size) < 0.1, 255, truth).astype(np.uint8), guess.astype(np.uint8)))
    return pairs
