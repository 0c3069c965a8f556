"""Top-1 and top-5 of a model over labelled images."""

import itertools
import json
import pathlib
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np

from swins.devices import cores
from swins.errors import SwinsError, first_line

PREDICTED_AT_ONCE = 8  # batches, where `predict` divides them: it takes long to begin


def decode(preprocess, sample):
    """(name, image, label) -> (name, array or None, label, error or None)."""
    name, image, label = sample
    try:
        return name, preprocess(image), label, None
    except SwinsError as error:
        return name, None, label, str(error)


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
    """Logits of up to `size` images; a short batch is padded, so that nothing is compiled twice.

    On several devices each gets as many; TensorFlow divides what `predict` is given, but no single batch.
    """
    total = -(-len(images) // size) * size
    padded = np.zeros((total, *images.shape[1:]), images.dtype)
    padded[: len(images)] = images
    if several and keras.backend.backend() == "tensorflow":
        return np.asarray(model.predict(padded, batch_size=size, verbose=0))[: len(images)]
    return np.asarray(model.predict_on_batch(padded))[: len(images)]


def journal_of(path):
    """The file beside a table of predictions that is kept while they are made."""
    return pathlib.Path(path).with_name(f".{pathlib.Path(path).name}.journal")


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
            if sample is None or [sample[0], sample[2]] != row[:2]:
                samples = itertools.chain([] if sample is None else [sample], samples)
                break
            kept.append(row)
        self.rows = kept
        self.write()
        return samples

    def add(self, rows):
        """Remember (name, label, classes or the text of an error) of some samples."""
        self.rows += rows
        with open(self.path, "a") as file:
            file.writelines(f"{json.dumps(row)}\n" for row in rows)


def evaluate(model, preprocess, dataset, batch=32, progress=True, several=False, journal=None):
    """Run a model over a Dataset -> (predictions, unreadable, images per second).

    Args:
        model: images -> logits.
        preprocess: a Preprocess.
        dataset: a Dataset.
        batch: images at a time.
        progress: whether a bar is drawn on standard error.
        several: whether the model lies on several devices.
        journal: a Journal; samples that it has are not run again.

    Returns:
        predictions: list of (sample name, label, classes of the five largest logits, first the largest).
        unreadable: list of texts, one for each file that is not an image.
        images per second: of the whole run but the first batch, decoding included.
    """
    workers, samples = cores(), journal.follow(dataset.samples) if journal else dataset.samples
    rows = list(journal.rows) if journal else []
    readable = prefetch(lambda s: decode(preprocess, s), samples, workers, ahead=2 * batch)
    start, warm = None, 0
    at_once = PREDICTED_AT_ONCE if several and keras.backend.backend() == "tensorflow" else 1
    with bar(dataset.count, progress) as done:
        done.update(len(rows))
        for group in batches(readable, batch * at_once):
            good = [image for _, image, _, error in group if not error]
            top = []
            if good:
                logits = predict(model, np.stack(good), batch, several)
                top = np.argsort(-logits, axis=1, kind="stable")[:, :5].tolist()
            found = iter(top)
            new = [(name, label, error or next(found)) for name, _, label, error in group]
            rows += new
            if journal:
                journal.add(new)
            if start is None:
                start, warm = time.perf_counter(), len(rows)
            done.update(len(group))
    seconds = time.perf_counter() - (start or 0)
    predictions = [(name, label, top) for name, label, top in rows if not isinstance(top, str)]
    unreadable = [text for _, _, text in rows if isinstance(text, str)]
    return predictions, unreadable, (len(rows) - warm) / seconds if start and len(rows) > warm else 0.0


def bar(count, show):
    """A progress bar on standard error."""
    try:
        from tqdm import tqdm
    except ModuleNotFoundError as error:
        raise SwinsError("evaluating needs tqdm: pip install 'swins[eval]'") from error
    return tqdm(total=count, unit="img", disable=not show, file=sys.stderr)


def score(predictions):
    """(top-1, top-5) of predictions, as fractions."""
    top1 = np.mean([row[0] == label for _, label, row in predictions])
    top5 = np.mean([label in row for _, label, row in predictions])
    return float(top1), float(top5)


def read_real(path):
    """Other sets of right answers, as ImageNet-ReaL's JSON has them. Raises SwinsError if the file has none."""
    try:
        real = json.loads(pathlib.Path(path).read_text())
    except (OSError, ValueError) as error:
        raise SwinsError(f"{path}: no JSON of labels ({first_line(error)})") from error
    if not (
        isinstance(real, dict | list)
        and all(isinstance(x, list) for x in (real.values() if isinstance(real, dict) else real))
    ):
        raise SwinsError(f"{path}: must be a list of lists of classes, or {{file name: list of classes}}")
    return real


def relabelled(predictions, real):
    """Predictions with other sets of right answers, as ImageNet-ReaL has them -> predictions, one label each.

    A prediction is right if any of an image's labels is; images without a label are left out. The label given back is
    the best placed of them.

    Args:
        real: a list of lists of classes in the order of the images' names, or {name: list of classes}.

    Raises:
        SwinsError: if it has no labels for an image, or is a list of another length.
    """
    names = [pathlib.PurePath(name).name for name, _, _ in predictions]
    if isinstance(real, list):
        if len(real) != len(names):
            raise SwinsError(
                f"--real: a list must have labels of every image, and every image be readable; got {len(real)} and "
                f"{len(names)} images"
            )
        real = dict(zip(sorted(names), real, strict=True))
    missing = [name for name in names if name not in real]
    if missing:
        raise SwinsError(
            f"--real: must have a list of classes for every image; {len(missing)} have none: {missing[:3]}"
        )
    kept = [(n, real[name], row) for (n, _, row), name in zip(predictions, names, strict=True) if real[name]]
    return [(name, next((c for c in row if c in labels), labels[0]), row) for name, labels, row in kept]
