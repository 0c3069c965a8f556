"""Labelled images to evaluate on: those of swins.datasets' layouts, and folders with a CSV of labels."""

import csv
import itertools
import os
import pathlib
import re
from dataclasses import dataclass

from swins.datasets import (
    TRAINING,
    VALIDATION,
    Stored,
    folders,
    listed,
    parts,
    require_label,
    sample_of,
    validation_of,
)
from swins.errors import SwinsError, first_line
from swins.images import read_idx

LABEL_COLUMNS = ("label", "imagenet_class_index", "class_index", "class", "target")
FILE_COLUMNS = ("file", "filename", "image", "path")


@dataclass(frozen=True)
class Dataset:
    """A name, how many samples, and an iterable of (sample name, image, label); image is a path, bytes or an array.

    strays: files that are no images by their endings, and left out.
    """

    name: str
    count: int
    samples: object
    strays: tuple = ()


def named(folder, table=None):
    """What tells a folder from others in a results table: its name, and its parent's where many have the name."""
    folder = pathlib.Path(os.path.abspath(folder))  # which keeps the name of a link
    many = folder.name in {*TRAINING, *VALIDATION, "images"} or folder.name.isdecimal()
    name = f"{folder.parent.name}/{folder.name}" if many else folder.name
    return f"{name}:{table.name}" if table and os.path.abspath(table) != str(folder / "labels.csv") else name


def require_classes(source, found, num_classes):
    """Raise SwinsError unless a data set has as many classes as the model."""
    if found != num_classes:
        raise SwinsError(
            f"{source}: classes must be as many as the model's; got {found} and {num_classes}; "
            "for a part of the classes give a CSV of labels"
        )


def from_idx(folder, images, num_classes):
    """The test split of an IDX data set, such as Fashion-MNIST."""
    labels = images.with_name(images.name.replace("images-idx3", "labels-idx1"))
    pixels, classes = read_idx(images), read_idx(labels)
    if len(pixels) != len(classes):
        raise SwinsError(f"{folder}: images and labels must be as many; got {len(pixels)} and {len(classes)}")
    require_classes(folder, int(classes.max()) + 1 if len(classes) else 0, num_classes)
    rows = ((f"{images.name}[{i}]", pixels[i], int(classes[i])) for i in range(len(pixels)))
    return Dataset(named(folder), len(pixels), rows)


def from_class_folders(folder, classes, num_classes):
    """One sub-folder per class."""
    require_classes(folder, len(classes), num_classes)
    samples, strays = listed(classes)
    return Dataset(named(folder), len(samples), samples, strays)


def from_split(folder, split, num_classes):
    """A Split of swins.datasets."""
    require_classes(folder, len(split.classes), num_classes)
    samples = checked(folder, (split[i] for i in range(len(split))), num_classes)
    return Dataset(split.name, len(split), samples, split.strays)


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


def checked(source, samples, num_classes):
    """Pass on samples, whose labels are known one by one only. Raises SwinsError for one that is no class."""
    for name, image, label in samples:
        require_label(source, name, label, num_classes)
        yield name, image, label


def from_tfds(name, num_classes, data_dir=None):
    """tensorflow-datasets' validation split (test, where there is none), undecoded. It must have been prepared."""
    try:
        import tensorflow_datasets as tfds
    except ModuleNotFoundError as error:
        raise SwinsError("tfds:... needs tensorflow-datasets: pip install 'swins[datasets]'") from error
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
    require_classes(f"tfds:{name}", builder.info.features["label"].num_classes, num_classes)
    return Dataset(name, count, checked(f"tfds:{name}", samples, num_classes))


def require_source(source):
    """Raise SwinsError unless it is a folder or tensorflow-datasets'."""
    if not (str(source).startswith("tfds:") or pathlib.Path(source).is_dir()):
        raise SwinsError(f"{source}: no such folder; give a folder of images or tfds:imagenet2012")


def find_dataset(source, num_classes, labels=None):
    """Recognise a source of labelled images -> Dataset.

    Args:
        source: a folder with one sub-folder per class, with images and a labels CSV, or of a layout that swins.datasets
            knows, whose validation images are taken; or "tfds:imagenet2012".
        num_classes: classes of the model.
        labels: the CSV, when it is not SOURCE/labels.csv.

    Raises:
        SwinsError: if there are no labelled images, or their classes are not the model's.
    """
    require_source(source)
    if str(source).startswith("tfds:"):
        return from_tfds(str(source).removeprefix("tfds:"), num_classes)
    folder = pathlib.Path(source)
    table = pathlib.Path(labels) if labels else folder / "labels.csv"
    if labels and not table.is_file():
        raise SwinsError(f"{table}: no such CSV of labels")
    idx = sorted(folder.glob("*images-idx3-ubyte.gz"))
    if table.is_file():
        dataset = from_csv(folder, table, num_classes)
    elif idx:
        dataset = from_idx(folder, idx[0], num_classes)
    elif split := validation_of(folder):
        dataset = from_split(folder, split, num_classes)
    elif (training := parts(folder)[0]) and folders(training):
        raise SwinsError(
            f"{source}: has {training.name}/ and no validation images; to score the former, give {training}"
        )
    elif classes := folders(folder):
        dataset = from_class_folders(folder, classes, num_classes)
    else:
        raise SwinsError(
            f"{source}: has neither class folders, nor labels.csv, nor IDX files; give a table with --labels"
        )
    if not dataset.count:
        raise SwinsError(f"{source}: holds no labelled images")
    return dataset
