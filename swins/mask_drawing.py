"""Masks of classes on a picture: colours, outlines, and a legend of what they mean."""

import numpy as np

from swins.box_drawing import GREY, TEXT, blended, colour_of, shortened

MOST_NAMES = 24  # of a legend
COLUMN = 160  # pixels of one of its columns, at least


BACKGROUND = "background"  # what a first class is called that is left clear
CLEAR = (128, 128, 128)  # its colour in a legend


def class_colours(names) -> np.ndarray:
    """A colour for each class, that of its boxes, which know no background: (classes, 3) uint8."""
    first = has_background(names)
    return np.uint8([colour_of(k - first) if k >= first else CLEAR for k in range(len(names))]).reshape(-1, 3)


def has_background(names) -> bool:
    """Whether the first class is what is behind all others."""
    return len(names) > 1 and names[0] == BACKGROUND


def borders(mask: np.ndarray) -> np.ndarray:
    """Pixels of a mask (H, W) beside one of another class, on both sides of the border -> (H, W) bool."""
    edge = np.zeros(mask.shape, bool)
    for here, there in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        other = mask[here] != mask[there]
        edge[here] |= other
        edge[there] |= other
    return edge


def painted(pixels: np.ndarray, mask: np.ndarray, names) -> np.ndarray:
    """Pixels (H, W, 3) uint8 in grey under the translucent colours of a mask (H, W) of classes, opaque at borders.

    In grey, for colours under colours would be others than the legend's; background has none.
    """
    shown = class_colours(names)[mask]
    grey = (np.int32(pixels) @ np.int32(GREY) // 1000)[..., None]
    picture, edge = blended(grey, shown), borders(mask)
    if has_background(names):
        clear = mask == 0
        picture[clear] = np.broadcast_to(np.uint8(grey), picture.shape)[clear]
        edge &= ~clear
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
