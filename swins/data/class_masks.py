"""Masks: the class of each pixel, the truth of one image for segmenters.

A sample of a segmentation Split is (name, image, ClassMask). Files hold integers, a value a pixel; which class a value
means is in a table. Pixels that are of no class, or of one that is not known, are IGNORED.

h, w: pixels of a mask; H, W: of another size; K: classes.
"""

import dataclasses
import hashlib
import os
import zlib
from dataclasses import dataclass

import numpy as np

from swins.errors import SwinsError, first_line
from swins.image_files import pillow
from swins.keep_ratio import nearest_indices

IGNORED = 255  # of pixels that are of no class
MOST_CLASSES = IGNORED  # numbered from 0
VALUES = 2**16  # that files can have
NONE = -1  # of values that are of no class and not ignored either
LOSSY = ("JPEG", "MPO", "JPEG2000", "WEBP")
HOW = "write each pixel's class as its number into a grey or palette PNG: swins.data.class_masks.of_colours finds it"
SHOWN = 5  # values that an error lists


class ColouredMaskError(SwinsError):
    """A file that should hold numbers of classes and holds colours."""


def stored_values(path) -> np.ndarray:
    """The values of a mask's file, (h, w) integers: grey of 1, 8 or 16 bits, indices of a palette, not its colours.

    A file of several channels that are equal is grey; transparency is dropped.

    Raises:
        ColouredMaskError: a file of colours.
        SwinsError: a file that is no image or in a format that changes numbers; negative values, or above 65535.
    """
    try:
        if not os.path.isfile(path):  # a pipe would be waited for
            raise ValueError("it is no regular file")
        with pillow().open(path) as image:
            if image.format in LOSSY:
                raise ValueError(f"{image.format} changes class numbers; save it as PNG")
            mode, values = image.mode, np.asarray(image)
    except SwinsError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever a broken file leads them to
        raise SwinsError(f"{path}: not a readable mask ({first_line(error)})") from error
    if values.ndim == 3:
        colours = values[..., :-1] if mode in ("LA", "PA", "La", "RGBA", "RGBa") else values
        if (colours != colours[..., :1]).any():
            raise ColouredMaskError(f"{path}: a mask must hold class numbers; got colours ({mode}); {HOW}")
        values = colours[..., 0]
    if values.dtype == bool:
        values = values.astype(np.uint8)
    if values.ndim != 2 or values.dtype.kind not in "iu" or values.min() < 0 or values.max() >= VALUES:
        raise SwinsError(f"{path}: a mask must hold integers from 0 to {VALUES - 1}; got {mode}; save it as 8-bit PNG")
    return values.astype(np.uint8 if values.dtype.itemsize == 1 else np.uint16)


def of_colours(pixels: np.ndarray, colours) -> np.ndarray:
    """The mask of an image in which every class has a colour: (h, w, 3) uint8 -> (h, w) uint8.

    Args:
        colours: red, green and blue of each class, in the order of their numbers; pixels of other colours are IGNORED.

    Raises:
        SwinsError: for other shapes.

    Example:
    >>> of_colours(np.uint8([[[0, 0, 0], [128, 0, 0], [9, 9, 9]]]), [(0, 0, 0), (128, 0, 0)])
    array([[  0,   1, 255]], dtype=uint8)
    """
    pixels, colours = np.asarray(pixels), np.asarray(colours)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or colours.shape != (len(colours), 3) or len(colours) > MOST_CLASSES:
        raise SwinsError(
            f"pixels must be (h, w, 3) and colours at most {MOST_CLASSES}, (K, 3); got {pixels.shape}, {colours.shape}"
        )
    mask = np.full(pixels.shape[:2], IGNORED, np.uint8)
    for number, colour in enumerate(colours):
        mask[(pixels == colour).all(-1)] = number
    return mask


def table_of(numbers: dict, ignored=(IGNORED,)) -> np.ndarray:
    """A table of classes, (65536,) int16, of {value of files: class}; the values in `ignored` are of no class."""
    table = np.full(VALUES, NONE, np.int16)
    for value, number in numbers.items():
        table[value] = number
    table[list(ignored)] = IGNORED
    return table


@dataclass(frozen=True, eq=False)
class Contents:
    """What a mask's file has: size, (height, width); the values that occur, sorted, and how many pixels have each; a
    checksum of all."""

    size: tuple[int, int]
    values: np.ndarray
    pixels: np.ndarray
    checksum: int


def contents(values: np.ndarray) -> Contents:
    """The Contents of the values of a mask (h, w)."""
    pixels = np.bincount(values.ravel())
    present = np.flatnonzero(pixels)
    return Contents(values.shape, present, pixels[present], zlib.crc32(np.ascontiguousarray(values, "<u2")))


@dataclass(frozen=True, eq=False)
class ClassMask:
    """The mask of an image, read when its pixels are asked for.

    source: a file, or an array of its values, (h, w) integers.
    table: (65536,) int16, the class of each value: 255 for those that are ignored, -1 for those that must not occur.
    contents: what the source has.
    """

    source: object
    table: np.ndarray
    contents: Contents

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return tuple(map(int, self.contents.size))

    def pixels(self) -> np.ndarray:
        """The class of each pixel, (h, w) uint8, 255 for those that are ignored.

        Raises:
            SwinsError: a file that cannot be read or has changed, and values that are of no class.
        """
        drawn = isinstance(self.source, np.ndarray)
        values = self.source if drawn else stored_values(self.source)
        if values.shape != self.size:
            raise SwinsError(f"{self.source}: was a mask of {stated(self.size)}, and is {stated(values.shape)} now")
        classes = self.table[values]
        if classes.min(initial=0) < 0:
            unknown = few(np.unique(values[classes < 0]))
            raise SwinsError(f"{'the mask' if drawn else self.source}: values must be of classes; got {unknown}")
        return classes.astype(np.uint8)

    def counts(self, num_classes: int) -> np.ndarray:
        """How many pixels each class has, (K,) integers."""
        classes, counted = self.table[self.contents.values], np.zeros(num_classes, np.int64)
        known = (classes >= 0) & (classes < num_classes)
        np.add.at(counted, classes[known], self.contents.pixels[known])
        return counted

    def unknown(self) -> np.ndarray:
        """The values that are of no class and not ignored either, sorted."""
        return self.contents.values[self.table[self.contents.values] < 0]

    def fitted(self, size: tuple[int, int]) -> "ClassMask":
        """The mask of an image as it was opened, (height, width): itself.

        Raises:
            SwinsError: for an image of another size.
        """
        if tuple(size) != self.size:
            hint = "turn it as it is shown (PIL.ImageOps.exif_transpose)" if size == self.size[::-1] else "mend it"
            raise SwinsError(f"an image must have its mask's size, {stated(self.size)}; got {stated(size)}; {hint}")
        return self

    def renumbered(self, labels: np.ndarray) -> "ClassMask":
        """The same mask, class k of it being class labels[k], or none if that is -1."""
        numbers = np.full(IGNORED + 1, NONE, np.int16)
        numbers[: len(labels)], numbers[IGNORED] = labels, IGNORED
        return dataclasses.replace(self, table=np.where(self.table < 0, NONE, numbers[self.table]).astype(np.int16))

    def to_json(self) -> dict:
        """What it is, as plain values, without its pixels."""
        return {"size": list(self.size), "digest": self.digest()}

    def digest(self) -> str:
        """A short digest of its pixels' classes; no file is read."""
        content = hashlib.sha256(repr((self.size, self.contents.checksum)).encode())
        for part in (self.contents.values, self.contents.pixels, self.table[self.contents.values]):
            content.update(np.asarray(part, np.int64).tobytes())
        return content.hexdigest()[:16]


def stated(size) -> str:
    """(height, width) in words: width x height."""
    return "x".join(str(side) for side in size[::-1])


def few(values) -> str:
    """The first of some values, in words."""
    return ", ".join([*map(str, values[:SHOWN]), *["..."] * (len(values) > SHOWN)])


def scaled_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask (h, w) scaled to a size, (H, W): each pixel shows the nearest one, as in OpenCV."""
    rows, columns = (nearest_indices(side, to) for side, to in zip(mask.shape, size, strict=True))
    return mask[rows[:, None], columns]


def padded_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask (h, w) in the upper left corner of a larger one, (H, W), the rest of which is IGNORED."""
    room = np.full(size, IGNORED, mask.dtype)
    room[: mask.shape[0], : mask.shape[1]] = mask
    return room
