"""What a diffusion model gives: images of its own, which draw themselves as a grid."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from swins.image_files import pillow

LEAST_SIDE, GAP, NAME_WIDTH = 48, 2, 96  # pixels: of a small image in a grid, between images, of the classes' names
WHITE, STATES, WAYS = 255, 8, 10  # states of a denoising, and how many of these are drawn


def to_pixels(images) -> np.ndarray:
    """Images of -1 to 1, which others are clipped to, as pixels: (..., H, W, C) float -> uint8.

    >>> to_pixels(np.array([-1.5, -1.0, 0.0, 1.0])).tolist()
    [0, 0, 128, 255]
    """
    return np.uint8(np.round((np.clip(images, -1, 1) + 1) * 127.5))


def grid(images: np.ndarray, columns: int, names: Sequence[str] = ()):
    """Images side by side -> a PIL image; small ones are enlarged by a whole number.

    Args:
        images: (n, H, W, 1 or 3) uint8; columns: images a row; names: of the rows, which stand before them.
    """
    Image = pillow()
    from PIL import ImageDraw

    count, height, width, channels = images.shape
    scale = max(1, math.ceil(LEAST_SIDE / max(height, width)))
    rows, left = -(-count // columns), NAME_WIDTH if names else 0
    cell = height * scale + GAP, width * scale + GAP
    page = np.full((rows * cell[0] + GAP, left + columns * cell[1] + GAP, channels), WHITE, "uint8")
    for i, image in enumerate(images.repeat(scale, 1).repeat(scale, 2)):
        y, x = (i // columns) * cell[0] + GAP, left + (i % columns) * cell[1] + GAP
        page[y : y + height * scale, x : x + width * scale] = image
    picture = Image.fromarray(page[..., 0] if channels == 1 else page)
    pen = ImageDraw.Draw(picture)
    for row, name in enumerate(names):
        pen.text((4, row * cell[0] + cell[0] // 2 - 5), name[:15], 0)
    return picture


def denoising(states: list, names: Sequence[str] = (), most: int = WAYS):
    """The way of images from noise, a row an image, at up to eight of its steps -> a PIL image.

    Args:
        states: (step, images (B, H, W, C) of -1 to 1) after each step, of one batch or, one after the other, of
            several, of which the first is drawn; names: of the images; most: how many are drawn.
    """
    last = next((i for i, (step, _) in enumerate(states[1:], 1) if step == 0), len(states))
    shown = np.unique(np.linspace(0, last - 1, STATES).round().astype(int))
    way = np.stack([to_pixels(states[i][1][:most]) for i in shown], 1)
    return grid(way.reshape(-1, *way.shape[2:]), len(shown), list(names[:most]))


@dataclass(frozen=True, eq=False)
class Samples:
    """Images that a model made.

    images: (n, H, W, C) uint8; labels: (n,) int64, numbers of the classes that were asked for, and names: theirs; both
    empty of a model without classes. seed: what they came of.
    """

    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    seed: int = 0

    def __len__(self):
        return len(self.images)

    def __str__(self):
        counts = {name: self.names.count(name) for name in dict.fromkeys(self.names)}
        of = f": {', '.join(f'{count} {name}' for name, count in counts.items())}" if counts else ""
        return f"{len(self)} images of seed {self.seed}{of}"

    def to_json(self) -> dict:
        """What was asked for, as plain values; the images are no part of it."""
        rows = zip(self.labels.tolist(), self.names, strict=True)
        return {"count": len(self), "seed": self.seed, "classes": [{"label": n, "name": name} for n, name in rows]}

    def pictures(self) -> list:
        """Each as a PIL image."""
        Image = pillow()
        return [Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image) for image in self.images]

    def draw(self, columns: int | None = None):
        """A grid -> a PIL image: a row a class where each has as many images, else about as wide as high."""
        names = list(dict.fromkeys(self.names))
        each = [self.names.count(name) for name in names]
        if columns is None and len(set(each)) == 1 and self.names == tuple(n for n in names for _ in range(each[0])):
            return grid(self.images, each[0], names)
        return grid(self.images, min(len(self), columns or math.ceil(math.sqrt(len(self)))))
