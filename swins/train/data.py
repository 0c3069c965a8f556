"""Labelled images to train on, in the layouts that people have, and batches of them whose order a seed determines.

A Split is a sequence of (name, image, label); image is a path, bytes or a uint8 array.
"""

import hashlib
import json
import os
import pathlib
import threading
from dataclasses import dataclass

import numpy as np

from swins.devices import ALONE
from swins.errors import SwinsError, first_line
from swins.evaluate.datasets import in_order
from swins.images import Preprocess, open_image, pillow, read_idx
from swins.train.augment import TrainTransform, mix, targets

TRAINING, VALIDATION = ("train", "training"), ("val", "validation", "valid", "test")
CIFAR_BYTES = 1 + 3 * 32 * 32  # of a record of CIFAR-10's binary files
MOST_UNREADABLE = 0.1  # of a data set; above it, something else is wrong


@dataclass(frozen=True)
class Split:
    """Samples that can be read in any order; strays are files that are no images by their names."""

    name: str
    samples: object
    classes: tuple
    strays: tuple = ()

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


class Stored:
    """Samples of a data set that tensorflow-datasets prepared for random access."""

    def __init__(self, source):
        self.source = source

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        row = self.source[index]
        name = row["file_name"].decode() if "file_name" in row else str(index)
        return name, row["image"], int(row["label"])


def folders(folder):
    """Sub-folders that are not hidden, by class number."""
    return in_order([p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")])


def listed(classes, names=None):
    """(samples, strays) of class folders; names are those of the classes that count, in order."""
    known = pillow().registered_extensions()
    numbers = {name: i for i, name in enumerate(names or [c.name for c in classes])}
    samples, strays = [], []
    for c in classes:
        for path in sorted(p for p in c.rglob("*") if p.is_file()):
            if path.suffix.lower() in known:
                samples.append((str(path.relative_to(c.parent)), path, numbers[c.name]))
            else:
                strays.append(path)
    return samples, tuple(strays)


def from_folders(folder, training, validation):
    """ImageNet's and Places365's layout: a folder a class below both; validation must have no other classes."""
    classes, others = folders(training), folders(validation)
    names = tuple(c.name for c in classes)
    unknown = [c.name for c in others if c.name not in names]
    if unknown:
        raise SwinsError(
            f"{validation}: classes must be those of {training.name}; "
            f"{len(unknown)} are not: {', '.join(unknown[:5])}; move or rename them"
        )
    found, strays = listed(classes)
    others, more = listed(others, names)
    return Split(folder.name, found, names, strays), Split(folder.name, others, names, more)


def from_one_folder(folder, held_out, seed):
    """A folder a class, and no validation images: some of each class are held out, by the seed."""
    samples, strays = listed(folders(folder))
    names = tuple(c.name for c in folders(folder))
    kept, held = [], []
    for label in range(len(names)):
        own = [sample for sample in samples if sample[2] == label]
        order = np.random.default_rng((seed, label)).permutation(len(own))
        count = max(1, round(held_out * len(own))) if len(own) > 1 else 0
        held += [own[i] for i in sorted(order[:count])]
        kept += [own[i] for i in sorted(order[count:])]
    return Split(folder.name, kept, names, strays), Split(folder.name, held, names, strays)


def from_tiny_imagenet(folder):
    """Tiny ImageNet as it is published: train/WNID/images, and val/images with labels in val_annotations.txt."""
    classes = folders(folder / "train")
    names = tuple(c.name for c in classes)
    samples, strays = listed(classes)
    table = folder / "val" / "val_annotations.txt"
    rows = [line.split("\t") for line in table.read_text().splitlines() if line]
    wrong = [row[0] for row in rows if len(row) < 2 or row[1] not in names]
    if wrong:
        raise SwinsError(f"{table}: rows are FILE, CLASS, ..., of train's classes; {len(wrong)} are not: {wrong[:3]}")
    numbers = {name: i for i, name in enumerate(names)}
    held = [(row[0], folder / "val" / "images" / row[0], numbers[row[1]]) for row in rows]
    return Split(folder.name, samples, names, strays), Split(folder.name, held, names)


def from_cifar(folder):
    """CIFAR-10's binary version: data_batch_1.bin to _5.bin and test_batch.bin. Its pickles are never opened."""

    def read(paths):
        records = np.concatenate([np.fromfile(path, "uint8") for path in paths])
        if not len(records) or len(records) % CIFAR_BYTES:
            raise SwinsError(
                f"{folder}: *_batch*.bin must hold records of {CIFAR_BYTES} bytes; got {len(records)} bytes"
            )
        records = records.reshape(-1, CIFAR_BYTES)
        return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0]

    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    splits = read(sorted(folder.glob("data_batch_*.bin"))), read([folder / "test_batch.bin"])
    return tuple(Split("cifar10", Arrays("cifar10", *arrays), names) for arrays in splits)


def from_idx(folder):
    """MNIST's and Fashion-MNIST's files: train-* and t10k-*."""

    def read(part):
        images = read_idx(folder / f"{part}-images-idx3-ubyte.gz")
        labels = read_idx(folder / f"{part}-labels-idx1-ubyte.gz")
        if len(images) != len(labels):
            raise SwinsError(f"{folder}: images and labels must be as many; got {len(images)} and {len(labels)}")
        return Arrays(part, images, labels)

    training, validation = read("train"), read("t10k")
    names = tuple(str(i) for i in range(int(training.labels.max()) + 1))
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


def find_splits(source, held_out=0.1, seed=0):
    """Recognise a data set -> (Split to train on, Split to validate on).

    Args:
        source: a folder with train/ and val/ of class folders (ImageNet, Places365), or of class folders alone; Tiny
            ImageNet's; CIFAR-10's binary files; IDX files; or "tfds:NAME".
        held_out: part of each class that is kept for validation where there are class folders alone.
        seed: which images those are.

    Raises:
        SwinsError: if it is none of these, is empty, or has fewer than two classes.
    """
    folder = pathlib.Path(source)
    if str(source).startswith("tfds:"):
        found = from_tfds(str(source).removeprefix("tfds:"))
    elif not folder.is_dir():
        raise SwinsError(f"{source}: no such folder; give a folder of images or tfds:NAME")
    else:
        training = next((folder / n for n in TRAINING if (folder / n).is_dir()), None)
        validation = next((folder / n for n in VALIDATION if (folder / n).is_dir()), None)
        if (folder / "val" / "val_annotations.txt").is_file() and training:
            found = from_tiny_imagenet(folder)
        elif (folder / "test_batch.bin").is_file():
            found = from_cifar(folder)
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
        labels = getattr(split.samples, "labels", None)
        if labels is not None and int(labels.max()) >= len(split.classes):
            last = len(split.classes) - 1
            raise SwinsError(f"{source}: labels must be from 0 to {last}; the {part} images have {int(labels.max())}")
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


class Unreadable:
    """Names of samples that could not be read, once each, in a file too."""

    def __init__(self, path, limit):
        self.path, self.limit, self.texts, self.failed = pathlib.Path(path), limit, {}, None
        self.lock = threading.Lock()
        if self.path.is_file():  # of the same run, before it was killed
            lines = self.path.read_text().splitlines()
            self.texts = {name: text for name, _, text in (line.partition("\t") for line in lines)}

    def add(self, name, text):
        """Remember a sample. Raises SwinsError above the limit."""
        with self.lock:
            if name not in self.texts:
                self.texts[name] = text
                lines = (f"{name}\t{line}\n" for name, line in sorted(self.texts.items()))
                partial = self.path.with_name(f".{self.path.name}.partial")
                partial.write_text("".join(lines))
                partial.replace(self.path)
        if len(self.texts) > self.limit:
            self.failed = SwinsError(
                f"more than {self.limit} images cannot be read: {'; '.join(list(self.texts.values())[:3])}, ...; all "
                f"are in {self.path}; mend or remove them"
            )
            raise self.failed

    def of_all(self):
        """How many samples all processes of the run could not read: each has a file, NAME.txt or NAME.1.txt."""
        files = self.path.parent.glob(f"{self.path.name.partition('.')[0]}.*txt")
        return len({line.partition("\t")[0] for file in files for line in file.read_text().splitlines()})


def readable(split, index, unreadable):
    """(image, label) of a sample, or of the next that can be read; which one could not is remembered."""
    for i in range(len(split)):
        name, image, label = split[(index + i) % len(split)]
        try:
            return open_image(image), label
        except SwinsError as error:
            unreadable.add(name, str(error))
    raise SwinsError(f"{split.name}: none of its {len(split)} images can be read")


def reader():
    """The library that reads ahead. Raises SwinsError if it is missing."""
    try:
        import grain
    except ModuleNotFoundError as error:
        raise SwinsError("training needs grain: pip install 'swins[train]'") from error
    return grain


def training_batches(split, recipe, prepare, num_classes, unreadable, start=0, share=ALONE):
    """Endless batches to train on -> grain.IterDataset of (images (b, H, W, C) float32, targets (b, classes)).

    Every sample and every number drawn depends on the seed and the step alone, not on threads or on where a run began.
    An epoch is another order of all samples but the remainder that fills no batch.

    Args:
        split: the Split; prepare: the Preprocess of validation, whose size and statistics hold here too.
        recipe: the Recipe.
        start: parts of batches, of `accumulate` each, that were read before.
        share: which samples of a batch are this process'.
    """
    grain = reader()
    batch = recipe.data.batch // recipe.optim.accumulate
    transform = TrainTransform(recipe.augment, prepare.image_size, prepare.mean, prepare.std)
    seed, smoothing = recipe.seed, recipe.augment.smoothing
    own = batch // share.count

    def load(place, index):
        image, label = readable(split, index % len(split), unreadable)
        return place, transform(image, np.random.default_rng((seed, 0, place))), label

    def collate(samples):
        places, images, labels = zip(*samples, strict=True)
        rows = targets(np.array(labels), num_classes, smoothing)
        return mix(np.stack(images), rows, recipe.augment, np.random.default_rng((seed, 1, places[0])))

    per_epoch = len(split) // recipe.data.batch * recipe.data.batch
    order = grain.MapDataset.range(len(split)).shuffle(seed=seed)[:per_epoch].repeat()
    order = order[share.index :: share.count].map_with_index(
        lambda i, index: load(i * share.count + share.index, index)
    )
    threads = recipe.data.threads or os.cpu_count() or 1
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(2 * own, 16))
    return order[start * own :].to_iter_dataset(options).batch(own, drop_remainder=True, batch_fn=collate)


def validation_batches(split, prepare, batch, num_classes, unreadable, threads=0, share=ALONE):
    """Every sample once, in batches of one size -> (grain.IterDataset of images, one-hot rows and weights, count).

    What fills the last batch, and what cannot be read, has weight 0.
    """
    grain = reader()
    own = batch // share.count
    count = -(-len(split) // batch)
    size = (*prepare.image_size, len(prepare.mean))

    def load(place):
        if place >= len(split):
            return np.zeros(size, "float32"), 0, 0.0
        name, image, label = split[place]
        try:
            return prepare(image), label, 1.0
        except SwinsError as error:
            unreadable.add(name, str(error))
            return np.zeros(size, "float32"), label, 0.0

    def collate(samples):
        images, labels, weights = zip(*samples, strict=True)
        return np.stack(images), targets(np.array(labels), num_classes), np.float32(weights)

    places = grain.MapDataset.range(count * batch)[share.index :: share.count].map(load)
    options = grain.ReadOptions(num_threads=threads or os.cpu_count() or 1, prefetch_buffer_size=max(2 * own, 16))
    return places.to_iter_dataset(options).batch(own, drop_remainder=True, batch_fn=collate), count


def evaluation_transform(recipe, size, weights, channels):
    """The Preprocess of validation images: scaled so that the centre crop is `crop` of the shorter side.

    Args:
        size: (height, width) in pixels.
        weights: whose statistics hold where the recipe has none: they have mean and std.
        channels: 3, or 1 for grey images, which take the mean statistics of RGB.
    """
    mean, std = recipe.data.mean or weights.mean, recipe.data.std or weights.std
    if channels == 1:
        mean, std = ((sum(x) / len(x),) for x in (mean, std))
    if not len(mean) == len(std) == channels:
        raise SwinsError(f"data.mean and data.std need a number a channel; got {mean}, {std} and {channels} channels")
    resize = tuple(int(side / recipe.data.crop) for side in size)
    return Preprocess(size, resize, True, tuple(mean), tuple(std))
