"""The numbers that define an SSD beside its pyramid, checked. Without Keras, as rows of variants are made of them."""

from dataclasses import dataclass, fields
from typing import NamedTuple

from swins.checked_numbers import integers, tuples
from swins.errors import SwinsError, unknown_name

EXTRA_NORMS = ("batch", "layer")


class Extra(NamedTuple):
    """One more map, of the one before: a 1x1 convolution to `middle` channels, then a 3x3 one to `channels`.

    stride, padding: of the 3x3 convolution, in cells; None: it halves the map, and makes one cell of 3x3.
    """

    middle: int
    channels: int
    stride: int | None = None
    padding: int | None = None

    def on(self, size: tuple) -> "Extra":
        """The row with stride and padding for a map of this size."""
        if self.stride is not None:
            return self
        stride, padding = (1, 0) if tuple(size) == (3, 3) else (2, 1)
        return self._replace(stride=stride, padding=padding)

    def size(self, size: tuple) -> tuple:
        """(height, width) of the map that is made of one of this size."""
        row = self.on(size)
        return tuple((side + 2 * row.padding - 3) // row.stride + 1 for side in size)


def extra(row) -> Extra:
    """The Extra of a row of numbers. Raises SwinsError for what is none."""
    if isinstance(row, list | tuple) and tuple(row[2:]) == (None, None):
        row = row[:2]
    if not (isinstance(row, list | tuple) and len(row) in (2, 4)):
        raise SwinsError(f"a row of extras is (middle, channels), or with stride and padding; got {row!r}")
    made = Extra(*integers("a row of extras", row, len(row)))
    if min(made[:2]) < 1 or (len(row) == 4 and (made.stride < 1 or made.padding not in (0, 1))):
        raise SwinsError(
            f"a row of extras has middle, channels and stride of at least 1, and padding 0 or 1; got {tuple(row)}"
        )
    return made


@dataclass(frozen=True)
class SSDNumbers:
    """What an SSD is made of, but for its pyramid.

    num_classes: classes without background; neck: a name in `swins.detection.necks.NECKS`; extras: rows (middle,
    channels) or (middle, channels, stride, padding) of the maps that follow the pyramid's, or None for computed ones;
    extra_norm: what follows their convolutions, "batch" or "layer"; rescale: whether the first map is brought to a
    learned length in each cell; expand: whether the pyramid's last map is enlarged twice; levels: which of the
    pyramid's maps are used, fine to coarse, None for all; preset: of the default boxes, a name or Priors of
    `swins.detection.default_boxes`.
    """

    num_classes: int = 80
    neck: str = "none"
    extras: tuple | None = None
    extra_norm: str = "batch"
    rescale: bool = False
    expand: bool = False
    levels: tuple | None = None
    preset: object = "r_ssd"

    def __post_init__(self):
        (classes,) = integers("num_classes", self.num_classes, 1)
        if classes < 1:
            raise SwinsError(f"num_classes must be at least 1, background aside; got {classes}")
        object.__setattr__(self, "num_classes", classes)
        if self.extras is not None:
            if not isinstance(self.extras, list | tuple):
                raise SwinsError(f"extras must be rows (middle, channels, ...) or None; got {self.extras!r}")
            object.__setattr__(self, "extras", tuple(map(extra, self.extras)))
        if self.extra_norm not in EXTRA_NORMS:
            raise unknown_name("extra_norm", str(self.extra_norm), EXTRA_NORMS)
        for name in ("rescale", "expand"):
            if not isinstance(getattr(self, name), bool):
                raise SwinsError(f"{name} must be True or False; got {getattr(self, name)!r}")
        if self.levels is not None:
            levels = tuples(self.levels)
            if not (isinstance(levels, tuple) and levels and all(isinstance(level, str) for level in levels)):
                raise SwinsError(f'levels must be names of maps, such as ("P3", "P4"), or None; got {self.levels!r}')
            object.__setattr__(self, "levels", levels)


def numbers_of(options: dict) -> SSDNumbers:
    """The SSDNumbers of {name: value}. Raises SwinsError for names that are none."""
    known = [field.name for field in fields(SSDNumbers)]
    for name in options:
        if name not in known:
            raise unknown_name("option of an SSD", name, known)
    return SSDNumbers(**options)
