"""Boxes, names and masks drawn on an image or a canvas."""

import numpy as np

from swins.box_drawing import blended, colour_of, draw_outline, write_names
from swins.data.garments import Canvas
from swins.image_files import pillow
from swins.labels import FASHION_MNIST


def tinted(image, labels, masks, scale):
    """The image (H, W, 3) uint8 with the masks' colours over it, each pixel `scale` times as large."""
    image = image if image.ndim == 3 else image[..., None]
    pixels = np.broadcast_to(image, (*image.shape[:2], 3)).copy()
    for label, mask in zip(labels.tolist(), masks, strict=True):
        pixels[mask] = blended(pixels[mask], colour_of(label))
    return np.repeat(np.repeat(pixels, scale, 0), scale, 1)


def draw(canvas: Canvas, scale: int = 1):
    """Draw a canvas's boxes, names of classes and translucent masks -> PIL image, `scale` times as large, RGB."""
    return draw_objects(canvas.image, canvas.boxes, canvas.labels, FASHION_MNIST, canvas.masks, scale)


def draw_objects(image, boxes, labels, names, masks=None, scale: int = 1):
    """Draw boxes, names of classes and translucent masks on an image -> PIL image, `scale` times as large, RGB.

    A box is drawn along its own outermost pixels, with a dark line around.

    Args:
        image: (H, W, 3), (H, W, 1) or (H, W) uint8; boxes: (n, 4) xyxy in its pixels; labels: (n,) integers.
        names: of the classes; masks: (n, H, W) bool, None for none.
    """
    masked = (labels[:0], ()) if masks is None else (labels, masks)
    picture = pillow().fromarray(tinted(image, *masked, scale))  # which says so where Pillow is missing
    corners = (np.asarray(boxes) * scale).astype(int).reshape(-1, 4)
    corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2] + 1)  # boxes of less than a pixel are seen too
    corners, colours = corners.tolist(), [colour_of(label) for label in labels.tolist()]
    for box, colour in zip(corners, colours, strict=True):
        draw_outline(picture, box, colour, scale)
    write_names(picture, corners, [names[label] for label in labels.tolist()], colours)
    return picture
