"""Images with boxes scaled, mirrored, cropped and laid on canvases: the steps of which augmentations are made.

image: (h, w, C) uint8, never changed in place; boxes: (n, 4) xyxy in its pixels, which may reach over its edges.
"""

import numpy as np

from swins.image_files import pillow


def scaled(image, boxes, size):
    """Scale to (height, width) pixels, bicubic and antialiased, as validation does -> (image, boxes)."""
    height, width = image.shape[:2]
    factors = size[1] / width, size[0] / height
    return scaled_pixels(image, size), boxes * np.tile(factors, 2)


def scaled_pixels(image, size):
    """The pixels (H, W, C) of an image scaled to (H, W)."""
    if image.shape[:2] == tuple(size):
        return image
    Image = pillow()
    if image.shape[2] != 3:  # Pillow would take the fourth for transparency
        pictures = [Image.fromarray(np.ascontiguousarray(image[..., i])) for i in range(image.shape[2])]
        return np.stack([np.asarray(p.resize(size[::-1], Image.Resampling.BICUBIC)) for p in pictures], -1)
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(picture.resize(size[::-1], Image.Resampling.BICUBIC))


def flipped(image, boxes):
    """Mirror left and right -> (image, boxes)."""
    width = image.shape[1]
    return image[:, ::-1], np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], -1)


def cropped(image, boxes, window):
    """Cut out (left, top, right, bottom), integers inside the image -> (image, boxes, not clipped)."""
    left, top, right, bottom = window
    return image[top:bottom, left:right], boxes - np.array([left, top, left, top])


def around(image, boxes, canvas, place, colour):
    """Lay an image on a canvas of (height, width) in a colour, its corner at (left, top) -> (image, boxes)."""
    (height, width, channels), (left, top) = image.shape, place
    if canvas == (height, width):
        return image, boxes
    pixels = np.empty((*canvas, channels), np.uint8)
    pixels.reshape(canvas[0], -1)[:] = np.tile(np.uint8(colour), canvas[1])  # row by row: a copy of memory
    pixels[top : top + height, left : left + width] = image
    return pixels, boxes + np.array([left, top, left, top])


def areas(boxes):
    """Areas of boxes (..., 4) -> (...); 0 where a side is none."""
    return np.prod(np.maximum(boxes[..., 2:] - boxes[..., :2], 0), -1)


def clipped(boxes, size, least_area, visible):
    """Clip boxes to (height, width), and drop those of which little is left -> (boxes (m, 4), kept (n,) bool).

    least_area: in pixels; visible: part of a box's area that is inside.
    """
    inside = np.clip(boxes, 0, np.tile(size[::-1], 2))
    area = areas(inside)
    kept = (area > 0) & (area >= least_area) & (area >= visible * areas(boxes))
    return inside[kept], kept


def best_iou(windows, boxes, counted):
    """The largest IoU of each window (m, 4) with the boxes (n, 4) that count for it (m, n) bool -> (m,); 0 for none."""
    windows = np.asarray(windows)[:, None]
    common = np.concatenate(
        [np.maximum(windows[..., :2], boxes[:, :2]), np.minimum(windows[..., 2:], boxes[:, 2:])], -1
    )
    shared = areas(common)
    ious = shared / (areas(windows) + areas(boxes) - shared)
    return np.max(ious, 1, where=counted, initial=0)
