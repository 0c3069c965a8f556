"""What layouts of detection and of segmentation have in common: a folder is recognised by the parts that it has, one of
them is chosen, images are held out of it, and its classes are matched with others."""

import dataclasses
import pathlib

import numpy as np

from swins.data.matching import by_name
from swins.data.run_parts import PARTS
from swins.data.split import Split
from swins.errors import SwinsError


def recognised(source, layouts, given: str, wanted: str) -> tuple:
    """(Folder, its layout, its parts): what to train, to validate and to test on, None for what it lacks.

    Args:
        source: the folder.
        layouts: that may be its own, each with `parts` and `words`; the first that has a part of it is.
        given: what to give, in an error; wanted: what a folder of none of them does not hold.

    Raises:
        SwinsError: if it is no folder, or of none of these layouts.
    """
    folder = pathlib.Path(source)
    if not folder.is_dir():
        raise SwinsError(f"{source}: no such folder; give a folder of {given} or garments:FOLDER")
    for layout in layouts:
        parts = layout.parts(folder)
        if any(part is not None for part in parts):
            return folder, layout, parts
    *others, last = [layout.words for layout in layouts]
    raise SwinsError(f"{source}: holds no {wanted}: it needs {', '.join(others)}, or {last}")


def by_part(parts) -> dict:
    """{"train", "val" or "test": what it is} of the parts of a data set, in this order, that are there."""
    return {name: place for name, place in zip(PARTS, parts, strict=False) if place is not None}


def chosen(source, known: dict, part: str | None):
    """Of {name of a part: what it is} the one that is asked for, or the first that models are scored on."""
    if part and part not in known:
        raise SwinsError(f"{source}: has no {part} images; it has those of {' and '.join(known)}")
    return known[part or scored(known)]


def scored(known: dict) -> str:
    """The name of the part that models are scored on where none is asked for."""
    return next(name for name in ("val", "train", "test") if name in known)


def named_after(split: Split, known: dict, part: str | None) -> Split:
    """A Split whose name says its part, where one was asked for or there are several."""
    if not part and len(known) < 2:
        return split
    return dataclasses.replace(split, name=f"{split.name}/{part or scored(known)}")


def listed(split: Split) -> str:
    """What was wrong with a Split's annotations, for the end of an error."""
    return f" ({'; '.join(split.notes)})" if split.notes else ""


def with_images(source, split: Split, work: str) -> Split:
    """The Split. Raises SwinsError if it has no image."""
    if not len(split):
        raise SwinsError(f"{source}: needs images to {work} on; got none that can be used{listed(split)}")
    return split


def held(source, split: Split, held_out: float, seed: int) -> tuple[Split, Split]:
    """A Split as two, of other images: the second has a part of them, which a seed draws."""
    if len(split) < 2:
        raise SwinsError(f"{source}: needs two images, one to train and one to validate on; got {len(split)}")
    count = min(max(1, round(held_out * len(split))), len(split) - 1)
    places = set(np.random.default_rng(seed).permutation(len(split))[:count].tolist())
    parts = [[s for i, s in enumerate(split.samples) if (i in places) is second] for second in (False, True)]
    note = f"{count} of {len(split)} images are held out to validate on (data.held_out={held_out:g})"
    return dataclasses.replace(split, samples=parts[0], notes=(*split.notes, note)), dataclasses.replace(
        split, samples=parts[1], notes=(), defects=()
    )


def places_in(split: Split, counts, classes: tuple, whose: str, remedy: str) -> tuple[np.ndarray, tuple]:
    """The place of each of a Split's classes in others, -1 for one that nothing is of, and lines on the matching.

    Args:
        split: the Split; counts: how much is of each of its classes; those that nothing is of need no match.
        classes: names; whose: they are, for the error; remedy: what to do.

    Raises:
        SwinsError: as `by_name` does.
    """
    needed = [place for place, name in enumerate(split.classes) if counts[place] or name in classes]
    matched = by_name(split.name, [split.classes[place] for place in needed], classes, whose=whose, remedy=remedy)
    labels = np.full(len(split.classes), -1)
    labels[needed] = matched.numbers
    return labels, matched.notes
