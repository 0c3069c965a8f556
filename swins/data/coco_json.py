"""COCO JSON: annotations/instances_*.json beside folders of images, or a file among the images, as Roboflow writes it.

Known folders: annotations/instances_train*.json, or annotations/train.json, with images in train2017/, images/train/,
images/ ...; train/_annotations.coco.json with images beside it; and a file alone, whose images are held out for
validation: annotations/instances_default.json (CVAT), _annotations.coco.json, annotations.json, result.json (Label
Studio), labels.json (FiftyOne). Nothing of a file is executed, and no file outside the data set's folder is opened.

A box is COCO's: left, top, width, height in pixels, the right edge being left + width. Boxes are of images of the size
that the JSON states; `Objects.fitted` brings them to that of the file.
"""

import collections
import functools
import json
import os
import pathlib

import numpy as np

from swins.data.class_folders import TEST, TRAINING, VALIDATION
from swins.data.defects import (
    NO_FILE,
    NO_SIZE,
    TWICE,
    UNKNOWN_CLASS,
    UNKNOWN_IMAGE,
    Defects,
    a_number,
    four_numbers,
    inside,
    is_text,
    stated_size,
    stored_size,
    usable,
)
from swins.data.objects import Objects
from swins.data.segmentations import usable_masks
from swins.data.split import Split
from swins.errors import SwinsError, first_line

ROBOFLOW = "_annotations.coco.json"
ALONE = ("annotations/instances_default.json", ROBOFLOW, "annotations.json", "result.json", "labels.json")
LISTS = ("images", "annotations", "categories")
LOOKED_FOR = 50  # images, that tell which folder has them


def coco_parts(folder: pathlib.Path) -> tuple:
    """JSON files of the images (to train on, to validate on, to test on) of a folder; None for what it lacks.

    Raises:
        SwinsError: if there are several for one of these.
    """
    parts = [file_of(folder, words) for words in (TRAINING, VALIDATION, TEST)]
    if not any(parts):
        parts[0] = next((folder / name for name in ALONE if (folder / name).is_file()), None)
    return tuple(parts)


def file_of(folder, words):
    """The JSON of the first of the words that has one: train2017 is of train."""
    for word in words:
        files = sorted((folder / "annotations").glob(f"instances_{word}*.json"))
        if len(files) > 1:
            names = ", ".join(path.name for path in files)
            raise SwinsError(f"{folder}: annotations must be in one file for {word}; got {names}; leave one there")
        files += [folder / "annotations" / f"{word}.json", folder / word / ROBOFLOW]
        if chosen := next((path for path in files if path.is_file()), None):
            return chosen
    return None


def load(path):
    """The facts of a JSON of COCO. Raises SwinsError if it is none."""
    try:
        facts = json.loads(path.read_bytes().decode("utf-8-sig"))
        if not isinstance(facts, dict):
            raise ValueError(f"its content is a {type(facts).__name__}")
        if wrong := [name for name in LISTS if not isinstance(facts.get(name), list)]:
            raise ValueError(f"it has no list of {' and '.join(wrong)}")
        if bare := [name for name in LISTS if not all(isinstance(entry, dict) for entry in facts[name])]:
            raise ValueError(f"its {' and '.join(bare)} are no objects with fields")
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise SwinsError(f"{path}: not COCO's JSON of objects ({first_line(error)}); export it again") from error
    return facts


def key(number):
    """An id of COCO's, integer or text; None for what can be none."""
    if type(number) is float and number.is_integer():
        return int(number)
    return number if type(number) is int or is_text(number) else None


def require_once(path, what, numbers):
    """Raise SwinsError for ids that are none or are there twice."""
    if None in numbers:
        raise SwinsError(f"{path}: {what} need an id, a whole number or text; number {numbers.index(None)} has none")
    if len(set(numbers)) < len(numbers):
        twice = [str(number) for number, count in collections.Counter(numbers).items() if count > 1]
        raise SwinsError(f"{path}: {what} need ids of their own; shared: {', '.join(twice[:5])}; mend the file")


def categories_of(path, facts, defects):
    """{category's id: its name} in the file's order.

    Of categories of one name the one that objects have is kept: Roboflow's first is often none but the project's name.

    Raises:
        SwinsError: for categories that are none.
    """
    entries = facts["categories"]
    numbers, names = [key(entry.get("id")) for entry in entries], [entry.get("name") for entry in entries]
    require_once(path, "categories", numbers)
    if not names or not all(map(is_text, names)):
        raise SwinsError(f"{path}: every category needs a name, a text; got {names!r:.100}; mend the file")
    if len(set(names)) == len(names):
        return dict(zip(numbers, names, strict=True))
    used = {key(entry.get("category_id")) for entry in facts["annotations"]}
    kept = {}
    for number, name in sorted(zip(numbers, names, strict=True), key=lambda pair: pair[0] not in used):
        if name in kept and number in used:
            raise SwinsError(f"{path}: categories need names of their own; {kept[name]} and {number} are both {name!r}")
        if name in kept:
            defects.add("categories without objects whose name another has, left out", f"{number} ({name})")
        kept.setdefault(name, number)
    return {number: name for number, name in zip(numbers, names, strict=True) if kept[name] == number}


def images_folder(folder, path, names):
    """The folder that has a JSON's images: the one with most of the first. Raises SwinsError if none has any."""
    word = path.stem.removeprefix("instances_")
    words = dict.fromkeys((word, word.rstrip("0123456789"), path.parent.name))
    places = [path.parent, *(folder / name for name in words), *(folder / "images" / name for name in words)]
    places += [*(folder / name / "images" for name in words), folder / "images", folder / "data", folder]
    few = names[:LOOKED_FOR]
    counts = [sum(os.path.isfile(place / name) for name in few) for place in places]
    if few and not max(counts):
        looked = ", ".join(dict.fromkeys(f"{place.relative_to(folder)}" for place in places if place.is_dir()))
        raise SwinsError(f"{path}: none of its images is there, such as {few[0]}; looked for in {folder}: {looked}")
    return places[counts.index(max(counts))]


def images_of(folder, path, facts, defects):
    """{image's id: (name, path, (height, width))} of the images that have a file, and the set of all ids."""
    entries = facts["images"]
    numbers = [key(entry.get("id")) for entry in entries]
    require_once(path, "images", numbers)
    names = [inside(path, entry.get("file_name")) for entry in entries]
    place = images_folder(folder, path, names)
    listing = functools.cache(lambda parent: set(os.listdir(parent)) if os.path.isdir(parent) else set())
    images = {}
    for number, name, entry in zip(numbers, names, entries, strict=True):
        file = place / name
        if file.name not in listing(file.parent):
            defects.add(NO_FILE, name)
            continue
        size = stated_size(entry.get("height"), entry.get("width"))
        if size is None:
            size = (stored_size(file) or (None,))[0]
        if size is None:
            defects.add(NO_SIZE, name)
        else:
            images[number] = name, file, size
    return images, set(numbers)


def from_coco(folder: pathlib.Path, path: pathlib.Path, masks: bool = False) -> Split:
    """The Split of a JSON of COCO; its classes are the names of the file's categories, in the file's order.

    Args:
        folder: of the data set; path: of the JSON, in it; masks: whether the objects have masks.

    Raises:
        SwinsError: if it is no such JSON, an id is missing or there twice, a file's name leads out of the folder, or no
            image is there.
    """
    facts, defects = load(path), Defects(path.name)
    categories = categories_of(path, facts, defects)
    images, listed = images_of(folder, path, facts, defects)
    labels = {number: label for label, number in enumerate(categories)}
    places = {number: place for place, number in enumerate(images)}
    rows, seen = [], set()
    for number, entry in enumerate(facts["annotations"]):
        own, image, category = (key(entry.get(name)) for name in ("id", "image_id", "category_id"))
        name = f"annotation {number if own is None else own}"
        if own is not None and own in seen:
            defects.add(TWICE, name)
        seen.add(own)
        if image not in listed:
            defects.add(UNKNOWN_IMAGE, name)
        elif category not in labels:
            defects.add(UNKNOWN_CLASS, f"{name}, category {category}")
        elif image in images:
            rows.append((places[image], labels[category], name, entry))
    rows.sort(key=lambda row: row[0])
    samples = collected(list(images.items()), rows, masks, defects)
    return Split(
        name=folder.name,
        samples=samples,
        classes=tuple(categories.values()),
        notes=defects.notes(),
        category_ids=tuple(categories),
        defects=defects.lines(),
    )


def collected(images, rows, masks, defects):
    """Samples of images (id, (name, path, size)) and of rows (place of the image, label, name, annotation), sorted."""
    owners, labels = (np.array([row[column] for row in rows], np.int64) for column in (0, 1))
    boxes = np.array([four_numbers(entry.get("bbox")) for *_, entry in rows], np.float64).reshape(-1, 4)
    with np.errstate(over="ignore", invalid="ignore"):
        boxes[:, 2:] += boxes[:, :2]
    sizes = np.array([size for _, (_, _, size) in images], np.int64).reshape(-1, 2)
    names = [f"{images[owner][1][0]}, {name}" for owner, _, name, _ in rows]
    boxes, good = usable(boxes, sizes[owners], names, defects)
    crowd = np.array([bool(entry.get("iscrowd")) for *_, entry in rows], bool)
    area = np.array([a_number(entry.get("area")) for *_, entry in rows], np.float64)
    measured = np.prod(boxes[:, 2:].astype(np.float64) - boxes[:, :2], 1)
    area = np.where(np.isfinite(area) & (area >= 0), area, measured)
    bounds = np.searchsorted(owners, np.arange(len(images) + 1))
    samples = []
    if masks:
        used = np.flatnonzero(good)
        entries = [rows[i][3].get("segmentation") for i in used]
        segments, bare = usable_masks(entries, boxes[used], sizes[owners[used]], [names[i] for i in used], defects)
        crowd[used] |= bare
        segments = dict(zip(used.tolist(), segments, strict=True))
    for place, (number, (name, path, size)) in enumerate(images):
        own = np.arange(*bounds[place : place + 2])
        own = own[good[own]]
        kept = tuple(segments[i] for i in own.tolist()) if masks else None
        objects = Objects(boxes[own], labels[own], crowd[own], area[own], size, number, kept)
        samples.append((name, path, objects))
    return samples
