"""Canvases of garments as a segmentation data set, drawn as they are read: a class a pixel, background among them."""

import numpy as np

from swins.data.class_masks import ClassMask, contents, table_of
from swins.data.garment_objects import both_garments
from swins.data.garments import Garments
from swins.data.split import Split

BACKGROUND = "background"  # class 0


class SemanticCanvases:
    """Samples of Garments, whose truth is the ClassMask of a canvas. size: (height, width) of all images."""

    def __init__(self, garments: Garments):
        self.garments, self.size = garments, garments.size
        self.table = table_of({number: number for number in range(len(garments.classes) + 1)})

    def __len__(self):
        return len(self.garments)

    def __getitem__(self, index):
        canvas = self.garments[index]
        mask = ClassMask(canvas.semantic, self.table, contents(np.asarray(canvas.semantic)))
        return canvas.name, canvas.image, mask

    def digest(self):
        """A short digest of the canvases."""
        return self.garments.digest()


def semantic_garments(text: str) -> tuple[Split, Split]:
    """(Split to train on, Split to validate on) of canvases, of 11 classes; text: as swins.data.garment_objects'."""
    pairs = [(garments, (BACKGROUND, *garments.classes)) for garments in both_garments(text)]
    return tuple(Split(f"garments_{own.split}", SemanticCanvases(own), classes) for own, classes in pairs)
