"""Canvases of Fashion-MNIST's garments: boxes, masks and classes are known exactly, at every size and crowding.

A data set for detectors and segmenters that needs no network: swins' repository has its source, demo/fashion_mnist.
As in COCO, boxes and masks are of what is visible: garments lie on each other, the later above.

H, W: pixels of a canvas; h, w: of a garment; n: garments of a canvas.
"""

import functools
import hashlib
import json
import numbers
import operator
import os
from dataclasses import asdict, dataclass

import numpy as np

from swins.data.cutouts import SPLITS, Cutouts, scaled
from swins.data.stacking import Layers
from swins.errors import SwinsError, unknown_name
from swins.labels import FASHION_MNIST

BACKGROUNDS = ("plain", "gradient", "noise")
ANY = "any"  # one of them for each canvas
MOST_OBJECTS, MOST_PIXELS = 1000, 8192  # of a canvas; of its side
LEAST_SIDE = 8  # pixels of a garment
TRIES = 12  # places that are drawn for a garment before a free one is looked for
DARK = 64  # background levels are below, a garment's grey begins here
PALEST = 112  # a tint's lowest level
CELL, GRAIN = 16, 8  # pixels between levels of the noise, largest level of its grain


@dataclass(frozen=True, eq=False)
class Canvas:
    """A sample.

    image: (H, W, 3) or (H, W) uint8.
    boxes: (n, 4) float32, left, top, right and bottom in pixels, tight around the visible pixels; right and bottom are
        just outside, so that right - left is COCO's width.
    labels: (n,) int64, classes of Garments.classes.
    masks: (n, H, W) bool, visible pixels; no pixel is of two garments.
    area: (n,) int64, pixels of the masks; whole: (n,) int64, the same before others were laid above.
    semantic: (H, W) uint8, 0 for background, 1 + class elsewhere.
    sources: (n,) int64, numbers of the source's images.
    """

    name: str
    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    masks: np.ndarray
    area: np.ndarray
    whole: np.ndarray
    semantic: np.ndarray
    sources: np.ndarray


def whole(value, least, most=None):
    """Whether a value is an integer within bounds."""
    return (
        isinstance(value, numbers.Integral)
        and not isinstance(value, bool)
        and value >= least
        and (most is None or value <= most)
    )


def ascending(value, least, most):
    """Whether a value is a pair of integers within bounds, the smaller first."""
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(whole(v, least, most) for v in value)
        and (value[0] <= value[1])
    )


def share(value):
    """Whether a value is a number from 0 to 1."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and 0 <= value <= 1


@dataclass(frozen=True)
class Garments:
    """A data set of canvases: len(garments) of them; garments[i] is a Canvas, the same on every machine.

    source: a folder of Fashion-MNIST's IDX files. split: "train" or "val"; no image of the source is in both.
    count: of canvases. size: (height, width) in pixels, or one number.
    objects: fewest and most garments of a canvas, each number as likely.
    scale: smallest and largest longer side of a garment in pixels; its octaves are as likely.
    overlap: largest IoU of two boxes. visible: smallest part of a garment's pixels that others may leave to be seen.
    colour: RGB with a tint for each garment, else grey. background: "plain", "gradient", "noise", or "any" of them.
    flips: whether half of the garments are mirrored. seed: of everything that is drawn.

    A garment that finds no place at its size is made smaller, down to the smallest: the number of garments is kept.

    Raises:
        SwinsError: for arguments out of bounds, and a source without garments.

    Example:
    >>> canvas = Garments("demo/fashion_mnist", "val", count=8, size=128, scale=(16, 64))[3]
    >>> canvas.image.shape, canvas.masks.shape[0] == len(canvas.boxes)
    ((128, 128, 3), True)
    """

    source: str
    split: str = "train"
    count: int = 1000
    size: tuple = (256, 256)
    objects: tuple = (1, 8)
    scale: tuple = (16, 160)
    overlap: float = 0.3
    visible: float = 0.5
    colour: bool = True
    background: str = ANY
    flips: bool = True
    seed: int = 0

    def __post_init__(self):
        if not isinstance(self.source, str | os.PathLike):
            raise SwinsError(f"source must be a folder of IDX files; got {self.source!r}; give its path")
        if self.split not in SPLITS:
            raise unknown_name("split", str(self.split), SPLITS)
        if self.background not in (*BACKGROUNDS, ANY):
            raise unknown_name("background", str(self.background), (*BACKGROUNDS, ANY))
        for name in ("size", "objects", "scale"):
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if isinstance(value, list) else value)
        if whole(self.size, 1):
            object.__setattr__(self, "size", (self.size, self.size))
        sides = isinstance(self.size, tuple) and len(self.size) == 2
        sides = sides and all(whole(side, LEAST_SIDE, MOST_PIXELS) for side in self.size)
        largest = min(self.size) if sides else MOST_PIXELS
        rules = (
            ("count", "an integer of at least 1", whole(self.count, 1)),
            ("size", f"pixels or a pair of them, {LEAST_SIDE} to {MOST_PIXELS}", sides),
            ("objects", f"a pair, 0 to {MOST_OBJECTS}, fewest first", ascending(self.objects, 0, MOST_OBJECTS)),
            (
                "scale",
                f"a pair of pixels, {LEAST_SIDE} to the canvas's shorter side ({largest}), smallest first",
                ascending(self.scale, LEAST_SIDE, largest),
            ),
            ("overlap", "a number from 0 to 1", share(self.overlap)),
            ("visible", "a number above 0, at most 1", share(self.visible) and self.visible > 0),
            ("colour", "True or False", isinstance(self.colour, bool)),
            ("flips", "True or False", isinstance(self.flips, bool)),
            ("seed", "an integer of at least 0", whole(self.seed, 0)),
        )
        wrong = [f"{name} must be {rule}; got {getattr(self, name)!r}" for name, rule, good in rules if not good]
        if wrong:
            raise SwinsError("; ".join(wrong))
        for name, kind in (("count", int), ("seed", int), ("overlap", float), ("visible", float)):
            object.__setattr__(self, name, kind(getattr(self, name)))  # NumPy's numbers are no JSON
        for name in ("size", "objects", "scale"):
            object.__setattr__(self, name, tuple(map(int, getattr(self, name))))
        if self.objects[1] > self.room:
            raise SwinsError(
                f"most objects must have room at their smallest; got {self.objects[1]} of {self.scale[0]} pixels on "
                f"{self.size[0]}x{self.size[1]}, where {self.room} always have; take fewer, smaller or a larger canvas"
            )

    @property
    def room(self) -> int:
        """How many garments of the smallest side always find a place, wherever the others lie."""
        side = self.scale[0]
        places = (self.size[0] - side + 1) * (self.size[1] - side + 1)
        return 1 + (places - 1) // (2 * side - 1) ** 2  # a garment takes at most so many places from the next

    @property
    def classes(self) -> tuple:
        """Names of the classes, in the order of their labels."""
        return FASHION_MNIST

    @functools.cached_property
    def cutouts(self) -> Cutouts:
        """The garments of this split."""
        return Cutouts(self.source, self.split)

    @functools.cached_property
    def sides(self):
        """For each longer side of a garment from the smallest, how likely it and smaller ones are, in integers."""
        return np.cumsum([(1 << 24) // side for side in range(self.scale[0], self.scale[1] + 1)], dtype=np.int64)

    def digest(self) -> str:
        """A short digest of what the canvases are made of: arguments and images, not where these are."""
        arguments = {name: value for name, value in asdict(self).items() if name != "source"}
        content = hashlib.sha256(json.dumps(arguments).encode())
        for number in np.concatenate(self.cutouts.members).tolist():
            content.update(self.cutouts.pixels[number].tobytes() + bytes([self.cutouts.labels[number]]))
        return content.hexdigest()[:16]

    def __len__(self):
        return self.count

    def __getitem__(self, index) -> Canvas:
        place = operator.index(index)
        place += len(self) if place < 0 else 0
        if not 0 <= place < len(self):
            raise IndexError(f"canvases are numbered from 0 to {len(self) - 1}; got {index}")
        key = np.random.SeedSequence((self.seed, SPLITS.index(self.split), place))
        rng = np.random.Generator(np.random.PCG64(key))  # of which integers alone are drawn: the same everywhere
        image = backdrop(self, rng)
        chosen = [self.choose(rng) for _ in range(rng.integers(self.objects[0], self.objects[1] + 1))]
        halvings = 0
        while (laid := self.compose(rng, chosen, self.scale[1] >> halvings)) is None:
            halvings += 1  # at the smallest side, all have room
        layers, pieces = laid
        for piece in pieces:
            paint(image, *piece)
        return self.canvas(place, image, layers, chosen)

    def choose(self, rng):
        """Draw a garment -> (number of its image, whether it is mirrored, its tint, (3,) or (1,))."""
        members = self.cutouts.members[rng.integers(len(self.cutouts.members))]
        number = int(members[rng.integers(len(members))])
        tint = rng.integers(PALEST, 256, 3) if self.colour else np.array([255])
        tint[rng.integers(len(tint))] = 255
        return number, self.flips and bool(rng.integers(2)), tint

    def compose(self, rng, chosen, largest):
        """Lay garments on each other -> (Layers, what `paint` needs of each), or None where one finds no place."""
        layers, pieces = Layers(self.size, self.overlap, self.visible), []
        count = len(self.sides) - self.scale[1] + max(largest, self.scale[0])
        for number, mirrored, tint in chosen:
            draw = rng.integers(self.sides[count - 1])
            side = self.scale[0] + int(np.searchsorted(self.sides, draw, "right"))
            while (piece := self.place(rng, layers, number, mirrored, side)) is None:
                if side == self.scale[0]:
                    return None
                side = max(self.scale[0], side // 2)
            pieces.append((*piece, tint))
        return layers, pieces

    def place(self, rng, layers, number, mirrored, side):
        """Lay a garment of this side on a place that is drawn -> (grey, cover, left, top), or None without one."""
        grey, cover = (part[:, ::-1] if mirrored else part for part in self.cutouts.scaled(number, side))
        mask, spare = cover >= 128, [a - b + 1 for a, b in zip(self.size, cover.shape, strict=True)]
        for _ in range(TRIES):
            top, left = (int(rng.integers(places)) for places in spare)
            if layers.lay(mask, left, top):
                return grey, cover, left, top
        free = layers.free(mask.shape)
        if not len(free):
            return None
        left, top = free[rng.integers(len(free))].tolist()
        layers.lay(mask, left, top)
        return grey, cover, left, top

    def canvas(self, place, image, layers, chosen):
        """The Canvas of what was laid."""
        sources = np.array([number for number, *_ in chosen], np.int64)
        labels = self.cutouts.labels[sources].astype(np.int64)
        return Canvas(
            name=f"garments_{self.split}[{place}]",
            image=image if self.colour else image[..., 0],
            boxes=layers.boxes.astype(np.float32),
            labels=labels,
            masks=layers.owner == np.arange(1, len(chosen) + 1)[:, None, None],
            area=layers.visible,
            whole=layers.whole,
            semantic=np.append(np.uint8(0), (labels + 1).astype(np.uint8))[layers.owner],
            sources=sources,
        )


def backdrop(garments, rng):
    """Draw a background, dark beside most garments -> (H, W, C) uint8."""
    (height, width), channels = garments.size, 3 if garments.colour else 1
    kinds = BACKGROUNDS if garments.background == ANY else (garments.background,)
    kind = kinds[rng.integers(len(kinds))]
    if kind == "noise":
        coarse = rng.integers(0, DARK - GRAIN, (channels, height // CELL + 2, width // CELL + 2)).astype(np.uint8)
        smooth = np.stack([scaled(levels, (height, width)) for levels in coarse], -1)
        smooth = np.minimum(smooth, DARK - GRAIN - 1)  # cubic curves overshoot
        return smooth + rng.integers(0, GRAIN + 1, (height, width, 1), np.uint8)
    start, end = rng.integers(0, DARK, (2, channels)).astype(np.int32)
    if kind == "plain":
        return np.broadcast_to(start.astype(np.uint8), (height, width, channels)).copy()
    down, across = (int(n) for n in rng.integers(1, 9, 2))
    rows, columns = (np.arange(side, dtype=np.int32) * 256 // side for side in garments.size)
    slope = (down * rows[:, None] + across * columns) // (down + across)  # 0 to 255
    return np.stack(
        [low + (slope * (high - low) >> 8) for low, high in zip(start, end, strict=True)],
        -1,
        dtype=np.uint8,
        casting="unsafe",
    )


def paint(image, grey, cover, left, top, tint):
    """Lay a garment's pixels on an image (H, W, C), in place; cover (h, w): 255 hides what is below, 0 nothing."""
    below = image[top : top + grey.shape[0], left : left + grey.shape[1]]
    opaque = cover.astype(np.uint16)  # all products are below 2**16
    level = DARK + grey.astype(np.uint16) * (255 - DARK) // 255
    for channel, strength in enumerate(tint.astype(np.uint16)):
        colour = level * strength // 255
        below[..., channel] = (colour * opaque + below[..., channel] * (255 - opaque) + 127) // 255
