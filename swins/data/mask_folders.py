"""Folders of images and of masks beside them: which belong together, what the masks have, and the Split of both.

An image and a mask belong together by the names below their folders, without endings. What is wrong is counted and
named, and left out: a mask of colours or of another size than its image, what has no partner, what cannot be read.
"""

import contextlib
import os
import pathlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from swins.data.class_masks import ClassMask, ColouredMaskError, contents, few, stated, stored_values
from swins.data.defects import Defects, stored_size
from swins.data.split import Split
from swins.devices import cores
from swins.errors import SwinsError, first_line
from swins.image_files import pillow, readable_endings
from swins.images import files_below

FILES = (".png", ".tif", ".tiff", ".bmp", ".gif")  # of masks
SUFFIXES = ("_mask", "_masks", "_label", "_labels", "_seg", "_gt", "_L", "-mask", "-label")  # behind an image's name

NO_MASK = "images without a mask, left out"
NO_IMAGE = "masks without an image, left out"
TWICE = "images of one name, of which the first is taken"
MASKED_TWICE = "masks of an image that has another, left out"
BROKEN_IMAGE = "images that cannot be read, left out"
BROKEN_MASK = "masks that cannot be read, left out"
COLOURED = (
    "masks of colours, not of class numbers, left out; write the numbers into grey or palette PNGs, as "
    "swins.data.class_masks.of_colours does"
)
LOSSY_FILE = "masks in formats that change class numbers, as JPEG, left out; save them as PNG"
OTHER_SIZE = "masks of another size than their image, left out; scale them to the nearest pixel, or mend the image"
TURNED = "masks of images that EXIF says are shown turned, left out; store both alike (PIL.ImageOps.exif_transpose)"
UNKNOWN = (
    "masks with values that are of no class, left out; name all classes, or set data.void, or data.reduce_zero_label "
    "where classes begin with 1"
)
EMPTY = "images without a pixel of a class, which are not trained on"


@dataclass(frozen=True)
class MaskFolders:
    """Where the images and the masks of a part of a data set are.

    image_end, mask_end: what all names that count end with, before the point and the format; it is none of the name.
    """

    images: pathlib.Path
    masks: pathlib.Path
    image_end: str = ""
    mask_end: str = ""


@dataclass(frozen=True, eq=False)
class Surveyed:
    """The images of a part that have a mask that can be read.

    rows: (name, image's path, mask's path, Contents); defects: what was left out; strays: files that are no images.
    """

    rows: tuple
    defects: Defects
    strays: tuple = ()

    def values(self) -> np.ndarray:
        """All values that masks have, sorted."""
        found = [row[3].values for row in self.rows]
        return np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)


def by_stem(folder, ending, formats):
    """{name below a folder, without ending and format: path} of its files; those of other formats; doubled ones."""
    files, strays, doubled = {}, [], []
    for path in files_below(folder):
        if path.suffix.lower() not in formats:
            strays.append(path)
        elif path.stem.endswith(ending):
            name = path.relative_to(folder).with_suffix("").as_posix().removesuffix(ending)
            if name in files:
                doubled.append(path)
            files.setdefault(name, path)
    return files, strays, doubled


def partner(name, images):
    """The name of the image that a mask's name belongs to: the same, or without one of SUFFIXES; None if none does."""
    shorter = [name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)]
    return next((other for other in (name, *shorter) if other in images), None)


def size_in_header(path):
    """(height, width) of an image's file, of which no pixel is read; None if it is none."""
    if os.path.isfile(path):  # a pipe would be waited for
        with contextlib.suppress(Exception), pillow().open(path) as image:  # whatever a file leads its readers to
            return image.height, image.width
    return None


def read(row):
    """(Size of an image, the Contents of its mask or an error) of (name, image, mask)."""
    _, image, mask = row
    try:
        found = contents(stored_values(mask))
    except SwinsError as error:
        found = error
    return size_in_header(image), found


def survey(part: MaskFolders) -> Surveyed:
    """Read all masks of a part, and the sizes of its images.

    Raises:
        SwinsError: if Pillow is missing.
    """
    known = readable_endings()
    defects = Defects(part.images.name if part.images.parent == part.masks.parent else part.masks.name)
    images, strays, doubled = by_stem(part.images, part.image_end, known)
    masks, others, spare = by_stem(part.masks, part.mask_end, FILES)
    for path in doubled:
        defects.add(TWICE, path.relative_to(part.images))
    lossy = {path.stem for path in others if path.suffix.lower() in known}
    for path in others:
        if path.suffix.lower() in known and not part.mask_end:
            defects.add(LOSSY_FILE, path.relative_to(part.masks))
    pairs = {}
    for name, path in sorted(masks.items(), key=lambda pair: pair[0] not in images):  # those of the same name first
        image = partner(name, images)
        if image is None:
            defects.add(NO_IMAGE, path.relative_to(part.masks))
        elif pairs.setdefault(image, path) != path:
            spare.append(path)
    for path in spare:
        defects.add(MASKED_TWICE, path.relative_to(part.masks))
    for name, path in images.items():
        if name not in pairs and pathlib.PurePath(name).name not in lossy:
            defects.add(NO_MASK, path.relative_to(part.images))
    rows = [(images[n].relative_to(part.images).as_posix(), images[n], mask) for n, mask in sorted(pairs.items())]
    with ThreadPoolExecutor(cores()) as pool:  # decoders leave Python's lock
        facts = list(pool.map(read, rows))
    good = [
        (*row, found) for row, (size, found) in zip(rows, facts, strict=True) if accepted(row, size, found, defects)
    ]
    return Surveyed(tuple(good), defects, tuple(strays))


def accepted(row, size, found, defects) -> bool:
    """Whether an image and its mask can be used; what is wrong is added to the defects."""
    name, image, mask = row
    if isinstance(found, ColouredMaskError):
        defects.add(COLOURED, name)
    elif isinstance(found, SwinsError):
        defects.add(BROKEN_MASK, first_line(found).replace(str(mask), name))
    elif size is None:
        defects.add(BROKEN_IMAGE, name)
    elif size != found.size:
        turned = size == found.size[::-1] and (stored_size(image) or (size, False))[1]
        defects.add(TURNED if turned else OTHER_SIZE, f"{name}: {stated(found.size)}, image {stated(size)}")
    else:
        return True
    return False


def split_of(name: str, surveyed: Surveyed, classes: tuple, table: np.ndarray) -> Split:
    """The Split of what was surveyed; masks with values that the table has no class for are left out."""
    defects, samples = surveyed.defects, []
    for row, image, path, found in surveyed.rows:
        mask = ClassMask(path, table, found)
        if len(unknown := mask.unknown()):
            defects.add(UNKNOWN, f"{row}: {few(unknown)}")
        else:
            samples.append((row, image, mask))
    return Split(name, samples, classes, surveyed.strays, defects.notes(), defects=defects.lines())


def with_classes(split: Split) -> Split:
    """A Split of those images that have a pixel to train on; the others are named in its notes."""
    if not isinstance(split.samples, list):
        return split
    count = len(split.classes)
    bare = [name for name, _, mask in split.samples if not mask.counts(count).any()]
    if not bare:
        return split
    defects = Defects(split.name)
    for name in bare:
        defects.add(EMPTY, name)
    samples = [sample for sample in split.samples if sample[2].counts(count).any()]
    notes, lines = (*split.notes, *defects.notes()), (*split.defects, *defects.lines())
    return replace(split, samples=samples, notes=notes, defects=lines)
