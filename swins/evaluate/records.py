"""Models over many images: batches of outputs, answers, and records that scores are computed from."""

import itertools
import json
import pathlib
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import keras
import numpy as np

from swins.data.split import fitted
from swins.devices import cores
from swins.errors import SwinsError, missing_package
from swins.images import prepared
from swins.notices import without_retracing

PREDICTED_AT_ONCE = 8  # batches, where `predict` divides them: it takes long to begin


@dataclass(frozen=True)
class Decoded:
    """A sample whose image was read: array (H, W, C), the image's own size, (height, width), and the truth in its
    pixels; or the error. truth: as the data set has it."""

    name: str
    truth: object
    array: np.ndarray | None = None
    size: tuple | None = None
    fitted: object = None
    error: str | None = None


def decode(prepare, sample) -> Decoded:
    """Read and prepare a sample's image."""
    name, image, truth = sample
    try:
        array, size = prepared(prepare, image)
        return Decoded(name, truth, array, size, fitted(truth, size))
    except SwinsError as error:
        return Decoded(name, truth, error=str(error))


def prefetch(function, items, workers, ahead):
    """Map in threads, in order, at most `ahead` items before the consumer."""
    with ThreadPoolExecutor(workers) as pool:
        items = iter(items)
        waiting = [pool.submit(function, item) for item in itertools.islice(items, ahead)]
        while waiting:
            done = waiting.pop(0)
            waiting += [pool.submit(function, item) for item in itertools.islice(items, 1)]
            yield done.result()


def batches(samples, size):
    """Lists of `size` consecutive samples; the last may be shorter."""
    while batch := list(itertools.islice(samples, size)):
        yield batch


def predict(model, images, size, several=False):
    """Outputs of up to `size` images, arrays; a short batch is padded, so that nothing is compiled twice.

    On several devices each gets as many; TensorFlow divides what `predict` is given, but no single batch. A model of
    more than images takes a structure of arrays.
    """
    count = len(keras.tree.flatten(images)[0])
    total = -(-count // size) * size

    def filled_up(array):
        if count == total:
            return array
        return np.concatenate([array, np.zeros((total - count, *array.shape[1:]), array.dtype)])

    padded = keras.tree.map_structure(filled_up, images)
    with without_retracing():
        if several and keras.backend.backend() == "tensorflow":
            outputs = model.predict(padded, batch_size=size, verbose=0)
        else:
            outputs = model.predict_on_batch(padded)
    return keras.tree.map_structure(lambda y: np.asarray(y)[:count], outputs)


def answered(arrays, sizes, run, task, facts) -> list:
    """The results of prepared images, in their order; those of one shape are run together.

    Args:
        arrays: of the images, (H, W, C) each; sizes: of these as they were read.
        run: (images (b, H, W, C), whether all images are in one batch) -> {name: output}.
        task: the Task; facts: of the model, for its answers.
    """
    results, shapes = [None] * len(arrays), {}
    for place, array in enumerate(arrays):
        shapes.setdefault(array.shape, []).append(place)
    for places in shapes.values():
        outputs = run(np.stack([arrays[place] for place in places]), len(shapes) == 1)
        answers = task.answers(outputs, facts, [sizes[place] for place in places])
        for place, result in zip(places, answers, strict=True):
            results[place] = result
    return results


def journal_of(path):
    """The file beside a table of predictions that is kept while they are made."""
    return pathlib.Path(path).with_name(f".{pathlib.Path(path).name}.journal")


def forget(path):
    """Remove what was kept beside a table of predictions, which is there now."""
    journal_of(path).unlink(missing_ok=True)


class Journal:
    """What was predicted so far, in a file of JSON lines: an evaluation that is ended goes on from there.

    Its first line says what is evaluated, by what; another file is begun when that is not the same. What could not be
    read is tried again, as it may have been mended, unless `skip_unreadable`.
    """

    def __init__(self, path, identity, skip_unreadable=False):
        self.path, self.rows = pathlib.Path(path), []
        first = json.dumps(identity, sort_keys=True)
        lines = self.path.read_text().splitlines() if self.path.is_file() else []
        if lines and lines[0] == first:
            for line in lines[1:]:
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:
                    break  # it was ended while it wrote
                if isinstance(row[2], str) and not skip_unreadable:
                    break
                self.rows.append(row)
        self.first = first
        self.write()

    def write(self):
        """The file, with what is remembered."""
        partial = self.path.with_name(f"{self.path.name}.partial")
        with open(partial, "w") as file:
            file.writelines(f"{line}\n" for line in (self.first, *map(json.dumps, self.rows)))
        partial.replace(self.path)

    def follow(self, samples):
        """Pass over the samples that it has, as long as they are the same -> an iterator of the others."""
        samples, kept = iter(samples), []
        for row in self.rows:
            sample = next(samples, None)
            if sample is None or [sample[0], plain(sample[2])] != row[:2]:
                samples = itertools.chain([] if sample is None else [sample], samples)
                break
            kept.append(row)
        self.rows = kept
        self.write()
        return samples

    def add(self, rows):
        """Remember (name, truth, record or the text of an error) of some samples."""
        self.rows += rows
        with open(self.path, "a") as file:
            file.writelines(f"{json.dumps(row)}\n" for row in rows)


def plain(truth):
    """A truth as JSON gives it back."""
    return json.loads(json.dumps(truth.to_json() if hasattr(truth, "to_json") else truth))


@dataclass(frozen=True)
class Scored:
    """What came of a data set: [(name of an image, record)], texts on files that are no images, images per second of
    the whole run but the first batch, decoding included, None if that was all. engine: what ran the model, where that
    is not this process."""

    rows: list
    unreadable: list
    images_per_second: float | None
    engine: str = ""


def scored(rows, images_per_second, engine="") -> Scored:
    """The Scored of [(name, truth, record or the text of an error)]."""
    return Scored(
        [(name, record) for name, _, record in rows if not isinstance(record, str)],
        [text for _, _, text in rows if isinstance(text, str)],
        images_per_second,
        engine,
    )


def answered_batches(prepare, samples, size, at_once, run, task, facts):
    """Read samples and run a model on them -> lists of (Decoded, its result or None where it could not be read), batch
    by batch, in their order.

    Args:
        prepare: what prepares images; samples: (name, image, truth); size: images of a batch; at_once: batches that
            `run` takes; run, task, facts: as `answered` takes them.
    """
    readable = prefetch(lambda sample: decode(prepare, sample), samples, cores(), ahead=2 * size)
    for group in batches(readable, size * at_once):
        good = [sample for sample in group if not sample.error]
        pairs = [sample.array for sample in good], [sample.size for sample in good]
        results = iter(answered(*pairs, run, task, facts))
        yield [(sample, None if sample.error else next(results)) for sample in group]


class Recorder:
    """A model that gives records of samples.

    Args:
        opened: an Opened.
        prepare: what prepares its images.
        facts: of the model, for its answers.
        how: an Evaluation.
    """

    def __init__(self, opened, prepare, facts, how):
        self.opened, self.prepare, self.facts, self.how = opened, prepare, facts, how
        self.model = opened.task.answering(opened.model, facts)

    def outputs_of(self, images, alone):
        """{name: output} of images; of several sizes few are alike, so that batches are not filled up."""
        size = self.how.batch if alone or self.how.several else len(images)
        return self.opened.task.named(self.opened.model, predict(self.model, images, size, self.how.several))

    def __call__(self, samples):
        """Lists of (name, truth, record or the text of an error) of samples, batch by batch, in their order."""
        task, several = self.opened.task, self.how.several and keras.backend.backend() == "tensorflow"
        at_once = PREDICTED_AT_ONCE if several else 1
        groups = answered_batches(self.prepare, samples, self.how.batch, at_once, self.outputs_of, task, self.facts)
        for group in groups:
            yield [(s.name, plain(s.truth), s.error or task.record(result, s.fitted)) for s, result in group]


def run(opened, prepare, dataset, facts, how, journal=None) -> Scored:
    """Run a model over a data set.

    Args:
        opened, prepare, facts, how: as of a Recorder.
        dataset: a Dataset.
        journal: a Journal; samples that it has are not run again.
    """
    samples = journal.follow(dataset.samples) if journal else dataset.samples
    rows = list(journal.rows) if journal else []
    start, warm = None, 0
    with bar(dataset.count, how.progress) as done:
        done.update(len(rows))
        for new in Recorder(opened, prepare, facts, how)(samples):
            rows += new
            if journal:
                journal.add(new)
            if start is None:
                start, warm = time.perf_counter(), len(rows)
            done.update(len(new))
    seconds = time.perf_counter() - (start or 0)
    return scored(rows, (len(rows) - warm) / seconds if start and len(rows) > warm else None)


def bar(count, show, unit="img"):
    """A progress bar on standard error."""
    try:
        from tqdm import tqdm
    except ModuleNotFoundError as error:
        raise missing_package("evaluating", "tqdm", "eval") from error
    return tqdm(total=count, unit=unit, disable=not show, file=sys.stderr)
