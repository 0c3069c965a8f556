"""The numbers that define a Mask R-CNN beside its pyramid, checked. Without Keras, as variants' rows are of them."""

import re
from dataclasses import dataclass, fields

from swins.checked_numbers import natural, tuples
from swins.errors import SwinsError, unknown_name

LEVEL = re.compile(r"P([0-9])")  # Pn has a stride of 2**n pixels


def stride_of(level: str) -> int:
    """Pixels from cell to cell of a level by its name: "P3" -> 8.

    Raises:
        SwinsError: a name that tells no stride.
    """
    match = LEVEL.fullmatch(level)
    if not match:
        raise SwinsError(f"a level's name says its stride, 2**n pixels for Pn, as P2, P3; got {level!r}; rename it")
    return 2 ** int(match[1])


@dataclass(frozen=True)
class RCNNNumbers:
    """What a Mask R-CNN is made of, but for its pyramid.

    num_classes: classes without background; masks: whether there is a mask head, without which it is a Faster R-CNN;
    width: channels of the feature pyramid, the region proposal network and the heads' convolutions; hidden: units of
    the box head's dense layers; extra_levels: maps after the pyramid's, each every second cell of the one before, for
    proposals alone; levels: which of the pyramid's maps are used, fine to coarse, None for all.
    """

    num_classes: int = 80
    masks: bool = True
    width: int = 256
    hidden: int = 1024
    extra_levels: int = 1
    levels: tuple | None = None

    def __post_init__(self):
        for name in ("num_classes", "width", "hidden", "extra_levels"):
            number = natural(name, getattr(self, name))
            if number < 1 and name != "extra_levels":
                raise SwinsError(f"{name} must be at least 1; got {number}")
            object.__setattr__(self, name, number)
        if not isinstance(self.masks, bool):
            raise SwinsError(f"masks must be True or False; got {self.masks!r}")
        if self.levels is not None:
            levels = tuples(self.levels)
            if not (isinstance(levels, tuple) and levels and all(isinstance(level, str) for level in levels)):
                raise SwinsError(f'levels must be names of maps, such as ("P3", "P4"), or None; got {self.levels!r}')
            object.__setattr__(self, "levels", levels)


def rcnn_numbers(options: dict) -> RCNNNumbers:
    """The RCNNNumbers of {name: value}. Raises SwinsError for names that are none."""
    known = [field.name for field in fields(RCNNNumbers)]
    for name in options:
        if name not in known:
            raise unknown_name("option of a Mask R-CNN", name, known)
    return RCNNNumbers(**options)
