"""Decoded images kept in memory, so that a file is opened and decoded once."""

import dataclasses
import threading

import numpy as np

from swins.data.split import Split
from swins.errors import SwinsError
from swins.images import open_image

MEGABYTE = 2**20
MODES = ("L", "RGB", "RGBA")  # of which an array is the same image


class Decoded:
    """Samples whose images are uint8 arrays as they were decoded, as many as fit into so many bytes.

    The first that are read are kept to the end: in a random order no other choice does better. What cannot be decoded
    is given as it is, so that who opens it tells of it. Several threads may read.
    """

    def __init__(self, samples, most):
        self.samples, self.most, self.bytes = samples, most, 0
        self.images, self.lock = {}, threading.Lock()

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        name, image, truth = self.samples[index]
        if isinstance(image, np.ndarray):
            return name, image, truth
        kept = self.images.get(index)
        if kept is None and self.bytes < self.most:
            kept = self.keep(index, image)
        return name, image if kept is None else kept, truth

    def keep(self, index, image):
        """The decoded image, remembered if there is room; None if an array would not be the same image."""
        try:
            opened = open_image(image)
        except SwinsError:
            return None
        if isinstance(opened, np.ndarray) or opened.mode not in MODES:
            return None
        pixels = np.asarray(opened)
        pixels.flags.writeable = False  # threads share it
        with self.lock:
            if index not in self.images and self.bytes + pixels.nbytes <= self.most:
                self.images[index] = pixels
                self.bytes += pixels.nbytes
        return pixels


def cached(split: Split, megabytes: float) -> Split:
    """A Split whose decoded images stay in memory, up to so many megabytes; the Split itself for 0.

    Its samples are read as before: order, names, truths and digest are the same.
    """
    if not megabytes:
        return split
    return dataclasses.replace(split, samples=Decoded(split.samples, int(megabytes * MEGABYTE)))
