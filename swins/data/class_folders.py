"""A folder a class: alone, or below train/ and val/, as ImageNet and Places365 are."""

import itertools
import os
import pathlib

import numpy as np

from swins.data.matching import by_name, by_number, by_order
from swins.data.oddities import few
from swins.data.split import Split
from swins.errors import SwinsError
from swins.image_files import readable_endings
from swins.images import files_below

TRAINING, VALIDATION, TEST = ("train", "training"), ("val", "validation", "valid", "test"), ("test",)


def numbering(names):
    """The Numbering of class folders to train on: their names, if these are 0, 1, 2 ..., else their sorted place."""
    numbered = by_number(names, len(names))
    plain = numbered and set(names) == set(map(str, numbered.numbers))  # without zeros before them
    return numbered if plain else by_order(names, "sorted", choice=False)


def folders(folder):
    """Sub-folders that are not hidden, by class number; links are followed.

    Raises:
        SwinsError: for names that are no UTF-8: they would become names of classes.
    """
    found = [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]
    odd = [ascii(p.name) for p in found if any("\ud800" <= c <= "\udfff" for c in p.name)]
    if odd:
        raise SwinsError(f"{folder}: class folders must have names in UTF-8; {', '.join(odd[:5])} are not; rename them")
    numbers = numbering([p.name for p in found]).numbers
    return [path for _, path in sorted(zip(numbers, found, strict=True))]


def listed(classes, numbers=None):
    """(samples, strays) of class folders, but hidden files; numbers are the folders', by default their places.

    Files are images that Pillow knows by their endings; where there is none at all, NumPy's .npy.
    """
    known = readable_endings()
    samples, arrays, strays = [], [], []
    for c, number in zip(classes, range(len(classes)) if numbers is None else numbers, strict=True):
        above = os.path.realpath(c.parent)  # which a link must not lead back to
        for path in files_below(c, (above, *map(str, pathlib.Path(above).parents))):
            ending = path.suffix.lower()
            kind = samples if ending in known else arrays if ending == ".npy" else strays
            kind.append((str(path.relative_to(c.parent)), path, number))
    others = sorted(path for _, path, _ in (strays + arrays if samples else strays))
    return samples or arrays, tuple(others)


def notes_beside(folder):
    """A line on files that lie beside class folders, and so are of no class; hidden ones are not told."""
    names = sorted(path.name for path in folder.iterdir() if not path.is_dir() and not path.name.startswith("."))
    files = "1 file lies" if len(names) == 1 else f"{len(names)} files lie"
    return (f"{folder}: {files} beside the class folders, of no class, and left out: {few(names)}",) if names else ()


def parts(folder):
    """(training, validation) folders of a folder; None for what it lacks."""
    return tuple(next((folder / n for n in names if (folder / n).is_dir()), None) for names in (TRAINING, VALIDATION))


def from_folders(folder, training, validation):
    """ImageNet's and Places365's layout: a folder a class below both; validation must have no other classes."""
    held = from_validation_folder(folder, training, validation)
    found, strays = listed(folders(training))
    notes = (*numbering(held.classes).notes, *notes_beside(training))
    return Split(folder.name, found, held.classes, strays, notes), held


def from_validation_folder(folder, training, validation):
    """The validation Split of that layout; the training folder tells the classes, and its images are not listed."""
    names, others = tuple(c.name for c in folders(training)), folders(validation)
    whose, remedy = f"those of {training.name}", "move or rename them"
    matched = by_name(validation, [c.name for c in others], names, whose=whose, remedy=remedy)
    samples, strays = listed(others, matched.numbers)
    return Split(folder.name, samples, names, strays, (*matched.notes, *notes_beside(validation)))


def from_one_folder(folder, held_out, seed):
    """A folder a class, and no validation images: some of each class are held out, by the seed."""
    samples, strays = listed(folders(folder))
    names = tuple(c.name for c in folders(folder))
    kept, held = [], []
    for label, own in itertools.groupby(samples, key=lambda sample: sample[2]):  # they come class by class
        own = list(own)
        order = np.random.default_rng((seed, label)).permutation(len(own))
        count = max(1, round(held_out * len(own))) if len(own) > 1 else 0
        held += [own[i] for i in sorted(order[:count])]
        kept += [own[i] for i in sorted(order[count:])]
    notes = (*numbering(names).notes, *notes_beside(folder))
    return Split(folder.name, kept, names, strays, notes), Split(folder.name, held, names)
