"""What images and masks undergo in the training of a segmenter, with random numbers from a generator passed in.

Two recipes, each a section: ScaleAndCrop, mmsegmentation's, and Squash, the whole image whatever its proportions. Each
is called with

    image   (h, w, C) uint8
    mask    (h, w) uint8, classes and 255 for pixels that are ignored
    rng     numpy.random.Generator, the only source of chance
    size    (H, W) of the result in pixels

and gives image and mask of at most that size. Masks are scaled to the nearest pixel. `SegmentTransform` pads what is
smaller: the normalised image with 0, the mask with 255.
"""

from dataclasses import dataclass

import numpy as np

from swins.data.class_masks import IGNORED, ClassMask, padded_mask, scaled_mask
from swins.data.colour import LEVELS, TURNS, by_table, picture_of
from swins.errors import SwinsError
from swins.image_files import pillow
from swins.images import normalized
from swins.keep_ratio import bilinear, nearest_indices, on_canvas, pixels_of, scaled_sides
from swins.settings import Section, ascending, at_least, probability, setting

CHANGES = ("brightness", "contrast", "saturation", "hue")


def squashed(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels (h, w, C) uint8 scaled to a size: bilinear, antialiased, by Pillow, as Hugging Face's processors do."""
    bilinear_filter = pillow().Resampling.BILINEAR
    planes = [pixels] if pixels.shape[2] in (1, 3) else np.split(pixels, pixels.shape[2], 2)
    scaled = [np.asarray(picture_of(plane).resize(size[::-1], bilinear_filter)) for plane in planes]
    return np.concatenate([np.atleast_3d(plane) for plane in scaled], -1)


@dataclass(frozen=True)
class Squash(Section):
    """The whole image, scaled to the size whatever its proportions.

    flip: probability of a horizontal flip. colour: probability of each change of colour. brightness: largest change in
    levels; contrast, saturation: ranges of factors; hue: largest change, of 180 levels. Saturation and hue are of RGB
    alone.
    """

    flip: float = probability(0.5)
    colour: float = probability(0.0)
    brightness: float = setting(32.0, "from 0 to 255", lambda v: 0 <= v <= 255)
    contrast: tuple = setting((0.5, 1.5), "a pair of factors above 0, the smaller first", ascending)
    saturation: tuple = setting((0.5, 1.5), "a pair of factors above 0, the smaller first", ascending)
    hue: int = setting(18, "from 0 to 90", lambda v: 0 <= v <= 90)

    def __call__(self, image, mask, rng, size):
        return self.finished(squashed(image, size), scaled_mask(mask, size), rng)

    def finished(self, image, mask, rng):
        """The image, or its mirror image, with other colours, and the mask alike. Of what never occurs none is drawn,
        so that no generator is needed."""
        if self.flip and rng.random() < self.flip:
            image, mask = image[:, ::-1], mask[:, ::-1]
        return self.coloured(image, rng) if self.colour else image, mask

    def coloured(self, image, rng):
        """The image with other colours, as mmsegmentation's PhotoMetricDistortion.

        Brightness, contrast, saturation, hue, each with a probability; contrast before saturation or after hue.
        """
        chosen = dict(zip(CHANGES, rng.random(len(CHANGES)) < self.colour, strict=True))
        brighter = rng.uniform(-self.brightness, self.brightness)
        contrast, saturation = rng.uniform(*self.contrast), rng.uniform(*self.saturation)
        turn, early = int(rng.integers(-self.hue, self.hue or 1)), rng.random() < 0.5
        if chosen["brightness"]:
            image = shaded(image, 1.0, brighter)
        if chosen["contrast"] and early:
            image = shaded(image, contrast, 0.0)
        if image.shape[2] == 3 and (chosen["saturation"] or chosen["hue"]):
            image = tinted(image, turn if chosen["hue"] else 0, saturation if chosen["saturation"] else 1.0)
        if chosen["contrast"] and not early:
            image = shaded(image, contrast, 0.0)
        return image


@dataclass(frozen=True)
class ScaleAndCrop(Squash):
    """mmsegmentation's augmentation of its Swin recipes: proportions kept, several scales, a part of the size.

    short, long: pixels of the image's shorter and longer side, at most, times a factor that is drawn from `ratios`. A
    part is drawn anew, up to `tries` times, while one class has at least `most_of_one` of its pixels that are not
    ignored; 1 takes the first.
    """

    colour: float = probability(0.5)
    short: int = at_least(512, 1)
    long: int = at_least(2048, 1)
    ratios: tuple = setting((0.5, 2.0), "a pair of factors above 0, the smaller first", ascending)
    most_of_one: float = setting(0.75, "above 0, at most 1", lambda v: 0 < v <= 1)
    tries: int = setting(10, "from 0 to 1000", lambda v: 0 <= v <= 1000)

    def __call__(self, image, mask, rng, size):
        ratio = rng.uniform(*self.ratios)
        short, long = (max(1, int(side * ratio)) for side in sorted((self.short, self.long)))
        scaled = scaled_sides(mask.shape, short, long)
        rows, columns = (nearest_indices(side, to) for side, to in zip(mask.shape, scaled, strict=True))
        window = self.window(scaled, size, rng)
        part = mask[rows[window[0], None], columns[window[1]]]
        for _ in range(self.tries if self.most_of_one < 1 else 0):
            if varied(part, self.most_of_one):
                break
            window = self.window(scaled, size, rng)
            part = mask[rows[window[0], None], columns[window[1]]]
        return self.finished(bilinear(image, scaled, window), part, rng)

    def window(self, scaled, size, rng):
        """Slices of the rows and the columns of a part of a scaled image."""
        starts = [int(rng.integers(max(side - room, 0) + 1)) for side, room in zip(scaled, size, strict=True)]
        return tuple(slice(start, start + room) for start, room in zip(starts, size, strict=True))


def varied(mask, most) -> bool:
    """Whether a mask has two classes, and none has `most` of the pixels that are not ignored."""
    counts = np.bincount(mask.ravel(), minlength=IGNORED + 1)[:IGNORED]
    return np.count_nonzero(counts) > 1 and counts.max() < most * counts.sum()


def shaded(image, factor, more):
    """Levels times a factor plus a number, clipped, and cut to integers."""
    return by_table(image, np.floor(np.clip(LEVELS * factor + more, 0, 255)))


def tinted(image, turn, factor):
    """An RGB image whose hue is further by some of 180 levels, and whose saturation is a factor as strong."""
    hue = np.rint(LEVELS + turn * 256 / TURNS) % 256
    tables = np.concatenate([hue, np.floor(np.clip(LEVELS * factor, 0, 255)), LEVELS]).astype(int)
    return np.asarray(picture_of(image).convert("HSV").point(tables.tolist()).convert("RGB"))


@dataclass(frozen=True)
class SegmentTransform:
    """From an image as `open_image` gives it and its ClassMask to what a segmenter trains on, by an augmentation.

    Gives the image (H, W, C) float32, normalised, and the mask (H, W) int32. The third argument is the random
    generator, None where the augmentation draws nothing; the fourth a size in place of the transform's own.

    size: (height, width) in pixels; mean, std: per channel, 0..1.

    Raises:
        SwinsError: an image of other channels than the model's, or of another size than its mask; a mask that cannot be
            read.
    """

    augment: Squash
    size: tuple
    mean: tuple
    std: tuple

    def __call__(self, image, truth: ClassMask, rng, size=None) -> tuple[np.ndarray, np.ndarray]:
        size = tuple(size or self.size)
        pixels = pixels_of(image, len(self.mean))
        pixels, mask = self.augment(pixels, truth.fitted(pixels.shape[:2]).pixels(), rng, size)
        prepared = normalized([pixels], self.mean, self.std)
        if mask.shape != size:
            prepared, mask = on_canvas(prepared, size), padded_mask(mask, size)
        return prepared, mask.astype(np.int32)


def filler(transform: SegmentTransform) -> tuple[np.ndarray, np.ndarray]:
    """A sample without a pixel that counts, in place of one that cannot be read."""
    return (
        np.zeros((*transform.size, len(transform.mean)), np.float32),
        np.full(transform.size, IGNORED, np.int32),
    )


def segment_arrays(samples: list) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Samples of one size -> (images (B, H, W, C) float32, {"masks": (B, H, W) int32}).

    Raises:
        SwinsError: if their sizes differ.
    """
    images, masks = zip(*samples, strict=True)
    if len({mask.shape for mask in masks}) != 1:
        raise SwinsError(f"a batch needs images of one size; got {len(masks)} of several; transform them to one")
    return np.stack(images), {"masks": np.stack(masks)}
