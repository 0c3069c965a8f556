"""Boxes, names and masks drawn on an image."""

import numpy as np

from swins.data.garments import Canvas
from swins.images import pillow
from swins.labels import FASHION_MNIST

PALETTE = (  # M. A. Petroff's ten colours, which people with colour blindness tell apart: arXiv:2107.02270
    (63, 144, 218),
    (255, 169, 14),
    (189, 31, 1),
    (148, 164, 162),
    (131, 45, 182),
    (169, 107, 89),
    (231, 99, 0),
    (185, 172, 112),
    (113, 117, 129),
    (146, 218, 221),
)
OPACITY = 100  # of a mask, of 255
SHADE = (16, 16, 16)  # around a box, so that it is seen on any colour
TEXT = 11  # pixels of the names' letters
GREY = (299, 587, 114)  # thousandths of red, green and blue in luma: ITU-R BT.601


def ink(colour):
    """Black or white, whichever is read better on a colour."""
    return (0, 0, 0) if sum(a * b for a, b in zip(GREY, colour, strict=True)) > 128_000 else (255, 255, 255)


def tinted(canvas, scale):
    """The image (H, W, 3) uint8 with the masks' colours over it, each pixel `scale` times as large."""
    image = canvas.image if canvas.image.ndim == 3 else np.repeat(canvas.image[..., None], 3, -1)
    pixels = image.astype(np.int32)
    for label, mask in zip(canvas.labels.tolist(), canvas.masks, strict=True):
        colour = np.array(PALETTE[label % len(PALETTE)])
        pixels[mask] = (pixels[mask] * (255 - OPACITY) + colour * OPACITY) // 255
    return np.repeat(np.repeat(pixels.astype(np.uint8), scale, 0), scale, 1)


def spot(box, extent, size, taken):
    """Where a name is written: above its box, below it, inside, wherever no other is -> its left, top, right, bottom.

    Args:
        box: left, top, right, bottom; extent: (width, height) of the name; size: (width, height) of the picture.
        taken: where other names are.
    """
    (width, height), (left, top, right, bottom) = extent, box
    corners = [(left, top - height), (left, bottom), (right - width, top - height), (right - width, bottom)]
    corners += [(left, top), (left, bottom - height), (right - width, top), (right - width, bottom - height)]
    spots = [(x, y, x + width, y + height) for x, y in corners]
    inside = [s for s in spots if min(s) >= 0 and s[2] <= size[0] and s[3] <= size[1]]
    clear = [s for s in inside if all(s[0] >= t[2] or t[0] >= s[2] or s[1] >= t[3] or t[1] >= s[3] for t in taken)]
    x, y = max(0, min(left, size[0] - width)), max(0, min(top, size[1] - height))
    return (clear or inside or [(x, y, x + width, y + height)])[0]


def draw(canvas: Canvas, scale: int = 1):
    """Draw a canvas's boxes, names of classes and translucent masks -> PIL image, `scale` times as large, RGB.

    A box is drawn along its own outermost pixels, with a dark line around.
    """
    picture = pillow().fromarray(tinted(canvas, scale))  # which says so where Pillow is missing
    from PIL import ImageDraw, ImageFont

    pen, font, taken = ImageDraw.Draw(picture), ImageFont.load_default(TEXT), []
    boxes = (canvas.boxes * scale).astype(int).tolist()
    colours = [PALETTE[label % len(PALETTE)] for label in canvas.labels.tolist()]
    for (left, top, right, bottom), colour in zip(boxes, colours, strict=True):
        pen.rectangle((left - 1, top - 1, right, bottom), outline=SHADE)
        pen.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=scale)
    for box, label, colour in zip(boxes, canvas.labels.tolist(), colours, strict=True):
        name = FASHION_MNIST[label]
        extent = (int(pen.textlength(name, font)) + 3, TEXT + 2)
        left, top, right, bottom = spot(box, extent, picture.size, taken)
        taken.append((left, top, right, bottom))
        pen.rectangle((left, top, right - 1, bottom - 1), fill=colour)
        pen.text((left + 2, top + TEXT), name, fill=ink(colour), font=font, anchor="ls")
    return picture
