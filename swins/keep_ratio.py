"""Images scaled with their proportions kept, as mmdetection does it, and laid on canvases of few sizes.

Pixels are OpenCV's to the bit, which mmdetection's weights were trained with: images bilinear between their pixels'
centres, without smoothing where they become smaller, in fixed-point numbers; masks nearest.

h, w: pixels of an image; H, W: of a canvas; C: channels; n: boxes. Sizes are (height, width).
"""

from dataclasses import dataclass

import numpy as np

from swins.errors import SwinsError
from swins.images import normalized, open_image, planes

WEIGHT_BITS = 11  # of OpenCV's weights of two pixels; of what is left of them in between, and of their product
ONE = np.float32(1 << WEIGHT_BITS)
BETWEEN, PRODUCT = 4, 16


def scaled_sides(size: tuple[int, int], short: int, long: int, within: tuple[int, int] | None = None) -> tuple:
    """(height, width) of an image as large as it can be, its shorter side at most `short`, its longer at most `long`.

    within: a canvas that has room for it.

    >>> scaled_sides((427, 640), 800, 1333), scaled_sides((427, 640), 800, 1333, (800, 1088))
    ((800, 1199), (726, 1088))
    """
    factor = min(long / max(size), short / min(size))
    if within:
        factor = min(factor, *(room / side for room, side in zip(within, size, strict=True)))
    return tuple(max(1, int(side * factor + 0.5)) for side in size)


def nearest_indices(side: int, to: int) -> np.ndarray:
    """Which pixel of a side each one of the scaled side shows, (to,) integers."""
    return np.minimum((np.arange(to) * (1.0 / (to / side))).astype(np.int64), side - 1)


def pairs(side, to):
    """Of each pixel of a scaled side: the first of the two that it lies between, and the second's part, float32."""
    places = ((np.arange(to) + 0.5) * (1.0 / (to / side)) - 0.5).astype(np.float32)
    first = np.floor(places)
    return first.astype(np.int64), places - first


def weights(part, axes):
    """The two pixels' weights of the second's part (m,), as integers of `axes` more axes behind."""
    both = ((np.float32(1) - part) * ONE, part * ONE)
    return [np.rint(weight).astype(np.int32).reshape(-1, *(1,) * axes) for weight in both]


def bilinear(pixels: np.ndarray, size: tuple[int, int], window: tuple | None = None) -> np.ndarray:
    """Pixels (h, w, C) uint8 scaled to a size.

    window: slices of the rows and the columns that are wanted, None for all; no others are computed.
    """
    if pixels.shape[:2] == tuple(size):
        return pixels if window is None else pixels[window]
    window = window or (slice(None), slice(None))
    height, width = pixels.shape[:2]
    left, part = (values[window[1]] for values in pairs(width, size[1]))
    part = np.where((left < 0) | (left >= width - 1), np.float32(0), part)
    near, far = weights(part, 1)
    left = np.clip(left, 0, width - 1)
    top, part = (values[window[0]] for values in pairs(height, size[0]))
    above, below = (np.clip(top + i, 0, height - 1) for i in (0, 1))
    first = above[0]
    shown = pixels[first : below[-1] + 1]
    rows = shown[:, left] * near + shown[:, np.minimum(left + 1, width - 1)] * far >> BETWEEN
    near, far = weights(part, 2)
    result = (rows[above - first] * near >> PRODUCT) + (rows[below - first] * far >> PRODUCT)
    return (result + 2 >> 2).astype(np.uint8)


def best_canvas(size: tuple[int, int], short: int, long: int, canvases: tuple) -> tuple:
    """The canvas on which an image is largest, and of those the smallest.

    >>> best_canvas((480, 640), 800, 1333, ((800, 1088), (800, 1344), (1344, 800)))
    (800, 1088)
    """
    shown = [np.prod(scaled_sides(size, short, long, canvas)) for canvas in canvases]
    return min(zip(shown, canvases, strict=True), key=lambda pair: (-pair[0], pair[1][0] * pair[1][1]))[1]


def common_canvas(canvases: tuple) -> tuple:
    """A canvas that has room for whatever fits on one of several, for images that are to be in one batch.

    >>> common_canvas(((800, 1344), (1344, 800)))
    (1344, 1344)
    """
    return tuple(max(sides) for sides in zip(*canvases, strict=True))


def on_canvas(pixels: np.ndarray, canvas: tuple[int, int]) -> np.ndarray:
    """Prepared pixels (h, w, C) float32 in the upper left corner of a canvas (H, W, C) of zeros."""
    room = np.zeros((*canvas, pixels.shape[2]), np.float32)
    room[: pixels.shape[0], : pixels.shape[1]] = pixels
    return room


def factors(scaled: tuple[int, int], original: tuple[int, int]) -> np.ndarray:
    """What boxes xyxy of an image are multiplied with as it is scaled, (4,) float32; its sides' differ by rounding."""
    return np.float32([scaled[1] / original[1], scaled[0] / original[0]] * 2)


@dataclass(frozen=True)
class KeepRatioPreprocess:
    """Prepare images for a detector of any size: file path, bytes, PIL image or uint8 array -> (H, W, C) float32.

    An image is scaled to `scaled_sides`, normalised, and laid in the upper left corner of the canvas that `best_canvas`
    chooses; what is beside it is 0. A list of images of one canvas becomes a batch.

    short, long: pixels of the sides, at most; canvases: (height, width) each; mean, std: per channel, 0..1.
    """

    short: int
    long: int
    canvases: tuple
    mean: tuple
    std: tuple

    @property
    def image_size(self) -> tuple:
        """(height, width) of a canvas with room for all."""
        return common_canvas(self.canvases)

    def canvas(self, size: tuple[int, int]) -> tuple:
        """The canvas of an image of a size."""
        return best_canvas(size, self.short, self.long, self.canvases)

    def scaled(self, size: tuple[int, int]) -> tuple:
        """(height, width) on its canvas of an image of a size."""
        return scaled_sides(size, self.short, self.long, self.canvas(size))

    def __call__(self, image):
        if isinstance(image, list | tuple):
            arrays = [self(one) for one in image]
            if len({array.shape for array in arrays}) != 1:
                raise SwinsError(f"a batch needs images of one canvas; got {len(arrays)} of several; sort them first")
            return np.stack(arrays)
        pixels = pixels_of(open_image(image), len(self.mean))
        size = pixels.shape[:2]
        return on_canvas(normalized([bilinear(pixels, self.scaled(size))], self.mean, self.std), self.canvas(size))

    def original(self, boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Boxes (n, 4) xyxy in pixels of a canvas -> float32, in those of its image, (height, width) as it was."""
        return np.asarray(boxes, np.float32) / factors(self.scaled(size), size)


@dataclass(frozen=True)
class ScaledPreprocess:
    """Prepare images as mmsegmentation tests: file path, bytes, PIL image or uint8 array -> (H, W, C) float32.

    An image is scaled to `scaled_sides` and normalised; its size is its own, so that only images of one size become a
    batch.

    short, long: pixels of the sides, at most; mean, std: per channel, 0..1.
    """

    short: int
    long: int
    mean: tuple
    std: tuple

    @property
    def image_size(self) -> tuple:
        """(height, width) that an image has at most, lying down."""
        return self.short, self.long

    def scaled(self, size: tuple[int, int]) -> tuple:
        """(height, width) that an image of a size is given."""
        return scaled_sides(size, self.short, self.long)

    def __call__(self, image):
        pixels = pixels_of(open_image(image), len(self.mean))
        return normalized([bilinear(pixels, self.scaled(pixels.shape[:2]))], self.mean, self.std)


def pixels_of(image, channels: int) -> np.ndarray:
    """What `open_image` gives, as pixels (h, w, C) uint8 of so many channels."""
    return np.concatenate([np.atleast_3d(np.asarray(part)) for part in planes(image, channels)], -1)
