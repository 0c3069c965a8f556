"""Top-1 and top-5 of a model over labelled images, and the row it adds to a results table."""

import csv
import datetime
import itertools
import os
import pathlib
import platform
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields

import keras
import numpy as np

from swins.errors import SwinsError


@dataclass(frozen=True)
class Result:
    """What one evaluation measured, as one row of a results table."""

    model: str
    dataset: str
    protocol: str
    image_size: str
    images: int
    unreadable: int
    top1: float
    top5: float
    images_per_second: float
    backend: str
    versions: str
    machine: str
    date: str
    weights_sha256: str
    source_sha256: str


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


def predict(model, images, size):
    """Logits of up to `size` images; a short batch is padded, so that nothing is compiled twice."""
    padded = np.zeros((size, *images.shape[1:]), images.dtype)
    padded[: len(images)] = images
    return np.asarray(model.predict_on_batch(padded))[: len(images)]


def evaluate(model, preprocess, dataset, batch=32, progress=True):
    """Run a model over a Dataset -> (predictions, unreadable, images per second).

    Args:
        model: images -> logits.
        preprocess: a Preprocess.
        dataset: a Dataset.
        batch: images at a time.
        progress: whether a bar is drawn on standard error.

    Returns:
        predictions: list of (sample name, label, classes of the five largest logits, first the largest).
        unreadable: list of texts, one for each file that is not an image.
        images per second: of the whole run but the first batch, decoding included.
    """
    workers = os.cpu_count() or 1
    readable = prefetch(lambda s: decode(preprocess, s), dataset.samples, workers, ahead=2 * batch)
    predictions, unreadable, start, warm = [], [], None, 0
    with bar(dataset.count, progress) as done:
        for group in batches(readable, batch):
            unreadable += [error for *_, error in group if error]
            good = [(name, image, label) for name, image, label, error in group if not error]
            if good:
                logits = predict(model, np.stack([image for _, image, _ in good]), batch)
                top = np.argsort(-logits, axis=1, kind="stable")[:, :5]
                predictions += [(n, label, row.tolist()) for (n, _, label), row in zip(good, top, strict=True)]
            if start is None:
                start, warm = time.perf_counter(), len(predictions)
            done.update(len(group))
    seconds = time.perf_counter() - (start or 0)
    return predictions, unreadable, (len(predictions) - warm) / seconds if len(predictions) > warm else 0.0


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


def result_row(name, dataset, protocol, image_size, outcome, certificate):
    """The Result of an evaluation; certificate is the artefact's, or has at least the digest of the weights."""
    predictions, unreadable, speed = outcome
    top1, top5 = score(predictions)
    backend = keras.backend.backend()
    return Result(
        model=name,
        dataset=dataset.name,
        protocol=protocol,
        image_size="x".join(map(str, image_size)),
        images=len(predictions),
        unreadable=len(unreadable),
        top1=round(top1, 5),
        top5=round(top5, 5),
        images_per_second=round(speed, 1),
        backend=backend,
        versions=f"keras {keras.__version__}; {backend} {sys.modules[backend].__version__}; numpy {np.__version__}",
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        weights_sha256=certificate["weights_sha256"],
        source_sha256=certificate.get("source", {}).get("sha256", ""),
    )


def check_targets(results, predictions):
    """Find out before a long run that its outputs can be written; makes the folders they go to.

    Raises:
        SwinsError: if the results table is another kind of table.
    """
    for path in map(pathlib.Path, filter(None, (results, predictions))):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            raise SwinsError(f"{path} must be a file that can be written; choose another")
    columns = [field.name for field in fields(Result)]
    if results and pathlib.Path(results).is_file() and pathlib.Path(results).stat().st_size:
        try:
            with open(results, newline="") as file:
                header = next(csv.reader(file))
        except (UnicodeDecodeError, csv.Error) as error:
            raise SwinsError(f"{results} is not a results table ({error}); choose another file") from error
        if header != columns:
            raise SwinsError(
                f"{results}: a results table has the columns {', '.join(columns)}; got {', '.join(header)}"
            )


def append_row(result, path):
    """Add a Result to a CSV, which is made if it is not there. Raises SwinsError if the file has other columns."""
    check_targets(path, None)
    row, path = asdict(result), pathlib.Path(path)
    fresh = not (path.is_file() and path.stat().st_size)
    with open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerow(row)


def write_predictions(predictions, path):
    """Write one row per image: file, label, and the five classes."""
    path = pathlib.Path(path)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with open(partial, "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["file", "label", "top1", "top2", "top3", "top4", "top5"])
            writer.writerows([name, label, *row] for name, label, row in predictions)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
