"""Data sets in the layouts that people have: class folders, Tiny ImageNet, CIFAR-10, IDX, tensorflow-datasets.

A Split is a sequence of (name, image, label); image is a path, bytes or a uint8 array.
"""

import hashlib
import itertools
import json
import os
import pathlib
from dataclasses import dataclass

import numpy as np

from swins.data.matching import by_name, by_number, by_order
from swins.errors import SwinsError, first_line
from swins.images import files_below, pillow, read_idx

TRAINING, VALIDATION = ("train", "training"), ("val", "validation", "valid", "test")
ANNOTATIONS = "val/val_annotations.txt"  # Tiny ImageNet's
TRAIN_BATCHES, TEST_BATCH = "data_batch_*.bin", "test_batch.bin"  # CIFAR-10's
CIFAR_BYTES = 1 + 3 * 32 * 32  # of a record of CIFAR-10's binary files
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class Split:
    """Samples that can be read in any order; strays are files that are no images by their names.

    notes: lines on what was taken for what, such as the order of the classes.
    """

    name: str
    samples: object
    classes: tuple
    strays: tuple = ()
    notes: tuple = ()

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]

    def digest(self):
        """A short digest of names and labels, as far as they are known without reading the samples."""
        known = [(name, label) for name, _, label in self.samples] if isinstance(self.samples, list) else []
        text = json.dumps([self.classes, known, getattr(self.samples, "labels", np.zeros(0)).tolist()])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class Arrays:
    """Samples from arrays: images (N, H, W[, C]) uint8, labels (N,)."""

    def __init__(self, name, images, labels):
        self.name, self.images, self.labels = name, images, labels

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return f"{self.name}[{index}]", self.images[index], int(self.labels[index])


def require_label(source, name, label, num_classes):
    """Raise SwinsError for a label that is none of the classes."""
    if not 0 <= label < num_classes:
        raise SwinsError(
            f"{source}: labels must be from 0 to {num_classes - 1}; {name} has {label}; mend it, or take other data"
        )


def require_truth(split, name, truth):
    """Raise SwinsError for a class number that is none of a Split's classes; other truths are their task's to check."""
    if split.classes and isinstance(truth, int):
        require_label(split.name, name, truth, len(split.classes))


class Stored:
    """Samples of a data set that tensorflow-datasets prepared for random access."""

    def __init__(self, source):
        self.source = source

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        return sample_of(index, self.source[index])


def sample_of(index, row):
    """(name, image, label) of a row of tensorflow-datasets."""
    return os.fsdecode(row["file_name"]) if "file_name" in row else str(index), row["image"], int(row["label"])


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
    known = pillow().registered_extensions()
    samples, arrays, strays = [], [], []
    for c, number in zip(classes, range(len(classes)) if numbers is None else numbers, strict=True):
        above = os.path.realpath(c.parent)  # which a link must not lead back to
        for path in files_below(c, (above, *map(str, pathlib.Path(above).parents))):
            ending = path.suffix.lower()
            kind = samples if ending in known else arrays if ending == ".npy" else strays
            kind.append((str(path.relative_to(c.parent)), path, number))
    others = sorted(path for _, path, _ in (strays + arrays if samples else strays))
    return samples or arrays, tuple(others)


def from_folders(folder, training, validation):
    """ImageNet's and Places365's layout: a folder a class below both; validation must have no other classes."""
    held = from_validation_folder(folder, training, validation)
    found, strays = listed(folders(training))
    return Split(folder.name, found, held.classes, strays, numbering(held.classes).notes), held


def from_validation_folder(folder, training, validation):
    """The validation Split of that layout; the training folder tells the classes, and its images are not listed."""
    names, others = tuple(c.name for c in folders(training)), folders(validation)
    whose, remedy = f"those of {training.name}", "move or rename them"
    matched = by_name(validation, [c.name for c in others], names, whose=whose, remedy=remedy)
    samples, strays = listed(others, matched.numbers)
    return Split(folder.name, samples, names, strays, matched.notes)


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
    return Split(folder.name, kept, names, strays, numbering(names).notes), Split(folder.name, held, names)


def from_tiny_imagenet(folder):
    """Tiny ImageNet as it is published: train/WNID/images, and val/images with labels in val_annotations.txt."""
    classes = folders(folder / "train")
    names = tuple(c.name for c in classes)
    samples, strays = listed(classes)
    table = folder / ANNOTATIONS
    rows = [line.split("\t") for line in table.read_text().splitlines() if line]
    wrong = [row[0] for row in rows if len(row) < 2 or row[1] not in names]
    if wrong:
        raise SwinsError(f"{table}: rows are FILE, CLASS, ..., of train's classes; {len(wrong)} are not: {wrong[:3]}")
    numbers = {name: i for i, name in enumerate(names)}
    held = [(row[0], folder / "val" / "images" / row[0], numbers[row[1]]) for row in rows]
    return Split(folder.name, samples, names, strays, numbering(names).notes), Split(folder.name, held, names)


def from_cifar(folder, files):
    """Files of CIFAR-10's binary version, as one Split. Its pickles are never opened."""
    records = np.concatenate([np.zeros(0, "uint8"), *(np.fromfile(path, "uint8") for path in files)])
    if not len(records) or len(records) % CIFAR_BYTES:
        raise SwinsError(f"{folder}: *_batch*.bin must hold records of {CIFAR_BYTES} bytes; got {len(records)} bytes")
    records = records.reshape(-1, CIFAR_BYTES)
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Split("cifar10", Arrays("cifar10", images, records[:, 0]), CIFAR_CLASSES)


def from_idx(folder):
    """MNIST's and Fashion-MNIST's files: train-* and t10k-*."""

    def read(part):
        images = read_idx(folder / f"{part}-images-idx3-ubyte.gz")
        labels = read_idx(folder / f"{part}-labels-idx1-ubyte.gz")
        if len(images) != len(labels):
            raise SwinsError(f"{folder}: images and labels must be as many; got {len(images)} and {len(labels)}")
        return Arrays(part, images, labels)

    training, validation = read("train"), read("t10k")
    names = tuple(str(i) for i in range(int(max(training.labels, default=-1)) + 1))
    bare = sorted(set(range(len(names))) - set(training.labels.tolist()))
    if bare:
        raise SwinsError(
            f"{folder}: labels must be 0 to the largest, each with images; the largest is {len(names) - 1}, and "
            f"{len(bare)} have none: {', '.join(map(str, bare[:5]))}; mend the labels"
        )
    return Split(folder.name, training, names), Split(folder.name, validation, names)


def from_tfds(name):
    """tensorflow-datasets, prepared as array_record files, whose samples can be read in any order."""
    try:
        import tensorflow_datasets as tfds
    except ModuleNotFoundError as error:
        raise SwinsError("tfds:... needs tensorflow-datasets: pip install 'swins[datasets]'") from error
    remedy = f"prepare it: tfds build {name} --file_format=array_record"
    try:
        builder = tfds.builder(name, file_format="array_record")
        decoders = {"image": tfds.decode.SkipDecoding()}
        held = next((s for s in VALIDATION if s in builder.info.splits), None)
        if "train" not in builder.info.splits or held is None:
            raise SwinsError(f"tfds:{name}: needs a split train and one of {', '.join(VALIDATION)}; {remedy}")
        classes = tuple(builder.info.features["label"].names)
        parts = [builder.as_data_source(split, decoders=decoders) for split in ("train", held)]
    except (
        tfds.core.DatasetNotFoundError,
        AssertionError,
        ValueError,
        OSError,
        NotImplementedError,
        KeyError,
    ) as error:
        if isinstance(error, SwinsError):
            raise
        raise SwinsError(f"tfds:{name}: {first_line(error)}; {remedy}") from error
    return tuple(Split(name, Stored(part), classes) for part in parts)


def parts(folder):
    """(training, validation) folders of a folder; None for what it lacks."""
    return tuple(next((folder / n for n in names if (folder / n).is_dir()), None) for names in (TRAINING, VALIDATION))


def validation_of(folder):
    """The validation Split of a folder whose layout has one, but for IDX files; None for other layouts."""
    training, validation = parts(folder)
    if (folder / TEST_BATCH).is_file():
        return from_cifar(folder, [folder / TEST_BATCH])
    if training and (folder / ANNOTATIONS).is_file():
        return from_tiny_imagenet(folder)[1]
    return from_validation_folder(folder, training, validation) if training and validation else None


def left_out(source, strays):
    """A line about files that are no images."""
    few = ", ".join([*map(str, strays[:3]), *["..."] * (len(strays) > 3)])
    return f"left out of {source}, no images by their endings: {len(strays)} ({few})"


def find_splits(source, held_out=0.1, seed=0):
    """Recognise a data set -> (Split to train on, Split to validate on).

    Args:
        source: a folder with train/ and val/ of class folders (ImageNet, Places365), or of class folders alone; Tiny
            ImageNet's; CIFAR-10's binary files; IDX files; or "tfds:NAME".
        held_out: part of each class that is kept for validation where there are class folders alone.
        seed: which images those are.

    Raises:
        SwinsError: if it is none of these, is empty, has fewer than two classes, a class without images to train on, or
            a label that is no class.
    """
    folder = pathlib.Path(source)
    if str(source).startswith("tfds:"):
        found = from_tfds(str(source).removeprefix("tfds:"))
    elif not folder.is_dir():
        raise SwinsError(f"{source}: no such folder; give a folder of images or tfds:NAME")
    else:
        training, validation = parts(folder)
        if training and (folder / ANNOTATIONS).is_file():
            found = from_tiny_imagenet(folder)
        elif (folder / TEST_BATCH).is_file():
            found = tuple(
                from_cifar(folder, files) for files in (sorted(folder.glob(TRAIN_BATCHES)), [folder / TEST_BATCH])
            )
        elif (folder / "train-images-idx3-ubyte.gz").is_file():
            found = from_idx(folder)
        elif training and validation:
            found = from_folders(folder, training, validation)
        elif folders(folder):
            found = from_one_folder(training if training and folders(training) else folder, held_out, seed)
        else:
            raise SwinsError(
                f"{source}: holds no images to train on: it needs a folder a class, train/ and val/ of such, "
                "CIFAR-10's *.bin, IDX files, or Tiny ImageNet's layout"
            )
    for part, split in zip(("training", "validation"), found, strict=True):
        if not len(split):
            raise SwinsError(
                f"{source}: holds no {part} images; it needs images of a known ending, in a folder a class"
            )
        if isinstance(split.samples, Arrays):
            require_label(source, f"one of the {part} images", int(split.samples.labels.max()), len(split.classes))
        if isinstance(split.samples, Stored):  # others of its labels are seen when they are read
            name, _, label = split[0]
            require_label(source, name, label, len(split.classes))
    classes = found[0].classes
    if isinstance(found[0].samples, list):
        labels = {label for _, _, label in found[0].samples}
        bare = [name for label, name in enumerate(classes) if label not in labels]
        if bare:
            raise SwinsError(
                f"{source}: every class needs an image to train on; {len(bare)} have none: {', '.join(bare[:5])}; add "
                "images, or remove the folders"
            )
    if len(classes) < 2:
        raise SwinsError(f"{source}: a classifier needs at least two classes; got {len(classes)}: {', '.join(classes)}")
    return found
