"""The numbers that define a UPerNet beside its pyramid, checked. Without Keras, as variants' rows are of them."""

from dataclasses import dataclass, fields

from swins.checked_numbers import integers, natural, tuples
from swins.errors import SwinsError, unknown_name


@dataclass(frozen=True)
class UPerNetNumbers:
    """What a UPerNet is made of, but for its pyramid.

    num_classes: what pixels are of, background among them where it is a class; width: channels of the decoder's maps;
    bins: parts along each axis in which the coarsest map is averaged; auxiliary: channels of the auxiliary head, 0 for
    none; auxiliary_level: the map that it is on, None for the one before the last; drop_rate: share of channels that
    are dropped before each classifier, in training; levels: which of the pyramid's maps are used, fine to coarse, None
    for all.
    """

    num_classes: int = 150
    width: int = 512
    bins: tuple = (1, 2, 3, 6)
    auxiliary: int = 256
    auxiliary_level: str | None = None
    drop_rate: float = 0.1
    levels: tuple | None = None

    def __post_init__(self):
        for name in ("num_classes", "width", "auxiliary"):
            object.__setattr__(self, name, natural(name, getattr(self, name)))
        bins = tuples(self.bins)
        object.__setattr__(self, "bins", integers("bins", bins, len(bins) if isinstance(bins, tuple) else 1))
        if min(self.num_classes, self.width) < 1 or not self.bins or min(self.bins) < 1:
            raise SwinsError(
                f"num_classes, width and each of the bins must be at least 1; got {self.num_classes}, {self.width} and "
                f"{self.bins}"
            )
        if (
            isinstance(self.drop_rate, bool)
            or not isinstance(self.drop_rate, int | float)
            or not (0 <= self.drop_rate < 1)
        ):
            raise SwinsError(f"drop_rate must be at least 0 and below 1; got {self.drop_rate!r}")
        if self.auxiliary_level is not None and not isinstance(self.auxiliary_level, str):
            raise SwinsError(f'auxiliary_level must be the name of a map, such as "P4"; got {self.auxiliary_level!r}')
        if self.levels is not None:
            levels = tuples(self.levels)
            if not (isinstance(levels, tuple) and levels and all(isinstance(level, str) for level in levels)):
                raise SwinsError(f'levels must be names of maps, such as ("P3", "P4"), or None; got {self.levels!r}')
            object.__setattr__(self, "levels", levels)


def upernet_numbers(options: dict) -> UPerNetNumbers:
    """The UPerNetNumbers of {name: value}. Raises SwinsError for names that are none."""
    known = [field.name for field in fields(UPerNetNumbers)]
    for name in options:
        if name not in known:
            raise unknown_name("option of a UPerNet", name, known)
    return UPerNetNumbers(**options)
