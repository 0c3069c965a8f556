"""The layouts that segmentation data sets have: each finds the parts of a folder, and tells what the values mean.

What a row says is in SegmentationLayout; `register_segmentation_layout` adds one from elsewhere.
"""

import itertools
import pathlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from swins.data.class_folders import TEST, TRAINING, VALIDATION
from swins.data.class_masks import IGNORED, MOST_CLASSES, VALUES, few, table_of
from swins.data.class_weights import pixel_counts
from swins.data.folder_parts import by_part, chosen, held, named_after, places_in, recognised, with_images
from swins.data.garment_masks import semantic_garments
from swins.data.garment_objects import PREFIX
from swins.data.mask_folders import MaskFolders, split_of, survey, with_classes
from swins.data.matching import listing, spelling
from swins.data.run_parts import PARTS, divided_by_run, require_part
from swins.data.split import Split
from swins.errors import SwinsError, first_line
from swins.image_files import readable_endings
from swins.images import files_below
from swins.labels import ade20k_names
from swins.settings import Section, all_whole, setting

CAMVID = (
    *("sky", "building", "pole", "road", "pavement", "tree"),
    *("sign symbol", "fence", "car", "pedestrian", "bicyclist"),
)
CITYSCAPES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)  # of CITYSCAPES' classes
OTHER_IDS = tuple(sorted({*range(34), IGNORED} - {*LABEL_IDS}))  # of what is not scored
TRAIN_IDS, IDS = "_gtFine_labelTrainIds", "_gtFine_labelIds"
NAMES = "classes.txt"
IMAGES, MASKS = ("images", "JPEGImages", "imgs"), ("masks", "labels", "annotations", "SegmentationClass")
NUMBERED = "class {}"  # the name of a class that is known by its value alone
TWO = ("background", "foreground")  # of masks with 0 and 255 alone
WORDS = "images and masks", "images with masks"  # what errors say is given, and wanted


def class_list(names):
    """Whether a value is names of classes, each once."""
    texts = all(isinstance(name, str) and name.strip() for name in names)
    return texts and len(set(names)) == len(names) <= MOST_CLASSES


@dataclass(frozen=True)
class MaskValues(Section):
    """What the values of masks mean. None, and () for classes, is what the layout says.

    classes: names, in the order of their values from 0, or from 1 with reduce_zero_label. void: values that are of no
    class. reduce_zero_label: whether 0 is void too, and class 0 is 1 in the files, as in ADE20K.
    """

    classes: tuple = setting((), f"texts, each once, at most {MOST_CLASSES}", class_list)
    void: tuple | None = setting(
        None, f"integers from 0 to {VALUES - 1}", lambda v: v == () or (all_whole(v, 0) and max(v) < VALUES)
    )
    reduce_zero_label: bool | None = None


@dataclass(frozen=True)
class Meaning:
    """What a layout's values mean: names of classes, () if they are not known; values that are void; whether values
    begin with 1; the value of each class, where they are no such row."""

    classes: tuple = ()
    void: tuple = (IGNORED,)
    reduced: bool = False
    numbers: tuple = ()


@dataclass(frozen=True)
class SegmentationLayout:
    """How a segmentation data set lies in a folder.

    words: what it is, for the error where no layout fits.
    parts: folder -> the MaskFolders (to train on, to validate on, to test on); None for what it lacks.
    meaning: (folder, these parts) -> what the values mean.
    """

    words: str
    parts: Callable[[pathlib.Path], tuple]
    meaning: Callable[[pathlib.Path, tuple], Meaning]


def home(folder, name):
    """A folder in another by its name, if it is there, else the other."""
    return folder / name if (folder / name).is_dir() else folder


def both(images, masks, *ends):
    """The MaskFolders of two folders, None if one is missing."""
    return MaskFolders(images, masks, *ends) if images.is_dir() and masks.is_dir() else None


def names_of(folder) -> tuple:
    """The classes in a folder's classes.txt, a line each; () without one.

    Raises:
        SwinsError: for a file that is none.
    """
    path = folder / NAMES
    if not path.is_file():
        return ()
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").rstrip().splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise SwinsError(f"{path}: names of classes must be UTF-8 ({first_line(error)}); save them so") from error
    if not (names and class_list(names)):
        raise SwinsError(
            f"{path}: needs a name of a class a line, each once, at most {MOST_CLASSES}; got {names!r:.100}"
        )
    return names


def ade20k_parts(folder):
    """images/training and annotations/training, of ADE20K's scene parsing."""
    folder = home(folder, "ADEChallengeData2016")
    return *(both(folder / "images" / n, folder / "annotations" / n) for n in ("training", "validation")), None


def ade20k_meaning(folder, parts):
    """ADE20K's 150 classes, which begin with 1; others by a classes.txt."""
    names = names_of(home(folder, "ADEChallengeData2016")) or names_of(folder)
    return Meaning(names) if names else Meaning(ade20k_names(), reduced=True)


def camvid_parts(folder):
    """train and trainannot, and so on, of SegNet's CamVid."""
    folder = home(folder, "CamVid")
    return tuple(both(folder / name, folder / f"{name}annot") for name in PARTS)


def camvid_meaning(folder, parts):
    """CamVid's 11 classes, and 11 for what is of none; others by a classes.txt."""
    names = names_of(folder)
    return Meaning(names) if names else Meaning(CAMVID, void=(len(CAMVID), IGNORED))


def cityscapes_parts(folder):
    """leftImg8bit/train and gtFine/train, and so on; masks of trainIds if these are there, else of labelIds."""
    parts = [both(folder / "leftImg8bit" / name, folder / "gtFine" / name, "_leftImg8bit") for name in PARTS]
    known = [part for part in parts if part]
    reduced = any(path.stem.endswith(TRAIN_IDS) for part in known for path in files_below(part.masks))
    return tuple(part and replace(part, mask_end=TRAIN_IDS if reduced else IDS) for part in parts)


def cityscapes_meaning(folder, parts):
    """Cityscapes' 19 classes."""
    if any(part.mask_end == TRAIN_IDS for part in parts if part):
        return Meaning(CITYSCAPES)
    return Meaning(CITYSCAPES, void=OTHER_IDS, numbers=LABEL_IDS)


def with_files(part):
    """MaskFolders, None where no file of its masks is an image: YOLO's labels are texts."""
    known = readable_endings()
    return part if part and any(path.suffix.lower() in known for path in files_below(part.masks)) else None


def pair_parts(folder):
    """Folders of images and masks: images/train and masks/train, or train/images and train/masks, or without parts."""
    for a, b in itertools.product(IMAGES, MASKS):
        places = [
            [both(folder / a / n, folder / b / n) or both(folder / n / a, folder / n / b) for n in names]
            for names in (TRAINING, VALIDATION, TEST)
        ]
        parts = tuple(next(filter(None, map(with_files, own)), None) for own in places)
        if not any(parts):
            parts = with_files(both(folder / a, folder / b)), None, None
        if any(parts):
            return parts
    return None, None, None


def pair_meaning(folder, parts):
    """The classes of a classes.txt, in the folder or with the masks."""
    places = (folder, *(place for part in parts if part for place in (part.masks, part.masks.parent)))
    return Meaning(next(filter(None, map(names_of, places)), ()))


SEGMENTATION_LAYOUTS = [  # the first that has a part of a folder reads it
    SegmentationLayout("ADE20K's images/training and annotations/training", ade20k_parts, ade20k_meaning),
    SegmentationLayout("CamVid's train/ and trainannot/", camvid_parts, camvid_meaning),
    SegmentationLayout("Cityscapes' leftImg8bit/ and gtFine/", cityscapes_parts, cityscapes_meaning),
    SegmentationLayout("images/ and masks/, with or without train/ and val/ in them", pair_parts, pair_meaning),
]


def register_segmentation_layout(layout: SegmentationLayout) -> None:
    """Add a layout, which is asked before all others."""
    SEGMENTATION_LAYOUTS.insert(0, layout)


def stated_meaning(meaning: Meaning, values: MaskValues) -> Meaning:
    """What a layout says, but for what the settings say. Raises SwinsError for another number of classes."""
    reduced = values.reduce_zero_label
    if reduced is None:
        reduced = meaning.reduced and values.classes in ((), meaning.classes)
    if meaning.numbers and values.classes and len(values.classes) != len(meaning.classes):
        raise SwinsError(
            f"classes must be as many as the layout's, {len(meaning.classes)}; got {len(values.classes)}; rename them "
            "alone, or write masks of your own"
        )
    void = meaning.void if values.void is None else values.void
    if values.void is None and meaning.classes == CAMVID and len(values.classes) > len(CAMVID):
        void = (IGNORED,)  # what has no class in CamVid has one here
    return replace(meaning, classes=values.classes or meaning.classes, void=void, reduced=reduced)


def resolved(source, meaning: Meaning, found: np.ndarray, explicit: bool) -> tuple[tuple, np.ndarray, tuple]:
    """(Names of classes, table of values, notes) of a meaning and of the values that masks have.

    Args:
        found: sorted values; explicit: whether void values were stated by hand, so that 255 is not guessed to be one.
    """
    two = found.tolist() == [0, IGNORED] or (found.tolist() == [IGNORED] and meaning.classes == TWO)
    two = two and not explicit and not meaning.reduced
    if two and len(meaning.classes) in (0, 2) and not meaning.numbers:
        note = f"{source}: masks have 0 and {IGNORED} alone, which is taken as class 1; if it is void, set data.void"
        return meaning.classes or TWO, table_of({0: 0, IGNORED: 1}, ()), (note,)
    void = (*meaning.void, *((0,) if meaning.reduced else ()))
    notes, names, numbers = (), meaning.classes, meaning.numbers
    if not names:
        numbers = tuple(value for value in found.tolist() if value not in void)
        if len(numbers) > MOST_CLASSES:
            raise SwinsError(
                f"{source}: masks may have {MOST_CLASSES} classes; got {len(numbers)} values, {few(numbers)}; are they "
                "of instances, depths or colours? write class numbers, or name the classes"
            )
        names = tuple(NUMBERED.format(value) for value in numbers)
        notes = (f"{source}: classes are known by their values alone, {len(names)}: {listing(names)}",)
    if not numbers:
        own = [re.fullmatch(NUMBERED.format(r"(\d{1,5})"), name) for name in names]
        first = int(meaning.reduced)
        numbers = [int(match[1]) for match in own] if all(own) else range(first, first + len(names))
    return names, table_of({v: k for k, v in enumerate(numbers) if v < VALUES}, void), notes


def find_segmentation_splits(
    source: str | pathlib.Path, held_out: float = 0.1, seed: int = 0, values: MaskValues = MaskValues()
) -> tuple[Split, Split]:
    """Recognise a segmentation data set -> (Split to train on, Split to validate on), of the same classes.

    Samples are (name, image, ClassMask). All masks are read once: what cannot be used is left out, and named.

    Args:
        source: a folder in a layout of SEGMENTATION_LAYOUTS, or "garments:FOLDER".
        held_out: part of the images that is kept for validation where the data set has none.
        seed: which images those are.
        values: what the masks' values mean, where the layout does not say it.

    Raises:
        SwinsError: if it is none of these, or has no image to train on or none to validate on.
    """
    if str(source).startswith(PREFIX):
        refuse_values(source, values)
        return semantic_garments(str(source).removeprefix(PREFIX))
    folder, layout, parts = recognised(source, SEGMENTATION_LAYOUTS, *WORDS)
    if parts[0] is None:
        raise SwinsError(f"{source}: has images to validate on and none to train on; add these")
    surveyed = [survey(part) for part in parts[:2] if part]
    found = np.unique(np.concatenate([part.values() for part in surveyed]))
    meaning = stated_meaning(layout.meaning(folder, parts), values)
    classes, table, notes = resolved(source, meaning, found, values.void is not None)
    if len(classes) == 1:
        raise SwinsError(
            f"{source}: a segmenter needs at least two classes; got {classes[0]} alone; make background one"
        )
    splits = [split_of(folder.name, part, classes, table) for part in surveyed]
    training = with_images(source, with_classes(splits[0]), "train")
    if len(splits) > 1:
        validation = with_images(source, splits[1], "validate")
    else:
        training, validation = held(source, training, held_out, seed)
    counts = pixel_counts(training)
    if bare := [name for name, count in zip(classes, counts, strict=True) if not count]:
        notes += (f"classes without pixels to train on, {len(bare)} of {len(counts)}: {listing(bare)}",)
    return replace(training, notes=(*training.notes, *notes)), validation


def find_segmentation_split(
    source: str | pathlib.Path,
    classes: tuple = (),
    part: str | None = None,
    values: MaskValues = MaskValues(),
    of_run: Callable[[str], Split] | None = None,
) -> Split:
    """Recognise a segmentation data set -> the Split that models are scored on: its validation images, else all it has.

    Args:
        source, values: as for `find_segmentation_splits`; data that names all of values.classes has its own order of
            them.
        classes: names of a model's classes, with which the data's are matched; if these are not known, the values are
            numbers of the model's. () for the data's own.
        part: "train", "val" or "test", for these images and no others; the Split is named after it.
        of_run: gives "train" or "val" of a run, where the data has no validation images of its own and the run held
            some out, as `parts_of_run`; None without a run.

    Raises:
        SwinsError: if it is no such data set, lacks that part, or has pixels of a class that the model has not.
    """
    require_part(part)
    if str(source).startswith(PREFIX):
        refuse_values(source, values)
        known = by_part(semantic_garments(str(source).removeprefix(PREFIX)))
        return of_classes(chosen(source, known, part), classes)
    folder, layout, parts = recognised(source, SEGMENTATION_LAYOUTS, *WORDS)
    known = by_part(parts)
    if divided_by_run(part, known, of_run):
        split = of_run(part)
        return of_classes(named_after(split, known, part), tuple(classes))
    place = chosen(source, known, part)
    own = layout.meaning(folder, parts)
    if {*map(spelling, values.classes)} <= {*map(spelling, own.classes)}:  # the same, in the data's own order
        values = replace(values, classes=())
    meaning = stated_meaning(own, values)
    if not meaning.classes:
        meaning = replace(meaning, classes=tuple(classes))
    surveyed = survey(place)
    names, table, notes = resolved(source, meaning, surveyed.values(), values.void is not None)
    split = with_images(source, split_of(folder.name, surveyed, names, table), "evaluate")
    split = replace(split, notes=(*split.notes, *notes))
    return of_classes(named_after(split, known, part), tuple(classes))


def refuse_values(source, values):
    """Raise SwinsError for settings of masks that are drawn."""
    if values != MaskValues():
        raise SwinsError(f"{source}: classes, void and reduce_zero_label are of files of masks; leave them out")


def of_classes(split: Split, classes: tuple) -> Split:
    """A Split whose masks are of other classes, those of the same names; () for its own.

    Classes that no pixel is of need no match.
    """
    own = split.classes
    if not classes or own == tuple(classes):
        return split
    labels, notes = places_in(split, pixel_counts(split), classes, "the model's", "rename them in data.classes")
    if not isinstance(split.samples, list):
        raise SwinsError(f"{split.name}: classes must be the model's; got {listing(own)}; take other data")
    samples = [(name, image, mask.renumbered(labels)) for name, image, mask in split.samples]
    return replace(split, samples=samples, classes=tuple(classes), notes=(*split.notes, *notes))
