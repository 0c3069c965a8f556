"""Batches of a data set to train on and to validate with, whose order and augmentation a seed determines."""

import contextlib
import functools
import os
import pathlib
import re
import threading

import keras
import numpy as np

from swins.data.split import fitted, require_truth
from swins.devices import ALONE, cores
from swins.errors import SwinsError, missing_package
from swins.images import open_image, size_of

PROFILER = re.compile("Failed to load jax profiler|Grain multiprocess worker profiling requires jaxlib")
TEXT = {"encoding": "utf-8", "errors": "surrogateescape"}  # names of files that are no UTF-8 survive
SAID = 3  # images that cannot be read
MOST_UNREADABLE = 0.1  # of a data set; above it, something else is wrong
AUGMENTED, BATCHED, SIZED, ORDERED = range(4)  # uses of random numbers, each with a seed of its own


def lines_of(path):
    """Pairs (name, text) of a file of Unreadable, without a last line that a killed process left half written."""
    content = path.read_bytes() if path.is_file() else b""
    lines = content.decode(**TEXT).split("\n")[:-1]
    return [(name, text) for name, _, text in (line.partition("\t") for line in lines)]


def on_one_line(text):
    """Whether a text can be a part of a line: printable, or bytes that are no UTF-8."""
    return all(letter.isprintable() or "\udc80" <= letter <= "\udcff" for letter in text)


class Unreadable:
    """Names of samples that could not be read, once each, in a file too, a line each; the first few are said, and why.

    Args:
        path: of the file; limit: how many there may be; say: what is told of them.
    """

    def __init__(self, path, limit, say=lambda text: None):
        self.path, self.limit, self.texts, self.failed = pathlib.Path(path), limit, {}, None
        self.say, self.said = say, set()  # also after `forget`, not twice
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
            new = name not in self.said and len(self.said) <= SAID
            self.said |= {name} if new else set()
            more = len(self.said) > SAID
        if new:
            self.say(f"further images that cannot be read are in {self.path} alone" if more else f"unreadable: {text}")
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
    """(name, image, truth) of a sample. Raises SwinsError for a truth that cannot be one."""
    name, image, truth = split[index]
    try:
        require_truth(split, name, truth)
    except SwinsError as error:
        unreadable.fail(error)
    return name, image, truth


def readable(split, index, unreadable, make=lambda image, truth: (image, truth)):
    """make(image, truth) of a sample, or of the next that can be read; which one could not is remembered."""
    for i in range(len(split)):
        name, image, truth = sample(split, (index + i) % len(split), unreadable)
        try:
            return make(open_image(image), truth)
        except SwinsError as error:
            unreadable.add(name, str(error))
    raise SwinsError(f"{split.name}: none of its {len(split)} images can be read")


@contextlib.contextmanager
def without_profiler():
    """Hold back grain's one warning, that JAX, whose profiler it would use, is not installed or not new enough."""
    from absl import logging  # grain's

    def others(record):
        return not PROFILER.match(record.getMessage())

    logger = logging.get_absl_logger()
    logger.addFilter(others)
    try:
        yield
    finally:
        logger.removeFilter(others)


def reader():
    """The library that reads ahead. Raises SwinsError if it is missing."""
    try:
        import filelock  # noqa: F401 (for the run's folder)

        with without_profiler():
            import grain
    except ModuleNotFoundError as error:
        raise missing_package("training", error.name, "train") from error
    return grain


class Grouped:
    """An endless order of samples in which every batch is of one group; each epoch has another order.

    Args:
        groups: number of each sample's group, (n,) integers; batch: samples a batch; seed: of the orders. What fills no
            batch of a group is left out of an epoch.
    """

    def __init__(self, groups, batch, seed):
        self.groups, self.batch, self.seed = np.asarray(groups), batch, seed
        self.per_epoch = sum(int(n) // batch for n in np.bincount(self.groups)) * batch

    def __len__(self):
        return self.per_epoch

    @functools.lru_cache(2)  # noqa: B019 (an order at a time, and the next)
    def order(self, epoch):
        """Indices of all samples of an epoch."""
        rng = np.random.default_rng((self.seed, ORDERED, epoch))
        batches = []
        for group in np.unique(self.groups):
            members = rng.permutation(np.flatnonzero(self.groups == group))
            whole = len(members) // self.batch * self.batch
            batches += list(members[:whole].reshape(-1, self.batch))
        return np.concatenate([batches[i] for i in rng.permutation(len(batches))])

    def index(self, place):
        """The index of the sample at a place."""
        epoch, within = divmod(place, self.per_epoch)
        return int(self.order(epoch)[within])


def samples_per_epoch(split, reading, batch):
    """How many samples an epoch has, of those that fill whole batches."""
    if reading.groups is None:
        return len(split) // batch * batch
    return len(Grouped(reading.groups, batch, 0))


def training_batches(split, reading, recipe, unreadable, start=0, share=ALONE):
    """Endless batches to train on -> grain.IterDataset of (images (b, H, W, C) float32, {name: array (b, ...)}).

    Every sample and every number drawn depends on the seed and the step alone, not on threads or on where a run began.
    An epoch is another order of all samples but the remainder that fills no batch.

    Args:
        split: the Split; reading: how its samples become batches.
        recipe: the Recipe.
        start: micro-batches, `accumulate` to a batch, that were read before.
        share: which samples of a batch are this process'.
    """
    grain = reader()
    whole, seed = recipe.data.batch, recipe.seed
    batch = whole // recipe.optim.accumulate
    own = batch // share.count

    def size_for(place, index):
        group = 0 if reading.groups is None else int(np.asarray(reading.groups)[index])
        if not reading.sizes:
            return None
        choices = reading.sizes[group]
        return choices[np.random.default_rng((seed, SIZED, place // whole)).integers(len(choices))]

    def load(place, index):
        def make(image, truth):
            rng = np.random.default_rng((seed, AUGMENTED, place))
            return reading.sample(image, truth, rng, size_for(place, index))

        return place, readable(split, index, unreadable, make)

    def collate(samples):
        places, samples = zip(*samples, strict=True)
        return reading.batch(samples, np.random.default_rng((seed, BATCHED, places[0])))

    if reading.groups is None:
        per_epoch = samples_per_epoch(split, reading, recipe.data.batch)
        order = grain.MapDataset.range(len(split)).shuffle(seed=seed)[:per_epoch].repeat()
        order = order[share.index :: share.count].map_with_index(
            lambda i, index: load(i * share.count + share.index, index % len(split))
        )
    else:
        grouped = Grouped(reading.groups, whole, seed)
        order = (
            grain.MapDataset.range(len(grouped))
            .repeat()[share.index :: share.count]
            .map_with_index(
                lambda i, _: load(i * share.count + share.index, grouped.index(i * share.count + share.index))
            )
        )
    threads = recipe.data.threads or cores()
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(2 * own, 16))
    return order[start * own :].to_iter_dataset(options).batch(own, drop_remainder=True, batch_fn=collate)


def shapes_of(split, reading, unreadable):
    """Arrays of a batch of one sample of each group and size, as training has them -> [(images, {name: array})]."""
    groups = np.zeros(len(split), int) if reading.groups is None else np.asarray(reading.groups)
    examples = []
    for group, sizes in enumerate(reading.sizes):
        index = int(np.flatnonzero(groups == group)[0])
        for size in sizes:
            rng = np.random.default_rng(0)

            def make(image, truth, rng=rng, size=size):
                return reading.sample(image, truth, rng, size)

            examples.append(reading.batch([readable(split, index, unreadable, make)], rng))
    return examples


def of_any_size(batches, examples):
    """Batches as TensorFlow takes them, in which sides that differ between examples are open.

    Keras knows the shapes of a data set by its first two batches, and a third of another shape is an error.

    Args:
        batches: what `training_batches` gives; examples: what `shapes_of` gives.
    """
    import tensorflow as tf

    def spec(*arrays):
        sides = zip(*(array.shape[1:] for array in arrays), strict=True)
        shape = [None, *(side[0] if len(set(side)) == 1 else None for side in sides)]
        return tf.TensorSpec(shape, arrays[0].dtype)

    return tf.data.Dataset.from_generator(
        lambda: iter(batches), output_signature=keras.tree.map_structure(spec, *examples)
    )


def batches_to_fit(split, reading, recipe, unreadable, start=0, share=ALONE):
    """`training_batches` as Keras' fit takes them."""
    batches = training_batches(split, reading, recipe, unreadable, start, share)
    if keras.backend.backend() != "tensorflow" or len({size for sizes in reading.sizes for size in sizes}) < 2:
        return batches
    return of_any_size(batches, shapes_of(split, reading, unreadable))


def validation_batches(split, reading, batch, unreadable, threads=0, share=ALONE):
    """Every sample once, in batches of one size -> (grain.IterDataset, count of its batches).

    A batch is (images, arrays, truths, (height, width) of each image as it was read). The arrays' "weight" is 0 for
    what fills the last batch, and for what cannot be read; its truth is None.
    """
    grain = reader()
    own = batch // share.count
    count = -(-len(split) // batch)

    def load(place):
        if place >= len(split):
            return reading.filler(), None, (1, 1)
        name, image, truth = sample(split, place, unreadable)
        try:
            opened = open_image(image)
            truth = fitted(truth, size_of(opened))
            return reading.sample(opened, truth, None, None), truth, size_of(opened)
        except SwinsError as error:
            unreadable.add(name, str(error))
            return reading.filler(), None, (1, 1)

    def collate(samples):
        samples, truths, sizes = zip(*samples, strict=True)
        images, arrays = reading.batch(samples, None)
        return images, {**arrays, "weight": np.float32([truth is not None for truth in truths])}, truths, sizes

    places = grain.MapDataset.range(count * batch)[share.index :: share.count].map(load)
    options = grain.ReadOptions(num_threads=threads or cores(), prefetch_buffer_size=max(2 * own, 16))
    return places.to_iter_dataset(options).batch(own, drop_remainder=True, batch_fn=collate), count
