"""Pascal VOC's XML: Annotations/, JPEGImages/ and ImageSets/Main/, or images and an XML for each in one folder.

Coordinates stay as they are written, as in torchvision and most programs: xmin, ymin, xmax, ymax are taken as left,
top, right and bottom in pixels. VOC's own count pixels from 1 and include the last: its boxes are a pixel short at the
left and the top, as everybody's who reads them so.

Objects marked as difficult are as COCO's crowds: neither trained on nor counted as missed. XML is read without document
types, so that no entity is expanded; no file outside the data set's folder is opened.
"""

import contextlib
import os
import pathlib
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

from swins.data.class_folders import TEST, TRAINING, VALIDATION
from swins.data.defects import (
    DIFFICULT,
    NO_ANNOTATION,
    NO_FILE,
    NO_SIZE,
    Defects,
    four_numbers,
    inside,
    stated_size,
    stored_size,
    usable,
)
from swins.data.objects import Objects
from swins.data.split import Split
from swins.errors import SwinsError, first_line
from swins.image_files import readable_endings

SETS = "ImageSets/Main"
ANNOTATIONS, IMAGES = ("Annotations", "annotations"), ("JPEGImages", "images", "Images")
CORNERS = ("xmin", "ymin", "xmax", "ymax")
LARGEST = 2**24  # bytes of an XML


def home(folder):
    """The folder that has Annotations/: itself, or the one year's in a VOCdevkit."""
    years = [path for path in sorted(folder.glob("VOC*")) if (path / ANNOTATIONS[0]).is_dir()]
    if any((folder / name).is_dir() for name in ANNOTATIONS) or not years:
        return folder
    if len(years) > 1:
        raise SwinsError(f"{folder}: holds {', '.join(path.name for path in years)}; give the folder of one of them")
    return years[0]


def one_of(folder, names):
    """The first of some folders that is in another, or the other itself."""
    return next((folder / name for name in names if (folder / name).is_dir()), folder)


def has_xml(folder):
    """Whether a folder has XML files itself."""
    return folder.is_dir() and any(path.suffix.lower() == ".xml" for path in folder.iterdir())


def voc_parts(folder: pathlib.Path) -> tuple:
    """(To train on, to validate on, to test on): lists of names, ImageSets/Main/*.txt, or folders of XML; or None.

    train.txt and val.txt if both are there, else trainval.txt and test.txt.
    """
    folder = home(folder)
    lists = {path.stem: path for path in sorted((folder / SETS).glob("*.txt"))}
    if "train" in lists and "val" in lists:
        return lists["train"], lists["val"], lists.get("test")
    training, validation = (lists.get(a, lists.get(b)) for a, b in (("trainval", "train"), ("test", "val")))
    if training or validation:
        return training, validation, lists.get("test")
    for below in ("", *ANNOTATIONS):
        parts = [
            next((place for name in words if has_xml(place := folder / below / name)), None)
            for words in (TRAINING, VALIDATION, TEST)
        ]
        if any(parts):
            return tuple(parts)
    whole = one_of(folder, ANNOTATIONS)
    return (whole if has_xml(whole) else None), None, None


def parsed(path):
    """The root element of an XML file. Raises SwinsError for other files, and for any document type."""

    def refuse(*_):
        raise ValueError("it has a document type, which could define entities")

    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = builder.data, refuse
    try:
        if not path.is_file():
            raise ValueError("it is not a regular file")
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it has more than {LARGEST} bytes")
        parser.Parse(path.read_bytes(), True)
        root = builder.close()
    except (expat.ExpatError, AssertionError, LookupError, OSError, ValueError) as error:
        raise SwinsError(f"{path}: not an XML of annotations ({first_line(error)}); export it again") from error
    if root.tag != "annotation":
        raise SwinsError(f"{path}: an XML of VOC begins with annotation; got {root.tag:.50}")
    return root


def number(element, name):
    """The number in a child of an element; NaN if there is none."""
    with contextlib.suppress(ValueError):
        return float((element.findtext(name) if element is not None else None) or "nan")
    return float("nan")


class Pictures:
    """Images of a folder, by their names and by their names without endings."""

    def __init__(self, folder):
        known = readable_endings()
        names = [name for name in sorted(os.listdir(folder)) if os.path.splitext(name)[1].lower() in known]
        self.folder, self.names = folder, set(names)
        self.stems = {os.path.splitext(name)[0]: name for name in names}

    def of(self, xml, root):
        """The image of an XML, a path or None: the one that is named as the XML, else the one that it names."""
        if xml.stem in self.stems:
            return self.folder / self.stems[xml.stem]
        stated = (root.findtext("filename") or "").strip() or xml.stem
        name = os.path.basename(inside(xml, stated))
        return self.folder / name if name in self.names else None


def xml_files(folder, part, defects):
    """XML files of a list of names or of a folder. Raises SwinsError for a name that leads out of the folder."""
    if part.is_dir():
        return sorted(path for path in part.iterdir() if path.suffix.lower() == ".xml")
    try:
        lines = [line.split() for line in part.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise SwinsError(f"{part}: a list of names must be UTF-8 ({first_line(error)}); save it as such") from error
    annotations, paths = one_of(folder, ANNOTATIONS), []
    for name in dict.fromkeys(inside(part, line[0]) for line in lines):
        path = annotations / f"{name}.xml"
        if os.path.isfile(path):
            paths.append(path)
        else:
            defects.add(NO_ANNOTATION, name)
    return paths


def images_folder(folder, part):
    """The folder with the images of a list or a folder of XML: JPEGImages/, images/ or images/train/, or beside."""
    if not part.is_dir():
        return one_of(folder, IMAGES)
    if part.name in ANNOTATIONS:
        return one_of(part.parent, IMAGES)
    if part.parent.name in ANNOTATIONS:
        return one_of(one_of(part.parent.parent, IMAGES), (part.name,))
    return part


def from_voc(folder: pathlib.Path, part: pathlib.Path, masks: bool = False) -> Split:
    """The Split of a list or a folder of XML; its classes are the names that objects have, sorted. VOC has no masks.

    Raises:
        SwinsError: if an XML is none, or a name leads out of the folder.
    """
    folder, defects = home(folder), Defects(part.name)
    pictures = Pictures(images_folder(folder, part))
    rows, used = [], set()
    for path in xml_files(folder, part, defects):
        root = parsed(path)
        picture = pictures.of(path, root)
        if picture is None:
            defects.add(NO_FILE, path.name)
            continue
        used.add(picture.name)
        stated = root.find("size")
        size = stated_size(number(stated, "height"), number(stated, "width")) or (stored_size(picture) or (None,))[0]
        if size is None:
            defects.add(NO_SIZE, picture.name)
        else:
            rows.append((picture, size, *objects_of(path.name, root, size, defects)))
    if part.is_dir() and (part.name in ANNOTATIONS or part.name == pictures.folder.name):
        for name in sorted(pictures.names - used):
            defects.add(NO_ANNOTATION, name)
    classes = sorted({name for *_, names, _, _ in rows for name in names})
    places = {name: place for place, name in enumerate(classes)}
    samples = []
    for picture, size, names, boxes, difficult in rows:
        labels = [places[name] for name in names]
        area = np.prod(boxes[:, 2:].astype(np.float64) - boxes[:, :2], 1)
        samples.append((picture.name, picture, Objects(boxes, labels, difficult, area, size, picture.stem)))
    return Split(
        name=folder.name,
        samples=samples,
        classes=tuple(classes),
        notes=defects.notes(),
        category_ids=tuple(range(1, len(classes) + 1)),
        defects=defects.lines(),
    )


def objects_of(name, root, size, defects):
    """(Names of classes, boxes (n, 4) float32, difficult (n,) bool) of an XML."""
    entries = [(place, entry) for place, entry in enumerate(root.findall("object"), 1)]
    named = [(place, entry, (entry.findtext("name") or "").strip()) for place, entry in entries]
    for place, _, text in named:
        if not text:
            defects.add("objects without a class, left out", f"{name}, object {place}")
    named = [row for row in named if row[2]]
    boxes = [four_numbers([number(entry.find("bndbox"), corner) for corner in CORNERS]) for _, entry, _ in named]
    places = [f"{name}, object {place}" for place, *_ in named]
    boxes, good = usable(boxes, np.tile(size, (len(named), 1)), places, defects)
    difficult = np.array([number(entry, "difficult") == 1 for _, entry, _ in named], bool)
    for place in np.flatnonzero(difficult & good):
        defects.add(DIFFICULT, places[place])
    return [row[2] for row, use in zip(named, good, strict=True) if use], boxes[good], difficult[good]
