"""Changes of an image's colours, (h, w, C) uint8 -> the same, for augmentations; the image itself stays as it is."""

import numpy as np

from swins.image_files import pillow

LEVELS = np.arange(256)
TURNS = 180  # levels of hue in OpenCV, of which recipes are told; Pillow has 256


def by_table(image, tables):
    """Each level of each channel replaced by a table's, (256,) or (C, 256), rounded and clipped."""
    tables = np.clip(np.rint(tables), 0, 255).astype(np.uint8)
    if tables.ndim == 1:
        return tables[image]
    return np.stack([table[image[..., i]] for i, table in enumerate(tables)], -1)


def brightness_contrast(image, brightness, contrast):
    """Levels times 1 + contrast, plus brightness times 255."""
    return by_table(image, LEVELS * (1 + contrast) + brightness * 255)


def shifted(image, levels):
    """Levels plus a number for each channel."""
    return by_table(image, LEVELS + np.asarray(levels)[:, None])


def hue_saturation_value(image, hue, saturation, value):
    """Hue (of 180), saturation and value (of 255) plus a number each; of other channels than RGB the value alone."""
    channels = image.shape[2]
    if channels != 3:
        return shifted(image, [value] * channels)
    turned = np.rint(LEVELS + hue * 256 / TURNS) % 256
    tables = [turned, *(np.clip(np.rint(LEVELS + change), 0, 255) for change in (saturation, value))]
    bands = picture_of(image).convert("HSV").point(np.concatenate(tables).astype(int).tolist())
    return np.asarray(bands.convert("RGB"))


def greyed(image):
    """An RGB image without its colours, in as many channels; others as they are."""
    if image.shape[2] != 3:
        return image
    return np.repeat(np.asarray(picture_of(image).convert("L"))[..., None], 3, -1)


def distort(image, ranges, rng):
    """The SSD paper's change of colours, of grey and RGB images, as torchvision's RandomPhotometricDistort.

    Brightness, contrast, saturation, hue, each with a probability; contrast before saturation or after hue, as likely;
    then channels change places.

    Args:
        ranges: brightness, contrast, saturation: pairs of factors; hue: largest change; colour: the probability.
    """
    if image.shape[2] not in (1, 3):
        return image
    from PIL import ImageEnhance

    picture = picture_of(image)
    chosen = rng.random(5) < ranges.colour
    factors = [rng.uniform(*pair) for pair in (ranges.brightness, ranges.contrast, ranges.saturation)]
    turn = rng.uniform(-ranges.hue, ranges.hue)
    steps = [(ImageEnhance.Brightness, 0), (ImageEnhance.Color, 2), (None, 3)]
    steps.insert(1 if rng.random() < 0.5 else 3, (ImageEnhance.Contrast, 1))
    for kind, place in steps:
        if not chosen[place] or (kind in (None, ImageEnhance.Color) and picture.mode == "L"):
            continue
        picture = kind(picture).enhance(factors[place]) if kind else turned(picture, turn)
    pixels = np.asarray(picture).reshape(image.shape)
    return pixels[..., rng.permutation(image.shape[2])] if chosen[4] else pixels


def turned(picture, turn):
    """An RGB picture whose hue goes on by a part of the circle."""
    table = (LEVELS + round(turn * 256)) % 256
    return picture.convert("HSV").point([*table.tolist(), *LEVELS.tolist(), *LEVELS.tolist()]).convert("RGB")


def picture_of(image):
    """The PIL image of one or three channels."""
    return pillow().fromarray(np.ascontiguousarray(image[..., 0] if image.shape[2] == 1 else image))
