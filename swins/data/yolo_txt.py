"""Ultralytics' folders for YOLO: images/train/, images/val/, and in labels/ a text for each image, a line an object.

A line is "class cx cy w h", relative to the image's width and height; or "class x1 y1 x2 y2 ...", a polygon, whose box
is taken. Names of classes are in data.yaml, of which nothing is executed, or a line each in classes.txt or obj.names.
Other folders: train/images/ and valid/images/ (Roboflow), obj_train_data/ (CVAT), images and texts in one folder; and
what data.yaml's train and val say, if it is in the data set's folder.

An image without a text has no objects. Boxes are of pixels as they are stored: EXIF's rotation is ignored.
"""

import contextlib
import os
import pathlib

import numpy as np

from swins.data.class_folders import TEST, TRAINING, VALIDATION
from swins.data.defects import NO_FILE, NO_SIZE, UNKNOWN_CLASS, Defects, inside, stored_size, usable
from swins.data.objects import Objects
from swins.data.segmentations import usable_masks
from swins.data.split import Split
from swins.data.yaml_names import read_yaml
from swins.errors import SwinsError, first_line
from swins.image_files import readable_endings
from swins.images import files_below

LISTS = ("classes.txt", "obj.names")
IMAGES, LABELS = "images", "labels"
ALONE = ("obj_train_data", "data/obj_train_data", IMAGES)
TURNED = "images that EXIF says are shown turned, taken as they are stored, as their boxes are"


def yaml_of(folder):
    """(path, {key: value}) of the first YAML in a folder that has names; (None, {}) where there is none."""
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in (".yaml", ".yml") and p.is_file()):
        facts = read_yaml(path)
        if "names" in facts:
            return path, facts
    return None, {}


def list_of(folder):
    """The file of class names, a line each, that is in a folder or where its labels are; None where there is none."""
    below = (folder, folder / LABELS, *(folder / LABELS / word for word in TRAINING), *(folder / w for w in TRAINING))
    return next((path for place in below for name in LISTS if (path := place / name).is_file()), None)


def class_names(folder):
    """{number: name} of a data set's classes, in the order of their numbers, which may have gaps.

    Raises:
        SwinsError: for what is no list of names.
    """
    path, facts = yaml_of(folder)
    names = facts.get("names")
    if path is None:
        path = list_of(folder)
        try:
            names = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
        except UnicodeDecodeError as error:
            raise SwinsError(f"{path}: names of classes must be UTF-8 ({first_line(error)}); save them so") from error
    if isinstance(names, list):
        names = {str(number): name for number, name in enumerate(names)}
    known = {int(n): name.strip() for n, name in names.items() if n.isdecimal()} if isinstance(names, dict) else {}
    if not (known and len(set(known.values())) == len(known) == len(names) and all(known.values())):
        raise SwinsError(f"{path}: names must be texts, a number of a class each, once; got {names!r:.100}; mend them")
    if str(count := facts.get("nc", len(known))) != str(len(known)):
        raise SwinsError(f"{path}: names must be as many as nc; got {len(known)} and {count}; mend it")
    return dict(sorted(known.items()))


def is_part(place):
    """Whether a folder or list has images with texts of labels."""
    if not place.is_dir():
        return place.is_file()
    return place.name == IMAGES or IMAGES in place.parts[-2:] or any(place.glob("*.txt"))


def stated(folder, path, facts, name):
    """What a data.yaml says are the images of "train" or "val": folders or lists in the data set's folder.

    Roboflow's begin with ../, which is left out, as Ultralytics does.

    Raises:
        SwinsError: for names that lead out of the folder, or are not there.
    """
    values = facts.get(name) or ()
    places = []
    for value in [values] if isinstance(values, str) else list(values):
        while value.startswith(("../", "./")):
            value = value.partition("/")[2]
        bases = (folder, folder / inside(path, facts["path"])) if is_below(facts.get("path")) else (folder,)
        relative = inside(path, value)
        place = next((base / relative for base in bases if os.path.exists(base / relative)), None)
        if place is None:
            raise SwinsError(f"{path}: {name} must be a folder or list of images in {folder}; got {value!r:.200}")
        places.append(place)
    return tuple(places)


def is_below(path):
    """Whether a data.yaml's path is a folder's name below its own."""
    return isinstance(path, str) and path != "" and not path.startswith(("/", "\\", "..", "~")) and ":" not in path


def usual(folder, words):
    """The folders with the images of the first of some words, where data sets usually have them."""
    for word in words:
        places = [path for path in sorted((folder / IMAGES).glob(f"{word}*")) if path.is_dir()]
        others = (folder / word / IMAGES, folder / f"{word}.txt", folder / word)
        places += [place for place in others if is_part(place)]
        if places:
            return (places[0],)
    return ()


def yolo_parts(folder: pathlib.Path) -> tuple:
    """Folders or lists of images (to train on, to validate on, to test on), tuples; None for what a folder lacks.

    Where they usually are, else where data.yaml says.
    """
    path, facts = yaml_of(folder)
    if path is None and list_of(folder) is None:
        return None, None, None
    parts = [usual(folder, words) or None for words in (TRAINING, VALIDATION, TEST)]
    for i, name in enumerate(("train", "val", "test")):
        with contextlib.suppress(*(SwinsError,) if name == "test" else ()):  # which many files state, and few bring
            parts[i] = parts[i] or (stated(folder, path, facts, name) if path else ()) or None
    if any(parts):
        return tuple(parts)
    alone = next((folder / name for name in ALONE if (folder / name).is_dir()), folder)
    return ((alone,) if is_part(alone) else None), None, None


def images_of(folder, place, known, defects):
    """Paths of the images in a folder, or that a list names. Raises SwinsError for a name that leads out."""
    if place.is_dir():
        return [path for path in files_below(place) if path.suffix.lower() in known]
    try:
        lines = place.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise SwinsError(f"{place}: a list of images must be UTF-8 ({first_line(error)}); save it as such") from error
    paths = []
    for name in dict.fromkeys(inside(place, line.strip()) for line in lines if line.strip()):
        names = (name, name.partition("/")[2])  # CVAT's begin with data/
        path = next((folder / n for n in names if n and os.path.isfile(folder / n)), None)
        if path is None:
            defects.add(NO_FILE, name)
        else:
            paths.append(path)
    return paths


def label_file(folder, image):
    """The text of an image: in labels/ in place of the last images/ of its path, else beside it; it may be missing."""
    parts = list(image.relative_to(folder).parts)
    if IMAGES in parts[:-1]:
        place = len(parts) - 2 - parts[-2::-1].index(IMAGES)
        path = folder.joinpath(*parts[:place], LABELS, *parts[place + 1 :]).with_suffix(".txt")
        if path.is_file():
            return path
    return image.with_suffix(".txt")


def from_yolo(folder: pathlib.Path, part: tuple, masks: bool = False) -> Split:
    """The Split of folders or lists of images. masks: whether objects keep their polygons.

    Raises:
        SwinsError: without names of classes, or for a name of a file that leads out of the folder.
    """
    classes, defects = class_names(folder), Defects(" and ".join(place.name for place in part))
    known = readable_endings()
    images = [path for place in part for path in images_of(folder, place, known, defects)]
    labels = {number: label for label, number in enumerate(classes)}
    samples, texts = [], set()
    for image in dict.fromkeys(images):
        name = image.relative_to(folder).as_posix()
        stored = stored_size(image)
        if stored is None:
            defects.add(NO_SIZE, name)
            continue
        size, turned = stored
        if turned:
            defects.add(TURNED, name)
        text = label_file(folder, image)
        texts.add(text)
        if not text.is_file():
            defects.add("images without a text of labels, taken to have no objects", name)
        rows = lines_of(text, labels, defects) if text.is_file() else []
        samples.append((name, image, objects_of(rows, size, name.rpartition(".")[0], masks, defects)))
    if all(place.is_dir() for place in part):
        others = {path for parent in {path.parent for path in texts} for path in parent.glob("*.txt")} - texts
        for text in sorted(path for path in others if path.name not in LISTS and path.parent != folder):
            defects.add("texts of labels whose image is missing, left out", text.relative_to(folder).as_posix())
    return Split(
        name=folder.name,
        samples=samples,
        classes=tuple(classes.values()),
        notes=defects.notes(),
        category_ids=tuple(classes),
        defects=defects.lines(),
    )


def lines_of(path, labels, defects):
    """[(place, label, four numbers cx, cy, w, h or a polygon's six and more)] of a text.

    labels: {number of a class: label}.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        defects.add("texts of labels that are no UTF-8, taken as empty", path.name)
        return []
    rows = []
    for count, line in enumerate(lines, 1):
        place = f"{path.name}, line {count}"
        try:
            number, *values = map(float, line.split() or ["0"])
        except ValueError:
            number, values = 0, ()
        if not line.strip():
            continue
        if not (len(values) == 4 or (len(values) >= 6 and len(values) % 2 == 0)):
            defects.add("lines that are no class and box or polygon, left out", place)
        elif number not in labels:
            defects.add(UNKNOWN_CLASS, f"{place}, class {number:g}")
        else:
            rows.append((place, labels[number], values))
    return rows


def objects_of(rows, size, image_id, masks, defects):
    """The Objects of `lines_of` for an image of (height, width)."""
    scale = np.array([size[1], size[0]], np.float64)
    boxes, polygons = [], []
    with np.errstate(all="ignore"):
        for _, _, values in rows:
            points = np.array(values, np.float64).reshape(-1, 2) * scale
            polygons.append([points.ravel().tolist()] if len(points) > 2 else None)
            centre = len(points) == 2
            low, high = (
                (points[0] - points[1] / 2, points[0] + points[1] / 2) if centre else (points.min(0), points.max(0))
            )
            boxes.append([*low, *high])
    sizes, places = np.tile(size, (len(rows), 1)), [place for place, *_ in rows]
    boxes, good = usable(boxes, sizes, places, defects)
    labels = np.array([label for _, label, _ in rows], np.int64)[good]
    area = np.prod(boxes[good, 2:].astype(np.float64) - boxes[good, :2], 1)
    kept, crowd = None, np.zeros(len(labels), bool)
    if masks:
        own = [(polygons[i], places[i]) for i in np.flatnonzero(good)]
        segments, crowd = usable_masks([a for a, _ in own], boxes[good], sizes[good], [b for _, b in own], defects)
        kept = tuple(segments)
    return Objects(boxes[good], labels, crowd, area, size, image_id, kept)
