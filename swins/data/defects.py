"""What is wrong with the boxes of a data set: counted, named, and either mended or left out."""

import contextlib
import os
import re

import numpy as np

from swins.errors import SwinsError
from swins.image_files import pillow

SLACK = 1.0  # pixels that boxes reach over an edge by rounding, of which nothing is said
LARGEST = 2**20  # pixels of a side
NAMED = 3  # places that a line names
ORIENTATION, UPRIGHT = 0x0112, 1  # EXIF's

CLIPPED = "boxes that reach over the image's edge, clipped"
EMPTY = "boxes of no area, left out"
NO_NUMBERS = "boxes that are no four finite numbers, left out"
OUTSIDE = "boxes outside their image, left out"
REVERSED = "boxes whose corners are in the wrong order, left out"

UNKNOWN_CLASS = "objects of an unknown class, left out"
UNKNOWN_IMAGE = "objects of an image that is not listed, left out"
TWICE = "annotations whose number another has, kept"
NO_FILE = "images whose file is missing, left out"
NO_SIZE = "images whose size is neither stated nor to be read, left out"
NO_ANNOTATION = "images without annotations, left out"
DIFFICULT = "objects marked as difficult, neither trained on nor counted as missed"


class Defects:
    """Kinds of defects, and where in a data set each is. source: what a line names first."""

    def __init__(self, source):
        self.source, self.places = source, {}

    def add(self, kind, place):
        """Remember a defect of a kind, in words, and its place: an image, a line of a file."""
        self.places.setdefault(kind, []).append(printable(place))

    def notes(self) -> tuple:
        """A line a kind: how many, and where the first are."""
        lines = []
        for kind, places in self.places.items():
            few = ", ".join([*places[:NAMED], *["..."] * (len(places) > NAMED)])
            lines.append(f"{self.source}: {kind}: {len(places)} ({few})")
        return tuple(lines)

    def lines(self) -> tuple:
        """A line a defect, "place<TAB>kind", for a file."""
        return tuple(f"{place}\t{kind}" for kind, places in self.places.items() for place in places)


def printable(text):
    """A text, or its escapes where a line could not hold it."""
    return str(text) if str(text).isprintable() else ascii(str(text))


def is_text(value):
    """Whether a value is a text of one line that can be written: JSON may hold halves of letters."""
    return (
        isinstance(value, str)
        and bool(value.strip())
        and not any(letter < " " or "\ud800" <= letter <= "\udfff" for letter in value)
    )


def inside(source, name):
    """A file's name in a data set -> the same with / between its parts.

    Raises:
        SwinsError: if it leads out of the data set's folder, or is no name.
    """
    parts = re.split(r"[/\\]", name) if isinstance(name, str) else [""]
    if not parts[0] or ".." in parts or "\0" in name or re.match("[A-Za-z]:", name):
        raise SwinsError(
            f"{printable(source)}: files must lie in the data set's own folder; got {name!r:.200}; name them relative "
            "to the folder of the images"
        )
    return "/".join(part for part in parts if part not in ("", "."))


def stored_size(path):
    """((height, width), whether EXIF says that it is shown turned) of an image's file; None if it cannot be read."""
    Image = pillow()
    if not os.path.isfile(path):  # a pipe would be waited for
        return None
    with contextlib.suppress(Exception), Image.open(path) as image:  # its readers raise whatever a file leads them to
        return (image.height, image.width), image.getexif().get(ORIENTATION, UPRIGHT) != UPRIGHT
    return None


def stated_size(height, width):
    """(height, width) as annotations state it, as integers; None if these can be no image's."""
    whole = [int(side) for side in (height, width) if type(side) in (int, float) and 1 <= side <= LARGEST]
    return tuple(whole) if len(whole) == 2 else None


def a_number(value):
    """A float of an annotation; NaN if it is no number."""
    try:
        return float(value) if type(value) in (int, float) else np.nan
    except OverflowError:
        return np.nan


def four_numbers(values):
    """Four floats of an annotation; NaN for what is no number."""
    four = isinstance(values, list | tuple) and len(values) == 4
    return [a_number(value) for value in values] if four else [np.nan] * 4


def usable(boxes, sizes, places, defects):
    """Clip boxes to their images -> ((n, 4) float32, which of them can be used (n,) bool).

    Args:
        boxes: (n, 4) xyxy in pixels; sizes: (n, 2), height and width of each box's image.
        places: n texts, what each box is called in `defects`, which learns of all that is wrong.
    """
    boxes, sizes = np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(sizes, np.float64).reshape(-1, 2)
    with np.errstate(all="ignore"):
        clipped = np.clip(boxes, 0, sizes[:, [1, 0, 1, 0]]).astype(np.float32)
        faults = (  # the first that holds is said
            (NO_NUMBERS, ~np.isfinite(boxes).all(1)),
            (REVERSED, (boxes[:, 2:] < boxes[:, :2]).any(1)),
            (EMPTY, (boxes[:, 2:] == boxes[:, :2]).any(1)),
            (OUTSIDE, (clipped[:, 2:] <= clipped[:, :2]).any(1)),
            (CLIPPED, (np.abs(boxes - clipped) > SLACK).any(1)),
        )
    good = np.ones(len(boxes), bool)
    for row in np.flatnonzero(np.any([fault for _, fault in faults], 0)):
        kind = next(kind for kind, fault in faults if fault[row])
        defects.add(kind, places[row])
        good[row] = kind == CLIPPED
    return clipped, good
