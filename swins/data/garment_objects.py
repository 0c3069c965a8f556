"""Canvases of garments as a detection data set, drawn as they are read: nothing lies on the disk.

"garments:FOLDER", or with arguments of `Garments`, "garments:FOLDER,count=6000,size=96,scale=16-64,colour=False": a
range is two integers with a dash. count is of training canvases, of which there are a quarter as many to validate on.
"""

import ast
import dataclasses
import re

import numpy as np

from swins.data.garments import Garments
from swins.data.objects import Objects
from swins.data.segmentations import Bitmap
from swins.data.split import Split
from swins.errors import SwinsError, unknown_name

PREFIX = "garments:"
TRAINING = 2000  # canvases


class Canvases:
    """Samples of Garments. masks: whether objects have theirs; size: (height, width) of all images."""

    def __init__(self, garments, masks):
        self.garments, self.masks, self.size = garments, masks, garments.size

    def __len__(self):
        return len(self.garments)

    def __getitem__(self, index):
        canvas = self.garments[index]
        crowd = np.zeros(len(canvas.labels), bool)
        masks = tuple(map(Bitmap, canvas.masks)) if self.masks else None
        size = canvas.image.shape[:2]
        objects = Objects(canvas.boxes, canvas.labels, crowd, canvas.area, size, int(index) + 1, masks)
        return canvas.name, canvas.image, objects

    def digest(self):
        """A short digest of the canvases."""
        return self.garments.digest()


def arguments(text: str) -> tuple[str, dict]:
    """("FOLDER,name=value,...") -> (FOLDER, {name: value}). Raises SwinsError for what Garments does not take."""
    folder, *pairs = text.split(",")
    known = [field.name for field in dataclasses.fields(Garments) if field.name not in ("source", "split")]
    values = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name not in known:
            raise unknown_name("argument of garments", name, known)
        try:
            a_range = re.fullmatch(r"(\d+)-(\d+)", value)
            values[name] = tuple(map(int, a_range.groups())) if a_range else ast.literal_eval(value)
        except (ValueError, SyntaxError):
            values[name] = value  # a background's name
    return folder, values


def both_garments(text: str) -> tuple[Garments, Garments]:
    """Canvases (to train on, to validate on), whose garments come from a folder of Fashion-MNIST."""
    folder, values = arguments(text)
    training = values.pop("count", TRAINING)
    if not (isinstance(training, int) and training > 0):
        raise SwinsError(f"count must be an integer above 0; got {training!r}")
    counts = {"train": training, "val": max(1, training // 4)}
    return tuple(Garments(folder, part, count=count, **values) for part, count in counts.items())


def from_garments(text: str, masks: bool = False) -> tuple[Split, Split]:
    """(Split to train on, Split to validate on) of canvases, whose garments come from a folder of Fashion-MNIST."""
    splits = []
    for garments in both_garments(text):
        ids = tuple(range(1, len(garments.classes) + 1))  # as write_coco's
        name = f"garments_{garments.split}"
        splits.append(Split(name, Canvases(garments, masks), garments.classes, category_ids=ids))
    return tuple(splits)
