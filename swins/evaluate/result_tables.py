"""The tables that evaluations write: a row a model, and a row an image."""

import csv
import datetime
import io
import os
import pathlib
import sys

import keras
import numpy as np

from swins import devices, files
from swins.errors import SwinsError
from swins.score import NONE

TEXT = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}  # names of files that are no UTF-8 survive
BEFORE = ("model", "dataset", "protocol", "image_size", "images", "unreadable")  # columns, around those of the scores
AFTER = ("images_per_second", "backend", "versions", "machine", "date", "weights_sha256", "source_sha256")


def columns_of(task) -> list[str]:
    """Columns of a results table of a kind of work."""
    return [*BEFORE, *(score.name for score in task.scores), *AFTER]


def row_of(opened, prepared, dataset, scored, facts) -> dict:
    """What one evaluation measured, as a row of a results table: {column: value}."""
    backend, certificate = keras.backend.backend(), opened.certificate
    scores = dict.fromkeys(score.name for score in opened.task.scores)
    scores |= opened.task.scored([record for _, record in scored.rows], facts)
    row = {
        "model": prepared.name,
        "dataset": dataset.name,
        "protocol": prepared.protocol,
        "image_size": size_text(prepared),
        "images": len(scored.rows),
        "unreadable": len(scored.unreadable),
        **{name: None if value is None else round(value, 5) for name, value in scores.items()},
        "images_per_second": speed_of(scored),
        "backend": backend,
        "versions": f"keras {keras.__version__}; {backend} {sys.modules[backend].__version__}; numpy {np.__version__}",
        "machine": ", ".join(filter(None, [devices.machine(), scored.engine])),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "weights_sha256": certificate["weights_sha256"],
        "source_sha256": certificate.get("source", {}).get("sha256", ""),
    }
    return {column: row[column] for column in columns_of(opened.task)}


def speed_of(scored) -> float | None:
    """Images a second of a Scored or an Evaluated, three digits of it; None where there was nothing to measure."""
    rate = scored.images_per_second
    return None if rate is None else float(f"{rate:.3g}")


def cells(values) -> list:
    """Values of a row as tables have them: None is written "none"."""
    return [NONE if value is None else value for value in values]


def size_text(prepared) -> str:
    """Height and width in pixels of what a model is given."""
    return "x".join(map(str, prepared.preparation.image_size))


def check_writable(paths) -> None:
    """Find out before a long run that its outputs can be written; makes the folders they go to. Raises SwinsError."""
    for path in map(pathlib.Path, filter(None, paths)):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            raise SwinsError(f"{path} must be a file that can be written; choose another")


def check_table(path, columns: list[str] | None = None) -> None:
    """Raise SwinsError if a file that exists is no results table, or one of other columns."""
    path = pathlib.Path(path)
    if not (path.is_file() and path.stat().st_size):
        return
    try:
        with open(path, newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
    except (UnicodeDecodeError, csv.Error) as error:
        raise SwinsError(f"{path} is not a results table ({error}); choose another file") from error
    around = (tuple(header[: len(BEFORE)]), tuple(header[-len(AFTER) :])) == (BEFORE, AFTER)
    if header != columns and (columns or not around):
        wanted = columns or [*BEFORE, "...", *AFTER]
        raise SwinsError(f"{path}: a results table has the columns {', '.join(wanted)}; got {', '.join(header)}")
    cut = [number for number, row in enumerate(rows, 2) if len(row) not in (0, len(header))]
    if cut:
        raise SwinsError(f"{path}: every row must have {len(header)} columns; row {cut[0]} has not; mend it")


def append_row(row: dict, path) -> None:
    """Add a row to a CSV, which is made if it is not there: whole or not at all, one process after the other.

    Raises:
        SwinsError: if the file has other columns.
    """
    path = pathlib.Path(os.path.realpath(path))  # a link stays one
    with files.lock(path, wait=True):
        check_table(path, list(row))
        text = path.read_bytes() if path.is_file() else b""
        lines = io.StringIO()
        written = [cells(row.values())] if text else [list(row), cells(row.values())]
        csv.writer(lines, lineterminator="\n").writerows(written)
        with files.replacing(path) as partial:
            partial.write_bytes(text + b"\n" * (text[-1:] not in (b"", b"\n")) + lines.getvalue().encode())


def has_row(path, certificate, dataset, prepared) -> bool:
    """Whether a results table has the row of these weights, on this data set, by this protocol."""
    if not (path and pathlib.Path(path).is_file()):
        return False
    with open(path, newline="", encoding="utf-8") as file:
        return any(
            (r["weights_sha256"], r["dataset"], r["protocol"], r["image_size"])
            == (certificate["weights_sha256"], dataset.name, prepared.protocol, size_text(prepared))
            and dataset.count_scored in (None, int(r["images"]) + int(r["unreadable"]))
            for r in csv.DictReader(file)
        )


def write_predictions(task, rows, facts, path) -> list[pathlib.Path]:
    """Write one row per image: its file, and what its kind of work says -> the files written.

    Further tables of its kind of work lie beside it: of FILE.csv the one called classes is FILE_classes.csv.
    """
    path, (names, records) = pathlib.Path(path), map(list, zip(*rows, strict=True))
    header, lines = task.columns(records, facts)
    tables = {path: (["file", *header], [[name, *line] for name, line in zip(names, lines, strict=True)])}
    for name, table in task.tables(records, facts).items():
        tables[path.with_name(f"{path.stem}_{name}{path.suffix}")] = table
    for place, (header, lines) in tables.items():
        with files.replacing(place) as partial, open(partial, "w", **TEXT) as file:
            csv.writer(file, lineterminator="\n").writerows([header, *map(cells, lines)])
    return list(tables)
