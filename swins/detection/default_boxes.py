"""SSD's default boxes (arXiv:1512.02325, section 2.2): the priors that a detector's boxes are coded against."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from swins.errors import SwinsError, unknown_name

FOUR, SIX = (2.0, 1 / 2), (2.0, 3.0, 1 / 2, 1 / 3)  # ratios of maps whose cells have so many boxes


@dataclass(frozen=True)
class Priors:
    """What boxes the cells of each map have, the finest map first. Sides are shares of the image's.

    scales: the side of each map's square; last_scale: that of a map after the last: each cell has a second square, of
    the geometric mean of two scales; ratios: width over height of each map's other boxes, in their order; steps:
    pixels from cell to cell of each map, or None: the cells divide the image; clip: whether sides end at the image's.
    """

    scales: tuple[float, ...]
    last_scale: float
    ratios: tuple[tuple[float, ...], ...]
    steps: tuple[float, ...] | None = None
    clip: bool = True

    def __post_init__(self):
        counts = {len(self.scales), len(self.ratios), len(self.steps or self.scales)}
        if len(counts) > 1 or not self.scales:
            steps = f", {len(self.steps)} steps" if self.steps else ""
            raise SwinsError(
                f"Priors have a scale, ratios and, if any, a step for each map; got {len(self.scales)} scales, "
                f"{len(self.ratios)} of ratios{steps}; give as many of each"
            )

    def sides(self, level: int) -> np.ndarray:
        """Width and height of a cell's boxes of a map: two squares, then a box for each ratio -> (n, 2)."""
        scale, following = (*self.scales, self.last_scale)[level : level + 2]
        mean = math.sqrt(scale * following)
        others = [(scale * math.sqrt(ratio), scale / math.sqrt(ratio)) for ratio in self.ratios[level]]
        sides = np.array([(scale, scale), (mean, mean), *others])
        return np.minimum(sides, 1.0) if self.clip else sides


PRESETS = {
    # RuslanGreenhead/swin_transformer
    "r_ssd": Priors((0.1, 0.2, 0.375, 0.55, 0.725, 0.9), 1.0, (FOUR, SIX, SIX, SIX, FOUR, FOUR)),
    # torchvision's ssd300_vgg16, whose images are 300 pixels wide and high; each ratio beside its reverse
    "torchvision": Priors(
        (0.07, 0.15, 0.33, 0.51, 0.69, 0.87),
        1.05,
        ((2.0, 1 / 2), *((2.0, 1 / 2, 3.0, 1 / 3),) * 3, (2.0, 1 / 2), (2.0, 1 / 2)),
        (8, 16, 32, 64, 100, 300),
    ),
    # ours, for garments of a third to three quarters of the image: more than 99 in 100 overlap a box by half
    "garments": Priors((0.25, 0.42, 0.65), 0.9, (SIX, SIX, SIX)),
}


def spread(levels: int) -> Priors:
    """The rule of "r_ssd" for another number of maps, three or more.

    Scales 0.1, then from 0.2 to 0.9 in equal steps, then 1; the first map and the last two have four boxes a cell, the
    others six.

    Raises:
        SwinsError: fewer than three.
    """
    if levels < 3:
        raise SwinsError(f"boxes are spread over three maps or more; got {levels}; give their Priors")
    scales = tuple(round(float(scale), 9) for scale in np.linspace(0.2, 0.9, levels - 1))
    return Priors((0.1, *scales), 1.0, (FOUR, *(SIX,) * (levels - 3), FOUR, FOUR))


def priors_of(preset: str | Priors) -> Priors:
    """The Priors of a name in PRESETS; others as they are.

    Raises:
        SwinsError: an unknown name.
    """
    if isinstance(preset, Priors):
        return preset
    if preset not in PRESETS:
        raise unknown_name("preset of default boxes", preset, list(PRESETS))
    return PRESETS[preset]


def per_cell(preset: str | Priors = "r_ssd") -> tuple[int, ...]:
    """How many boxes a cell of each map has."""
    return tuple(2 + len(ratios) for ratios in priors_of(preset).ratios)


def default_boxes(
    sizes: Sequence[tuple[int, int]], preset: str | Priors = "r_ssd", image_size: tuple[int, int] | None = None
) -> np.ndarray:
    """Default boxes of maps, the finest first -> (P, 4) float32 cxcywh, shares of the image's width and height.

    Map by map, row by row, cell by cell; the boxes of a cell lie around its centre, in the order of `Priors.sides`.

    Args:
        sizes: (rows, columns) of each map, as the network gives them.
        preset: a name in PRESETS, or Priors.
        image_size: (height, width) in pixels, where steps are fixed.

    Raises:
        SwinsError: as many maps as the preset has not; fixed steps and no image_size.
    """
    priors = priors_of(preset)
    if len(sizes) != len(priors.scales):
        raise SwinsError(
            f"these default boxes are of {len(priors.scales)} maps; got {len(sizes)}; give Priors of as many, such as "
            f"spread({len(sizes)})"
        )
    if priors.steps and image_size is None:
        raise SwinsError("default boxes of fixed steps depend on the image; got no image_size; give (height, width)")
    levels = []
    for level, size in enumerate(sizes):
        cells = np.array(image_size) / priors.steps[level] if priors.steps else np.array(size)
        middles = [(np.arange(count) + 0.5) / whole for count, whole in zip(size, cells, strict=True)]
        y, x = np.meshgrid(*middles, indexing="ij")
        sides = priors.sides(level)
        boxes = np.empty((*size, len(sides), 4))
        boxes[..., 0], boxes[..., 1], boxes[..., 2:] = x[..., None], y[..., None], sides
        levels.append(boxes.reshape(-1, 4))
    return np.concatenate(levels).astype("float32")
