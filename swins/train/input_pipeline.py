"""Batches of a data set to train on and to validate with, whose order and augmentation a seed determines."""

import os
import pathlib
import threading

import numpy as np

from swins.data.layouts import require_label
from swins.devices import ALONE, cores
from swins.errors import SwinsError
from swins.images import Preprocess, open_image, planes
from swins.train.augment import TrainTransform, mix, targets

TEXT = {"encoding": "utf-8", "errors": "surrogateescape"}  # names of files that are no UTF-8 survive
FIRST = 10  # samples, of which one that can be read tells the channels
MOST_UNREADABLE = 0.1  # of a data set; above it, something else is wrong


def lines_of(path):
    """Pairs (name, text) of a file of Unreadable, without a last line that a killed process left half written."""
    content = path.read_bytes() if path.is_file() else b""
    lines = content.decode(**TEXT).split("\n")[:-1]
    return [(name, text) for name, _, text in (line.partition("\t") for line in lines)]


def on_one_line(text):
    """Whether a text can be a part of a line: printable, or bytes that are no UTF-8."""
    return all(letter.isprintable() or "\udc80" <= letter <= "\udcff" for letter in text)


class Unreadable:
    """Names of samples that could not be read, once each, in a file too, a line each."""

    def __init__(self, path, limit):
        self.path, self.limit, self.texts, self.failed = pathlib.Path(path), limit, {}, None
        self.lock = threading.Lock()
        self.texts = dict(lines_of(self.path))  # of the same run, before it was killed
        if self.path.is_file():  # the next line begins after the last whole one
            os.truncate(self.path, self.path.read_bytes().rfind(b"\n") + 1)
        if len(self.texts) > limit:  # which ended that run, and may have been mended
            self.forget()

    def add(self, name, text):
        """Remember a sample. Raises SwinsError above the limit."""
        name, text = (part if on_one_line(part) else ascii(part) for part in (name, text))
        with self.lock:
            if name not in self.texts:
                self.texts[name] = text
                with open(self.path, "ab") as file:
                    file.write(f"{name}\t{text}\n".encode(**TEXT))
        if len(self.texts) > self.limit:
            few = "; ".join(list(self.texts.values())[:3])
            self.fail(
                SwinsError(
                    f"more than {self.limit} images cannot be read: {few}, ...; all are in {self.path}; mend them, or "
                    "remove them and begin again"
                )
            )

    def fail(self, error):
        """Raise an error from whatever thread reads, so that the run tells it."""
        self.failed = error
        raise error

    def forget(self):
        """Begin anew."""
        self.texts = {}
        self.path.unlink(missing_ok=True)

    def of_all(self):
        """How many samples all processes of the run could not read: each has a file, NAME.txt or NAME.1.txt."""
        files = self.path.parent.glob(f"{self.path.name.partition('.')[0]}.*txt")
        return len({name for file in files for name, _ in lines_of(file)})


def sample(split, index, unreadable):
    """(name, image, label) of a sample. Raises SwinsError for a label that is none of the classes."""
    name, image, label = split[index]
    try:
        require_label(split.name, name, label, len(split.classes))
    except SwinsError as error:
        unreadable.fail(error)
    return name, image, label


def readable(split, index, unreadable):
    """(image, label) of a sample, or of the next that can be read; which one could not is remembered."""
    for i in range(len(split)):
        name, image, label = sample(split, (index + i) % len(split), unreadable)
        try:
            return open_image(image), label
        except SwinsError as error:
            unreadable.add(name, str(error))
    raise SwinsError(f"{split.name}: none of its {len(split)} images can be read")


def reader():
    """The library that reads ahead. Raises SwinsError if it is missing."""
    try:
        import filelock  # noqa: F401 (for the run's folder)
        import grain
    except ModuleNotFoundError as error:
        raise SwinsError(f"training needs {error.name}: pip install 'swins[train]'") from error
    return grain


def training_batches(split, recipe, prepare, num_classes, unreadable, start=0, share=ALONE):
    """Endless batches to train on -> grain.IterDataset of (images (b, H, W, C) float32, targets (b, classes)).

    Every sample and every number drawn depends on the seed and the step alone, not on threads or on where a run began.
    An epoch is another order of all samples but the remainder that fills no batch.

    Args:
        split: the Split; prepare: the Preprocess of validation, whose size and statistics hold here too.
        recipe: the Recipe.
        start: micro-batches, `accumulate` to a batch, that were read before.
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
    threads = recipe.data.threads or cores()
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
        name, image, label = sample(split, place, unreadable)
        try:
            return prepare(image), label, 1.0
        except SwinsError as error:
            unreadable.add(name, str(error))
            return np.zeros(size, "float32"), label, 0.0

    def collate(samples):
        images, labels, weights = zip(*samples, strict=True)
        return np.stack(images), targets(np.array(labels), num_classes), np.float32(weights)

    places = grain.MapDataset.range(count * batch)[share.index :: share.count].map(load)
    options = grain.ReadOptions(num_threads=threads or cores(), prefetch_buffer_size=max(2 * own, 16))
    return places.to_iter_dataset(options).batch(own, drop_remainder=True, batch_fn=collate), count


def require_channels(splits, prepare):
    """Raise SwinsError, before a run has a folder, if the first images that can be read are not of its channels."""
    for split in splits:
        for i in range(min(len(split), FIRST)):
            name, image, _ = split[i]
            try:
                opened = open_image(image)
            except SwinsError:
                continue
            try:
                planes(opened, len(prepare.mean))
            except SwinsError as error:
                raise SwinsError(f"{split.name}: {name}: {error}") from error
            break


def evaluation_transform(recipe, size, weights, channels):
    """The Preprocess of validation images: scaled so that the centre crop is `crop` of the shorter side.

    Args:
        size: (height, width) in pixels.
        weights: whose statistics hold where the recipe has none: they have mean and std.
        channels: 3, or 1 for grey images, which take the mean statistics of RGB.
    """
    if channels not in (1, 3) and (recipe.augment.rand_augment or recipe.augment.color_jitter):
        raise SwinsError(
            f"augment.rand_augment and color_jitter are for grey or RGB images; the model takes {channels} channels; "
            "leave them out: --set augment.rand_augment= --set augment.color_jitter=0"
        )
    mean, std = recipe.data.mean or weights.mean, recipe.data.std or weights.std
    if channels == 1:
        mean, std = ((sum(x) / len(x),) for x in (mean, std))
    if not len(mean) == len(std) == channels:
        raise SwinsError(
            f"data.mean and data.std need a number a channel; got {mean}, {std} and {channels} channels; set both, as "
            f"--set data.mean={list(mean[:1] * channels)}"
        )
    resize = tuple(int(side / recipe.data.crop) for side in size)
    return Preprocess(size, resize, True, tuple(mean), tuple(std))
