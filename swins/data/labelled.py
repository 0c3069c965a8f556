"""Labelled images to evaluate on: those of swins.data.layouts' layouts, and folders with a CSV of labels."""

import csv
import dataclasses
import itertools
import os
import pathlib
import re
from dataclasses import dataclass

from swins.data.class_folders import TEST, TRAINING, VALIDATION, folders, listed, notes_beside, parts
from swins.data.layouts import TEST_ALONE, find_splits, holds_out, validation_of
from swins.data.matching import ORDERS, Numbering, by_name, by_number, by_order, listing, read_names
from swins.data.oddities import notes_on_files, rows_of
from swins.data.run_parts import PARTS, part_of_run
from swins.data.split import require_label
from swins.data.tfds import Stored, sample_of
from swins.errors import SwinsError, first_line, missing_package
from swins.images import open_image, planes, read_idx
from swins.labels import LISTS, synonyms, table

LABEL_COLUMNS = ("label", "imagenet_class_index", "class_index", "class", "target")
FIRST = 10  # samples, of which one that can be read tells the channels
FILE_COLUMNS = ("file", "filename", "image", "path")


@dataclass(frozen=True)
class Dataset:
    """A name, how many samples, and an iterable of (sample name, image, label); image is a path, bytes or an array.

    strays: files that are no images by their endings, and left out. notes: lines on what was taken for what.
    count_scored: how many of them a results table counts; None where some have no label.
    """

    name: str
    count: int
    samples: object
    strays: tuple = ()
    notes: tuple = ()
    count_scored: int | None = -1

    def __post_init__(self):
        if self.count_scored == -1:
            object.__setattr__(self, "count_scored", self.count)


@dataclass(frozen=True)
class Classes:
    """A model's classes: how many, their names where they are known, and the order that was asked for.

    order: "natural" or "sorted" order of the data's class folders, or a file of the model's names (`read_names`); None
    matches the folders with the names.
    """

    count: int
    names: tuple = ()
    order: str | None = None


def named(folder, table=None):
    """What tells a folder from others in a results table: its name, and its parent's where many have the name."""
    folder = pathlib.Path(os.path.abspath(folder))  # which keeps the name of a link
    many = folder.name in {*TRAINING, *VALIDATION, "images"} or folder.name.isdecimal()
    name = f"{folder.parent.name}/{folder.name}" if many else folder.name
    name = os.fsencode(name).decode("utf-8", "backslashreplace")  # tables are UTF-8
    return f"{name}:{table.name}" if table and os.path.abspath(table) != str(folder / "labels.csv") else name


def require_classes(source, found, num_classes):
    """Raise SwinsError unless a data set has as many classes as the model."""
    if found != num_classes:
        raise SwinsError(
            f"{source}: classes must be as many as the model's; got {found} and {num_classes}; "
            "for a part of the classes name the folders as the model's, or give a CSV of labels"
        )


def class_numbers(source, names, classes, own_order=False):
    """The Numbering of a data set's class names for a model -> its numbers, and what is to be said of them.

    By name where the model's are known, or are ImageNet's and the data's are synsets; else by the numbers that the
    names are; else, if they are as many as the model's, in their sorted order, or their own where the data has one.

    Raises:
        SwinsError: for names that cannot be matched, or another count.
    """
    known, order = classes.names, classes.order
    if order in ORDERS:
        require_classes(source, len(names), classes.count)
        return by_order(names, order, choice=False)
    if order:
        known = read_names(order)
        require_classes(order, len(known), classes.count)
    elif not known and classes.count in LISTS and all(re.fullmatch(r"n\d{8}", name) for name in names):
        known = tuple(row[0] for row in table(LISTS[classes.count]))
    numbered = by_number(names, classes.count)
    if numbered and not any(name.isdecimal() for name in known):
        return numbered
    if known:
        remedy = "rename them, or say which order the model's are in: --class-order natural, sorted or a FILE of names"
        return by_name(source, names, known, synonyms(known), remedy=remedy)
    require_classes(source, len(names), classes.count)
    if own_order:
        note = f"the names of the model's classes are not known; they are taken to be, in this order, {listing(names)}"
        return Numbering(tuple(range(len(names))), (note,))
    return by_order(names, "sorted")


def from_idx(folder, images, num_classes):
    """The test split of an IDX data set, such as Fashion-MNIST."""
    labels = images.with_name(images.name.replace("images-idx3", "labels-idx1"))
    pixels, classes = read_idx(images), read_idx(labels)
    if len(pixels) != len(classes):
        raise SwinsError(f"{folder}: images and labels must be as many; got {len(pixels)} and {len(classes)}")
    require_classes(folder, int(classes.max()) + 1 if len(classes) else 0, num_classes)
    rows = ((f"{images.name}[{i}]", pixels[i], int(classes[i])) for i in range(len(pixels)))
    return Dataset(named(folder), len(pixels), rows)


def from_class_folders(folder, paths, classes):
    """One sub-folder per class."""
    found = class_numbers(folder, [path.name for path in paths], classes)
    samples, strays = listed(paths, found.numbers)
    notes = (*found.notes, *notes_beside(folder), *notes_on_files(samples))
    return Dataset(named(folder), len(samples), samples, strays, notes)


def from_split(folder, split, classes):
    """A Split of swins.data.layouts."""
    found = class_numbers(folder, split.classes, classes, own_order=not isinstance(split.samples, list))
    samples = checked(folder, (split[i] for i in range(len(split))), found.numbers)
    notes = (*split.notes, *found.notes, *notes_on_files(rows_of(split)))
    return Dataset(split.name, len(split), samples, split.strays, notes)


def from_csv(folder, table, num_classes):
    """Rows of file name and class number; names are relative to the folder or its images/."""
    with open(table, newline="", encoding="utf-8-sig") as file:
        try:
            reader = csv.DictReader(file)
            columns, lines = reader.fieldnames or [], list(reader)
        except (csv.Error, UnicodeDecodeError) as error:
            raise SwinsError(f"{table}: not a CSV in UTF-8 ({error})") from error
    name = next((c for c in FILE_COLUMNS if c in columns), None)
    label = next((c for c in LABEL_COLUMNS if c in columns), None)
    if not (name and label):
        raise SwinsError(
            f"{table}: needs a column of {', '.join(FILE_COLUMNS)} and one of {', '.join(LABEL_COLUMNS)}; "
            f"got {', '.join(columns) or 'no header'}"
        )
    rows = [(row[name], row[label]) for row in lines]
    empty = [i for i, (f, _) in enumerate(rows) if not f]
    if empty:
        raise SwinsError(f"{table}: every row must name a file; row {empty[0] + 2} does not")
    wrong = [f"{f}: {n!r}" for f, n in rows if not re.fullmatch("[0-9]+", n or "") or int(n) >= num_classes]
    if wrong:
        raise SwinsError(
            f"{table}: labels must be integers from 0 to {num_classes - 1}; "
            f"{len(wrong)} are not: {'; '.join(wrong[:5])}"
        )
    base = next((f for f in (folder, folder / "images") if any((f / name).is_file() for name, _ in rows)), folder)
    return Dataset(named(folder, table), len(rows), ((f, base / f, int(n)) for f, n in rows))


def checked(source, samples, numbers):
    """Samples with the model's numbers in place of the data's. Raises SwinsError for a label that is no class."""
    for name, image, label in samples:
        require_label(source, name, label, len(numbers))
        yield name, image, numbers[label]


def from_tfds(name, classes, data_dir=None):
    """tensorflow-datasets' validation split (test, where there is none), undecoded. It must have been prepared."""
    try:
        import tensorflow_datasets as tfds
    except ModuleNotFoundError as error:
        raise missing_package("tfds:...", "tensorflow-datasets", "datasets") from error
    try:
        builder = tfds.builder(name, data_dir=data_dir)
        split = next((s for s in VALIDATION if s in builder.info.splits), "validation")
        decoders = {"image": tfds.decode.SkipDecoding()}
        if builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD:
            stored = Stored(builder.as_data_source(split, decoders=decoders))
            count, samples = len(stored), map(stored.__getitem__, range(len(stored)))
        else:
            data = builder.as_dataset(split=split, decoders=decoders)
            count, samples = int(data.cardinality()), itertools.starmap(sample_of, enumerate(data.as_numpy_iterator()))
    except (tfds.core.DatasetNotFoundError, AssertionError, ValueError, OSError) as error:
        raise SwinsError(f"tfds:{name}: {first_line(error)}; prepare it with tensorflow-datasets first") from error
    found = class_numbers(f"tfds:{name}", builder.info.features["label"].names, classes, own_order=True)
    return Dataset(name, count, checked(f"tfds:{name}", samples, found.numbers), (), found.notes)


def require_channels(split, channels):
    """Raise SwinsError, before a run has a folder, if the first image that can be read is not of so many channels."""
    for i in range(min(len(split), FIRST)):
        name, image, _ = split[i]
        try:
            opened = open_image(image)
        except SwinsError:
            continue
        try:
            planes(opened, channels)
        except SwinsError as error:
            raise SwinsError(f"{split.name}: {name}: {error}") from error
        return


def require_source(source):
    """Raise SwinsError unless it is a folder or tensorflow-datasets'."""
    if not (str(source).startswith("tfds:") or pathlib.Path(source).is_dir()):
        raise SwinsError(f"{source}: no such folder; give a folder of images or tfds:imagenet2012")


def find_part(source, part, classes, path=None, training=None) -> Dataset:
    """One part of a source of labelled images: its own, or, where it has no validation images, a training run's.

    Args:
        source: as for `find_dataset`, or "idx_test:FOLDER", as a run takes it.
        part: "train", "val" or "test".
        classes: the model's Classes.
        path: of the model; training: what the run that made it says, None where it is none's.

    Raises:
        SwinsError: if it has no such part.
    """
    if not str(source).startswith(TEST_ALONE):
        require_source(source)
    folder = pathlib.Path(source)
    if holds_out(source):
        split = part_of_run(source, part, path, training, find_splits)
    elif part == "test":
        place = next((folder / name for name in TEST if (folder / name).is_dir()), None)
        if not (place and folders(place)):
            raise SwinsError(f"{source}: has no test images in folders of classes; choose train or val")
        return from_class_folders(place, folders(place), classes)
    else:
        own = validation_of(folder) if part == "val" and folder.is_dir() else None
        split = own or find_splits(source)[PARTS.index(part)]
    name = named(folder) if folder.is_dir() else split.name
    return dataclasses.replace(from_split(source, split, classes), name=f"{name}/{part}")


def find_dataset(source, num_classes, labels=None, names=(), order=None):
    """Recognise a source of labelled images -> Dataset.

    Args:
        source: a folder with one sub-folder per class, with images and a labels CSV, or of a layout of swins.data,
            whose validation images are taken; or "tfds:imagenet2012".
        num_classes: classes of the model; names: theirs, where they are known.
        labels: the CSV, when it is not SOURCE/labels.csv.
        order: of class folders, as in Classes; None for what the names tell.

    Raises:
        SwinsError: if there are no labelled images, or their classes are not the model's.
    """
    require_source(source)
    classes = Classes(num_classes, tuple(names), order)
    if str(source).startswith("tfds:"):
        return from_tfds(str(source).removeprefix("tfds:"), classes)
    folder = pathlib.Path(source)
    rows = pathlib.Path(labels) if labels else folder / "labels.csv"
    if labels and not rows.is_file():
        raise SwinsError(f"{rows}: no such CSV of labels")
    idx = sorted(folder.glob("*images-idx3-ubyte.gz"))
    if order and (rows.is_file() or idx):
        raise SwinsError(f"--class-order is of class folders; {rows if rows.is_file() else idx[0]} has class numbers")
    if rows.is_file():
        dataset = from_csv(folder, rows, num_classes)
    elif idx:
        dataset = from_idx(folder, idx[0], num_classes)
    elif split := validation_of(folder):
        dataset = from_split(folder, split, classes)
    elif (training := parts(folder)[0]) and folders(training):
        raise SwinsError(
            f"{source}: has {training.name}/ and no validation images; to score the former, give {training}"
        )
    elif paths := folders(folder):
        dataset = from_class_folders(folder, paths, classes)
    else:
        raise SwinsError(
            f"{source}: has neither class folders, nor labels.csv, nor IDX files; give a table with --labels"
        )
    if not dataset.count:
        raise SwinsError(f"{source}: holds no labelled images")
    return dataset
