"""Top-1 and top-5 of a model over labelled images, and the row it adds to a results table."""

import csv
import datetime
import itertools
import json
import os
import pathlib
import platform
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields

import keras
import numpy as np

from swins.errors import SwinsError, first_line
from swins.images import Preprocess

PREDICTED_AT_ONCE = 8  # batches, where `predict` divides them: it takes long to begin


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


class Journal:
    """What was predicted so far, in a file of JSON lines: an evaluation that is ended goes on from there.

    Its first line says what is evaluated, by what; another file is begun when that is not the same.
    """

    def __init__(self, path, identity):
        self.path, self.rows = pathlib.Path(path), []
        first = json.dumps(identity, sort_keys=True)
        lines = self.path.read_text().splitlines() if self.path.is_file() else []
        if lines and lines[0] == first:
            for line in lines[1:]:
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:
                    break  # it was ended while it wrote
                if isinstance(row[2], str):
                    break  # what could not be read may have been mended
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
    workers, samples = os.cpu_count() or 1, journal.follow(dataset.samples) if journal else dataset.samples
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


def model_file(path):
    """The .keras file of a training run's folder, or the path itself."""
    file = pathlib.Path(path) / "model.keras"
    return file if file.is_file() and training_of(file) else pathlib.Path(path)


def training_of(path):
    """What a training run says of its model, result.json beside the .keras file; None if there is none."""
    file = pathlib.Path(path).with_name("result.json")
    if pathlib.Path(path).suffix != ".keras" or not file.is_file():
        return None
    try:
        told = json.loads(file.read_text())
        preparation_of(told)
        return told if told["recipe"]["model.name"] else None
    except (ValueError, KeyError, TypeError):
        return None  # it is no training run's


def preparation_of(training):
    """The Preprocess that a training run validated with."""
    facts = training["preprocess"]
    size, crop = tuple(facts["image_size"]), facts["crop"]
    resize = tuple(int(side / crop) for side in size)
    return Preprocess(size, resize, True, tuple(facts["mean"]), tuple(facts["std"]))


def artefacts_in(folder):
    """Artefact folders and .keras files in a folder, by name. Raises SwinsError if there are none."""
    if not pathlib.Path(folder).is_dir():
        raise SwinsError(f"{folder}: no such folder of artefacts")
    paths = sorted(pathlib.Path(folder).iterdir())
    found = [model_file(p) for p in paths if p.suffix == ".keras" or (p / "model.keras").is_file()]
    if not found:
        raise SwinsError(f"{folder} holds no artefacts: folders with a model.keras, or .keras files")
    return found


def has_row(path, certificate, dataset, protocol, image_size, count):
    """Whether a results table has the row of these weights, on this data set, by this protocol.

    count: how many images the row is of; None for any number, where images without labels are left out.
    """
    if not (path and pathlib.Path(path).is_file()):
        return False
    size = "x".join(map(str, image_size))
    with open(path, newline="") as file:
        return any(
            (r["weights_sha256"], r["dataset"], r["protocol"], r["image_size"])
            == (certificate["weights_sha256"], dataset.name, protocol, size)
            and count in (None, int(r["images"]) + int(r["unreadable"]))
            for r in csv.DictReader(file)
        )


def journal_of(path):
    """The file beside a table of predictions that is kept while they are made."""
    return pathlib.Path(path).with_name(f".{pathlib.Path(path).name}.journal")


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
