"""The layouts that detection data sets have: each finds the parts of a folder, and reads one as a Split.

What a row says is in DetectionLayout; `register_detection_layout` adds one from elsewhere.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from swins.data.coco_json import coco_parts, from_coco
from swins.data.folder_parts import by_part, chosen, held, listed, named_after, places_in, recognised, with_images
from swins.data.garment_objects import PREFIX, from_garments
from swins.data.matching import listing
from swins.data.run_parts import divided_by_run, require_part
from swins.data.split import Split
from swins.data.voc_xml import from_voc, voc_parts
from swins.data.yolo_txt import from_yolo, yolo_parts
from swins.errors import SwinsError

WORDS = "images with boxes", "images with boxes"  # what errors say is given, and wanted


@dataclass(frozen=True)
class DetectionLayout:
    """How a detection data set lies in a folder.

    words: what it is, for the error where no layout fits.
    parts: folder -> (what to train on, to validate on, to test on), as `read` takes them; None for what it lacks.
    read: (folder, one of the parts, whether objects have masks) -> Split whose samples are (name, image, Objects).
    """

    words: str
    parts: Callable[[pathlib.Path], tuple]
    read: Callable[[pathlib.Path, object, bool], Split]


DETECTION_LAYOUTS = [  # the first that has a part of a folder reads it
    DetectionLayout("COCO's annotations/instances_*.json beside folders of images", coco_parts, from_coco),
    DetectionLayout("Pascal VOC's XML", voc_parts, from_voc),
    DetectionLayout("images/ and labels/ with data.yaml or classes.txt, as YOLO's", yolo_parts, from_yolo),
]


def register_detection_layout(layout: DetectionLayout) -> None:
    """Add a layout, which is asked before all others."""
    DETECTION_LAYOUTS.insert(0, layout)


def find_detection_splits(
    source: str | pathlib.Path, held_out: float = 0.1, seed: int = 0, masks: bool = False
) -> tuple[Split, Split]:
    """Recognise a detection data set -> (Split to train on, Split to validate on), both of the first's classes.

    Args:
        source: a folder in a layout of DETECTION_LAYOUTS, or "garments:FOLDER".
        held_out: part of the images that is kept for validation where the data set has none.
        seed: which images those are.
        masks: whether objects have masks; those without one that can be used are as crowds.

    Raises:
        SwinsError: if it is none of these, has no image or no object to train on, no image to validate on, a class to
            validate on that is none to train on, or no masks, and they are asked for.
    """
    if str(source).startswith(PREFIX):
        return from_garments(str(source).removeprefix(PREFIX), masks)
    folder, layout, (training, validation, _) = recognised(source, DETECTION_LAYOUTS, *WORDS)
    if training is None:
        raise SwinsError(f"{source}: has images to validate on and none to train on; add these")
    training = usable(source, layout.read(folder, training, masks), "train", masks)
    counts = object_counts(training)
    if not counts.any():
        raise SwinsError(f"{source}: needs objects to train on; got none that can be used{listed(training)}")
    if validation is None:
        training, validation = held(source, training, held_out, seed)
    else:
        validation = usable(source, layout.read(folder, validation, masks), "validate", masks)
        validation = of_classes(validation, training.classes, "those to train on")
        ids = free_ids(validation.category_ids, training.category_ids)
        validation = dataclasses.replace(validation, category_ids=ids)
    counts = object_counts(training)
    if bare := [name for name, count in zip(training.classes, counts, strict=True) if not count]:
        note = f"classes without objects to train on, {len(bare)} of {len(counts)}: {listing(bare)}"
        training = dataclasses.replace(training, notes=(*training.notes, note))
    return training, validation


def find_evaluation_split(
    source: str | pathlib.Path,
    classes: tuple = (),
    masks: bool = False,
    part: str | None = None,
    of_run: Callable[[str], Split] | None = None,
) -> Split:
    """Recognise a detection data set -> the Split that models are scored on: its validation images, else all it has.

    Args:
        source: as for `find_detection_splits`.
        classes: names of a model's classes, with which the data's are matched; () for the data's own.
        masks: whether objects have masks, as for `find_detection_splits`.
        part: "train", "val" or "test", for these images and no others; the Split is named after it.
        of_run: gives "train" or "val" of a run, where the data has no validation images of its own and the run held
            some out, as `parts_of_run`; None without a run.

    Raises:
        SwinsError: if it is no such data set, lacks that part, has objects of a class that the model has not, or no
            masks, and they are asked for.
    """
    require_part(part)
    if str(source).startswith(PREFIX):
        split = chosen(source, by_part(from_garments(str(source).removeprefix(PREFIX), masks)), part)
        if classes and tuple(classes) != split.classes:
            raise SwinsError(f"{source}: classes must be the model's; got {listing(split.classes)}; take other data")
        return split
    folder, layout, parts = recognised(source, DETECTION_LAYOUTS, *WORDS)
    known = by_part(parts)
    if divided_by_run(part, known, of_run):
        split = of_run(part)
    else:
        split = usable(source, layout.read(folder, chosen(source, known, part), masks), "evaluate", masks)
    split = named_after(split, known, part)
    if not classes:
        return split
    split = of_classes(split, tuple(classes), "the model's")
    return dataclasses.replace(split, category_ids=free_ids(split.category_ids))


def usable(source, split, work, masks) -> Split:
    """The Split. Raises SwinsError if it has no image, or is asked for masks and of a format that has none."""
    with_images(source, split, work)
    if masks and any(objects.masks is None for *_, objects in split.samples):
        raise SwinsError(
            f"{source}: needs masks to {work} on, which its format has none of; take a model of boxes alone, or COCO's "
            "JSON or YOLO's polygons"
        )
    return split


def object_counts(split: Split) -> np.ndarray:
    """How many objects to train on each class has, (classes,) integers, crowds not among them."""
    labels = [objects.training().labels for *_, objects in split.samples]
    return np.bincount(np.concatenate([np.zeros(0, np.int64), *labels]), minlength=len(split.classes))


def of_classes(split, classes, whose) -> Split:
    """A Split whose labels are places in other classes, and whose category_ids are its own for these, else None.

    Classes that no object is of need no match.

    Args:
        classes: names; whose: they are, for the error.
    """
    own = split.classes
    if own == classes:
        return split
    counts = np.bincount(
        np.concatenate([np.zeros(0, np.int64), *(objects.labels for *_, objects in split.samples)]), minlength=len(own)
    )
    labels, notes = places_in(split, counts, classes, whose, "rename them, or leave them out")
    ids = [None] * len(classes)
    for place, label in enumerate(labels.tolist()):
        if label >= 0:
            ids[label] = split.category_ids[place] if split.category_ids else place
    samples = [(name, image, objects.renumbered(labels)) for name, image, objects in split.samples]
    notes = (*split.notes, *notes)
    return dataclasses.replace(split, samples=samples, classes=classes, notes=notes, category_ids=tuple(ids))


def free_ids(ids, others=()) -> tuple:
    """Category ids with numbers for those that are None: others' at the same place if nobody has them, else new."""
    ids = list(ids)
    for place, number in enumerate(ids):
        if number is None:
            wish = others[place] if place < len(others) else None
            taken = {*ids, None}
            largest = max((n for n in (*ids, *others) if isinstance(n, int)), default=0)
            ids[place] = largest + 1 if wish in taken else wish
    return tuple(ids)
