"""The tables that evaluations write: a row a model, and a row an image."""

import csv
import datetime
import io
import os
import pathlib
import platform
import shutil
import sys
from dataclasses import asdict, dataclass, fields

import keras
import numpy as np

from swins import files
from swins.errors import SwinsError
from swins.evaluate.scoring import score

TEXT = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}  # names of files that are no UTF-8 survive


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
            with open(results, newline="", encoding="utf-8") as file:
                header, *rows = csv.reader(file)
        except (UnicodeDecodeError, csv.Error) as error:
            raise SwinsError(f"{results} is not a results table ({error}); choose another file") from error
        if header != columns:
            raise SwinsError(
                f"{results}: a results table has the columns {', '.join(columns)}; got {', '.join(header)}"
            )
        cut = [number for number, row in enumerate(rows, 2) if len(row) not in (0, len(columns))]
        if cut:
            raise SwinsError(f"{results}: every row must have {len(columns)} columns; row {cut[0]} has not; mend it")


def append_row(result, path):
    """Add a Result to a CSV, which is made if it is not there: whole or not at all, one process after the other.

    Raises:
        SwinsError: if the file has other columns.
    """
    row, path = asdict(result), pathlib.Path(os.path.realpath(path))  # a link stays one
    with files.lock(path, wait=True):
        check_targets(path, None)
        text = path.read_bytes() if path.is_file() else b""
        lines = io.StringIO()
        writer = csv.DictWriter(lines, list(row), lineterminator="\n")
        if not text:
            writer.writeheader()
        writer.writerow(row)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            with open(partial, "wb") as file:
                file.write(text + b"\n" * (text[-1:] not in (b"", b"\n")) + lines.getvalue().encode())
                file.flush()
                os.fsync(file.fileno())
            if text:
                shutil.copymode(path, partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def has_row(path, certificate, dataset, protocol, image_size, count):
    """Whether a results table has the row of these weights, on this data set, by this protocol.

    count: how many images the row is of; None for any number, where images without labels are left out.
    """
    if not (path and pathlib.Path(path).is_file()):
        return False
    size = "x".join(map(str, image_size))
    with open(path, newline="", encoding="utf-8") as file:
        return any(
            (r["weights_sha256"], r["dataset"], r["protocol"], r["image_size"])
            == (certificate["weights_sha256"], dataset.name, protocol, size)
            and count in (None, int(r["images"]) + int(r["unreadable"]))
            for r in csv.DictReader(file)
        )


def write_predictions(predictions, path):
    """Write one row per image: file, label, and the five classes, or all where there are fewer."""
    path = pathlib.Path(path)
    partial = path.with_name(f".{path.name}.partial")
    try:
        classes = [row for _, _, row in predictions]
        with open(partial, "w", **TEXT) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["file", "label", *(f"top{i + 1}" for i in range(max(map(len, classes), default=5)))])
            writer.writerows([name, label, *row] for name, label, row in predictions)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
