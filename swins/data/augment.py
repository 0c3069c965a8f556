"""What training images undergo: timm's transforms, with random numbers from a generator that is passed in.

An image is a PIL image (RGB or L; an L a channel where there are others) until it is normalised; then (H, W, C)
float32. Source: timm.data 1.0.31 for the meaning of every number; RandAugment is arXiv:1909.13719, random erasing
arXiv:1708.04896, Mixup arXiv:1710.09412, CutMix arXiv:1905.04899.
"""

import functools
import math
import re
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from swins.errors import SwinsError
from swins.images import normalized, planes

BICUBIC = Image.Resampling.BICUBIC
LARGEST = 10  # magnitude of RandAugment
TRIES = 10
MOST_JITTER = 0.45  # of a side, that an image is moved by at the largest magnitude


def affine(image, matrix, fill):
    """Map a pixel (x, y) of the result to (a x + b y + c, d x + e y + f) of the image; matrix: (a, b, c, d, e, f)."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample=BICUBIC, fillcolor=fill)


def solarize_add(image, value):
    """Add to pixels below 128."""
    return image.point([min(255, i + value) if i < 128 else i for i in range(256)] * len(image.getbands()))


def posterize(image, bits):
    """Keep the highest bits of each pixel. None at all is black, as it was in Pillow before it refused that."""
    return ImageOps.posterize(image, bits) if bits else Image.new(image.mode, image.size)


def enhance(kind):
    return lambda image, factor, fill: kind(image).enhance(factor)


OPERATIONS = {  # (image, value, fill) -> image
    "AutoContrast": lambda image, value, fill: ImageOps.autocontrast(image),
    "Equalize": lambda image, value, fill: ImageOps.equalize(image),
    "Invert": lambda image, value, fill: ImageOps.invert(image),
    "Rotate": lambda image, value, fill: image.rotate(value, resample=BICUBIC, fillcolor=fill),
    "Posterize": lambda image, value, fill: posterize(image, value),
    "Solarize": lambda image, value, fill: ImageOps.solarize(image, value),
    "SolarizeAdd": lambda image, value, fill: solarize_add(image, value),
    "Color": enhance(ImageEnhance.Color),
    "Contrast": enhance(ImageEnhance.Contrast),
    "Brightness": enhance(ImageEnhance.Brightness),
    "Sharpness": enhance(ImageEnhance.Sharpness),
    "ShearX": lambda image, value, fill: affine(image, (1, value, 0, 0, 1, 0), fill),
    "ShearY": lambda image, value, fill: affine(image, (1, 0, 0, value, 1, 0), fill),
    "TranslateX": lambda image, value, fill: affine(image, (1, 0, value * image.width, 0, 1, 0), fill),
    "TranslateY": lambda image, value, fill: affine(image, (1, 0, 0, 0, 1, value * image.height), fill),
}
PLAIN = ("AutoContrast", "Equalize", "Invert")  # that have no magnitude
ENHANCED = ("Color", "Contrast", "Brightness", "Sharpness")
MOVED = {"Rotate": 30.0, "ShearX": 0.3, "ShearY": 0.3, "TranslateX": MOST_JITTER, "TranslateY": MOST_JITTER}


def value_of(operation, magnitude, negative, increasing):
    """What an operation is called with at a magnitude of 0..10.

    Args:
        negative: whether it goes the other way, where there are two.
        increasing: whether all operations are stronger at larger magnitudes (timm's "inc1").
    """
    level = magnitude / LARGEST
    sign = -1 if negative else 1
    if operation in PLAIN:
        return None
    if operation in MOVED:
        return sign * level * MOVED[operation]
    if operation in ENHANCED:
        return max(0.1, 1.0 + sign * level * 0.9) if increasing else level * 1.8 + 0.1
    if operation == "Posterize":
        return 4 - int(level * 4) if increasing else int(level * 4)
    if operation == "Solarize":
        return 256 - min(256, int(level * 256)) if increasing else min(256, int(level * 256))
    return min(128, int(level * 110))  # SolarizeAdd


@dataclass(frozen=True)
class RandAugment:
    """Some operations, drawn for each image: PIL -> PIL.

    magnitude: 0..10, the mean of a normal of deviation `deviation` (infinite: the end of a uniform distribution), which
    is clipped to `largest`; count: operations drawn, with repetition; probability: that a drawn one is applied; fill:
    colour of pixels that come from outside.
    """

    magnitude: float = 10
    count: int = 2
    probability: float = 0.5
    deviation: float = 0.0
    largest: float = LARGEST
    increasing: bool = False
    fill: tuple = (128, 128, 128)

    def __call__(self, image, rng):
        names = list(OPERATIONS)
        fill = self.fill if len(image.getbands()) == 3 else round(sum(self.fill) / len(self.fill))
        for name in rng.choice(len(names), self.count):
            operation = names[name]
            if rng.random() > self.probability:
                continue
            value = value_of(operation, self.draw(rng), rng.random() > 0.5, self.increasing)
            image = OPERATIONS[operation](image, value, fill)
        return image

    def draw(self, rng):
        """A magnitude."""
        drawn = self.magnitude
        if math.isinf(self.deviation):
            drawn = rng.uniform(0, drawn)
        elif self.deviation:
            drawn = rng.normal(drawn, self.deviation)
        return max(0.0, min(drawn, self.largest))


@functools.lru_cache
def rand_augment(text, fill=(128, 128, 128)):
    """A RandAugment from timm's text, such as "rand-m9-n2-mstd0.5-inc1".

    Raises:
        SwinsError: if the text is not of that form.
    """
    names = {
        "m": ("magnitude", int),
        "n": ("count", int),
        "p": ("probability", float),
        "mstd": ("deviation", lambda x: math.inf if float(x) > 100 else float(x)),
        "mmax": ("largest", int),
        "inc": ("increasing", lambda x: bool(int(x))),
    }
    kind, *parts = text.split("-")
    found = [re.fullmatch(r"([a-z]+)(\d+\.?\d*)", part) for part in parts]
    if kind != "rand" or not all(m and m[1] in names for m in found):
        raise SwinsError(f"rand_augment is a text such as rand-m9-mstd0.5-inc1, of {', '.join(names)}; got {text!r}")
    try:
        values = {names[m[1]][0]: names[m[1]][1](m[2]) for m in found}
    except ValueError as error:
        raise SwinsError(f"rand_augment: m, n, mmax and inc are integers; got {text!r}") from error
    return RandAugment(**values, fill=fill)


def crop_box(size, scale, ratio, rng):
    """(left, top, right, bottom) of a random resized crop of an image of size (width, height)."""
    width, height = size
    for _ in range(TRIES):
        area = rng.uniform(*scale) * width * height
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
            return left, top, left + w, top + h
    shape = width / height  # the largest that the ratios allow, from the centre
    w = width if shape <= ratio[1] else round(height * ratio[1])
    h = height if shape >= ratio[0] else round(width / ratio[0])
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def padded_box(size, pad, rng):
    """(left, top, right, bottom) of a random crop of an image's own (width, height), with black pixels around it."""
    left, top = (int(x) for x in rng.integers(-pad, pad + 1, 2))
    return left, top, left + size[0], top + size[1]


def color_jitter(image, most, rng):
    """Brightness, contrast and saturation times 1 +- most, in a random order."""
    kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for i in rng.permutation(3):
        image = kinds[i](image).enhance(rng.uniform(max(0.0, 1 - most), 1 + most))
    return image


def erase(pixels, probability, rng, area=(0.02, 1 / 3), ratio=(0.3, 1 / 0.3)):
    """Random erasing: fill a rectangle of normalised pixels (H, W, C) with normal numbers, in place."""
    if rng.random() > probability:
        return pixels
    height, width, channels = pixels.shape
    for _ in range(TRIES):
        target = rng.uniform(*area) * height * width
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        h, w = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if h < height and w < width:
            top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
            pixels[top : top + h, left : left + w] = rng.standard_normal((h, w, channels), "float32")
            break
    return pixels


@dataclass(frozen=True)
class TrainTransform:
    """What `open_image` gives -> (H, W, C) float32, by an Augment's numbers; a second argument is the random generator.

    Transparency is dropped and EXIF's rotation ignored, as timm does; a model of 2 or 4 channels has it as a channel.

    size: (height, width) in pixels; mean, std: per channel, 0..1.
    """

    augment: object
    size: tuple
    mean: tuple
    std: tuple

    def __call__(self, image, rng):
        a = self.augment
        parts = planes(image, len(self.mean))
        size = self.size[::-1]
        if a.scale:
            box = crop_box(parts[0].size, a.scale, a.ratio, rng)
            parts = [part.crop(box).resize(size, BICUBIC) for part in parts]
        elif parts[0].size != size:
            parts = [part.resize(size, BICUBIC) for part in parts]
        if a.pad:
            box = padded_box(parts[0].size, a.pad, rng)
            parts = [part.crop(box) for part in parts]
        if rng.random() < a.flip:
            parts = [part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for part in parts]
        if a.rand_augment:  # and the next, of grey or RGB: evaluation_transform refuses other channels
            parts = [rand_augment(a.rand_augment, tuple(min(255, round(255 * m)) for m in self.mean))(*parts, rng)]
        if a.color_jitter:
            parts = [color_jitter(*parts, a.color_jitter, rng)]
        return erase(normalized(parts, self.mean, self.std), a.erase, rng)


def targets(labels, num_classes, smoothing=0.0):
    """Class numbers (B,) -> smoothed one-hot rows (B, classes) float32."""
    rows = np.full((len(labels), num_classes), smoothing / num_classes, "float32")
    rows[np.arange(len(labels)), labels] += np.float32(1 - smoothing)
    return rows


def cut_box(size, kept, rng):
    """(top, bottom, left, right) of CutMix's rectangle on (height, width), of about 1 - kept of the area; clipped."""
    sides = [int(side * math.sqrt(1 - kept)) for side in size]
    centres = [int(rng.integers(0, side)) for side in size]
    bounds = []
    for side, cut, centre in zip(size, sides, centres, strict=True):
        bounds += [min(max(centre - cut // 2, 0), side), min(max(centre + (cut + 1) // 2, 0), side)]
    return tuple(bounds)


def mix(images, rows, augment, rng):
    """Mixup or CutMix of a batch with itself in reverse, one lambda a batch -> (images, rows).

    Args:
        images: (B, H, W, C) float32; rows: (B, classes), smoothed.
    """
    a = augment
    if not (a.mixup or a.cutmix) or rng.random() >= a.mix:
        return images, rows
    cuts = a.cutmix and (not a.mixup or rng.random() < a.switch)
    kept = rng.beta(*(a.cutmix if cuts else a.mixup,) * 2)
    if cuts:
        top, bottom, left, right = cut_box(images.shape[1:3], kept, rng)
        mixed = images.copy()
        mixed[:, top:bottom, left:right] = images[::-1, top:bottom, left:right]
        kept = 1 - (bottom - top) * (right - left) / (images.shape[1] * images.shape[2])
    else:
        mixed = np.float32(kept) * images + np.float32(1 - kept) * images[::-1]
    return mixed, np.float32(kept) * rows + np.float32(1 - kept) * rows[::-1]
