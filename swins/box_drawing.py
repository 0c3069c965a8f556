"""Boxes, masks, and what is written beside them, on a picture."""

import colorsys

import numpy as np

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
GOLDEN = 0.618034  # of the circle of hues, from a class's to the next one's
LEVELS = ((0.85, 0.95), (0.6, 0.75), (0.95, 0.6), (0.45, 0.95))  # saturation and value, one after the other
SHADE = (16, 16, 16)  # around a box, so that it is seen on any colour
OPACITY = 100  # of a mask, of 255
TEXT = 11  # pixels of the names' letters
GREY = (299, 587, 114)  # thousandths of red, green and blue in luma: ITU-R BT.601


def colour_of(label: int) -> tuple[int, int, int]:
    """The colour of a class: after those of the palette hues that lie far apart."""
    if label < len(PALETTE):
        return PALETTE[label]
    rgb = colorsys.hsv_to_rgb(label * GOLDEN % 1, *LEVELS[label % len(LEVELS)])
    return tuple(round(255 * part) for part in rgb)


def blended(pixels, colour):
    """Pixels (..., 3) uint8 with a translucent colour over them."""
    pixels, colour = (np.asarray(levels, np.int32) for levels in (pixels, colour))
    return np.uint8((pixels * (255 - OPACITY) + colour * OPACITY) // 255)


def edge_of(mask, line: int):
    """The outermost pixels of a mask (H, W) bool, so many from the edge; the picture's own edge is none."""
    inner = mask
    for _ in range(line):
        around = np.pad(inner, 1, mode="edge")
        inner = inner & around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return mask & ~inner


def draw_mask(pixels, mask, colour, line: int = 1) -> None:
    """Draw a mask (H, W) bool on pixels (H, W, 3) uint8, in place: translucent, and its edge opaque.

    Args:
        line: pixels of the edge.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return
    window = np.s_[max(0, rows[0] - 1) : rows[-1] + 2, max(0, columns[0] - 1) : columns[-1] + 2]
    part, below = mask[window], pixels[window]
    below[part] = blended(below[part], colour)
    below[edge_of(part, line)] = colour


def ink(colour):
    """Black or white, whichever is read better on a colour."""
    return (0, 0, 0) if sum(a * b for a, b in zip(GREY, colour, strict=True)) > 128_000 else (255, 255, 255)


def shortened(pen, text: str, width: int, font=None) -> str:
    """A text in printable Latin letters that is at most so many pixels wide; what a font lacks is a question mark."""
    text = text.encode("latin-1", "replace").decode("latin-1")
    while pen.textlength(text, font) > width and len(text) > 4:
        text = f"{text[:-4]}..."
    return text


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


def draw_outline(picture, box, colour, line: int = 1) -> None:
    """Draw a box on a PIL image, along its own outermost pixels, with a dark line around.

    Args:
        box: left, top, right, bottom in whole pixels, the latter two just outside; line: pixels of its line.
    """
    from PIL import ImageDraw

    pen, (left, top, right, bottom), shade = ImageDraw.Draw(picture), box, max(1, line // 2)
    pen.rectangle((left - shade, top - shade, right - 1 + shade, bottom - 1 + shade), outline=SHADE, width=shade)
    pen.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=line)


def write_names(picture, boxes, names, colours, text: int = TEXT) -> None:
    """Write names beside their boxes on a PIL image: where one is, the next goes elsewhere, or below it.

    Args:
        boxes: (left, top, right, bottom) in whole pixels; names, colours: one a box; text: pixels of the letters.
    """
    from PIL import ImageDraw, ImageFont

    pen, font, taken, edge = ImageDraw.Draw(picture), ImageFont.load_default(text), [], max(1, text // 8)
    names = [shortened(pen, name, picture.width - 3 * edge, font) for name in names]
    for box, name in zip(boxes, names, strict=True):
        extent = (int(pen.textlength(name, font)) + 3 * edge, text + 2 * edge)
        taken.append(spot(box, extent, picture.size, taken))
    for (left, top, right, bottom), name, colour in list(zip(taken, names, colours, strict=True))[::-1]:
        pen.rectangle((left, top, right - 1, bottom - 1), fill=colour)
        pen.text((left + 2 * edge, top + text), name, fill=ink(colour), font=font, anchor="ls")
