"""From a map's logits to the class of each pixel, whatever the image's size: outside of a graph, and in one.

Logits are enlarged twice, each time bilinearly between centres of cells, as the references do: to the network's images,
then to the originals. The larger they become, the less of them is kept at once.

h, w: cells of a map; H, W: pixels; K: classes; B: images.
"""

import numpy as np
from keras import ops

from swins.segmentation.segmentation_loss import IGNORED

MOST_VALUES = 2**24  # of enlarged logits that are kept at once


def neighbours(length: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each of `new` pixels along an axis: the two cells that its centre lies between, and the second's part."""
    places = (np.arange(new, dtype=np.float32) + np.float32(0.5)) * np.float32(length / new) - np.float32(0.5)
    places = np.clip(places, 0, length - 1)
    first = places.astype(np.int64)
    return first, np.minimum(first + 1, length - 1), places - first


def rows_between(x: np.ndarray, new: int, rows: slice = slice(None)) -> np.ndarray:
    """Some rows of a map that is as high as `new`: (h, w, K) -> (rows, w, K)."""
    if x.shape[0] == new:
        return x[rows]
    first, second, part = (values[rows] for values in neighbours(x.shape[0], new))
    return x[first] + (x[second] - x[first]) * part[:, None, None]


def columns_between(x: np.ndarray, new: int) -> np.ndarray:
    """A map as wide as `new`: (h, w, K) -> (h, new, K)."""
    if x.shape[1] == new:
        return x
    first, second, part = neighbours(x.shape[1], new)
    return x[:, first] + (x[:, second] - x[:, first]) * part[:, None]


def class_map(logits: np.ndarray, image_size: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """The class of each pixel of an image: logits (h, w, K) -> (H, W) int32.

    Args:
        image_size: (height, width) in pixels of what the network was given; size: (H, W), of the image as it was.
    """
    inner = columns_between(rows_between(np.asarray(logits, np.float32), image_size[0]), image_size[1])
    height, width = size
    band = max(1, MOST_VALUES // (width * inner.shape[-1]))
    mask = np.empty(size, np.int32)
    for top in range(0, height, band):
        rows = slice(top, min(top + band, height))
        mask[rows] = columns_between(rows_between(inner, height, rows), width).argmax(-1)
    return mask


def between(x, length: int, own, places, axis: int):
    """Values of a map at pixels of a larger axis, in a graph.

    Args:
        x: a map; length: its cells along `axis`; own: pixels of that axis, a tensor; places: (n,) numbers of pixels,
            which may lie beyond.
    """
    centres = (ops.cast(places, "float32") + 0.5) * (ops.cast(length, "float32") / ops.cast(own, "float32")) - 0.5
    centres = ops.clip(centres, 0.0, ops.cast(length, "float32") - 1.0)
    first = ops.cast(ops.floor(centres), "int32")
    part = centres - ops.cast(first, "float32")
    part = ops.reshape(part, (-1, *(1,) * (len(x.shape) - axis - 1)))
    low, high = ops.take(x, first, axis), ops.take(x, ops.minimum(first + 1, length - 1), axis)
    return low + (high - low) * part


def class_maps(logits, image_size: tuple, sizes):
    """`class_map` of several images in one graph: logits (B, h, w, K) -> (B, H, W) int32, H and W of the largest.

    A class at a time is enlarged. What lies beside a smaller image is 255.

    Args:
        image_size: (height, width) in pixels of what the network was given; sizes: (B, 2) of the images as they were.
    """
    height, width = ops.unstack(ops.max(sizes, 0), 2)
    rows, columns = ops.arange(height), ops.arange(width)
    h, w, count = ops.shape(logits)[1:]

    def of_image(pair):
        x, (own_height, own_width) = pair[0], ops.unstack(pair[1], 2)

        def better(k, state):
            best, mask = state
            y = ops.take(x, k, -1)
            y = between(y, h, image_size[0], ops.arange(image_size[0]), 0)
            y = between(y, w, image_size[1], ops.arange(image_size[1]), 1)
            y = between(between(y, image_size[0], own_height, rows, 0), image_size[1], own_width, columns, 1)
            return ops.maximum(best, y), ops.where(y > best, ops.cast(k, "int32"), mask)

        nothing = ops.full((height, width), -np.inf, "float32"), ops.zeros((height, width), "int32")
        _, mask = ops.fori_loop(0, count, better, nothing)
        beside = ops.logical_or(rows[:, None] >= own_height, columns[None] >= own_width)
        return ops.where(beside, IGNORED, mask)

    return ops.map(of_image, (logits, sizes))
