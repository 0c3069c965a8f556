"""Masks of classes on a picture: colours, outlines, and a legend of what they mean."""

import colorsys

import numpy as np

from swins.box_drawing import PALETTE, TEXT, blended, shortened

MOST_NAMES = 24  # of a legend
COLUMN = 160  # pixels of one of its columns, at least
GOLDEN = 0.618034  # of the circle of hues, from a class's to the next one's
LEVELS = ((0.85, 0.95), (0.6, 0.75), (0.95, 0.6), (0.45, 0.95))  # saturation and value, one after the other


def class_colours(count: int) -> np.ndarray:
    """A colour for each class, (count, 3) uint8: those of boxes first, then hues that lie far apart."""
    colours = [list(colour) for colour in PALETTE[:count]]
    for k in range(len(colours), count):
        rgb = colorsys.hsv_to_rgb(k * GOLDEN % 1, *LEVELS[k % len(LEVELS)])
        colours.append([round(255 * part) for part in rgb])
    return np.uint8(colours).reshape(-1, 3)


def borders(mask: np.ndarray) -> np.ndarray:
    """Pixels of a mask (H, W) whose right or lower neighbour is of another class -> (H, W) bool."""
    edge = np.zeros(mask.shape, bool)
    edge[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edge[:-1] |= mask[:-1] != mask[1:]
    return edge


def painted(pixels: np.ndarray, mask: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Pixels (H, W, 3) uint8 under the translucent colours of a mask (H, W) of classes, whose borders are opaque."""
    shown = colours[mask]
    picture = blended(pixels, shown)
    edge = borders(mask)
    picture[edge] = shown[edge]
    return picture


def with_legend(picture, rows, text: int = TEXT):
    """A PIL image above a legend -> a PIL image.

    Args:
        picture: a PIL image; rows: (colour, what it means) each; text: pixels of the letters.
    """
    from PIL import Image, ImageDraw, ImageFont

    font, line, swatch = ImageFont.load_default(text), text + 8, text + 2
    columns = max(1, min(len(rows), picture.width // max(COLUMN, 12 * text)))
    wide, lines = picture.width // columns, -(-len(rows) // columns)
    page = Image.new("RGB", (picture.width, picture.height + lines * line + 6), "white")
    page.paste(picture, (0, 0))
    pen = ImageDraw.Draw(page)
    for number, (colour, name) in enumerate(rows):
        left, top = number // lines * wide + 4, picture.height + 4 + number % lines * line
        pen.rectangle((left, top + 1, left + swatch, top + swatch), tuple(map(int, colour)), (64, 64, 64))
        name = shortened(pen, name, wide - swatch - 12, font)
        pen.text((left + swatch + 6, top + swatch - 1), name, "black", font=font, anchor="ls")
    return page
