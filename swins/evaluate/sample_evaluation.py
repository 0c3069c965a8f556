"""Evaluations of models that are scored by what they make, and not image by image."""

import csv
import datetime
import functools
import sys

import keras
import numpy as np

from swins import devices, files
from swins.evaluate import result_tables
from swins.evaluate.records import bar


def evaluate(opened, source, options: dict, how, show, say) -> dict:
    """Evaluate one model -> its row as a dict; arguments as `evaluation.evaluate` has them."""
    task, backend, certificate = opened.task, keras.backend.backend(), opened.certificate
    columns = [*result_tables.BEFORE, *(score.name for score in task.sample_scores), *result_tables.AFTER]
    if how.table:
        result_tables.check_table(how.table, columns)
    scored = task.evaluate(opened, source, options, functools.partial(bar, show=how.progress))
    for note in scored.notes:
        say(note)
    row = {
        "model": opened.name,
        "dataset": scored.dataset,
        "protocol": scored.protocol,
        "image_size": "x".join(map(str, opened.model.image_size)),
        "images": scored.images,
        "unreadable": 0,
        **{name: None if value is None else round(value, 5) for name, value in scored.values.items()},
        "images_per_second": result_tables.speed_of(scored),
        "backend": backend,
        "versions": f"keras {keras.__version__}; {backend} {sys.modules[backend].__version__}; numpy {np.__version__}",
        "machine": devices.machine(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "weights_sha256": certificate["weights_sha256"],
        "source_sha256": certificate.get("source", {}).get("sha256", ""),
    }
    row = {column: row[column] for column in columns}
    show(row)
    if how.predictions:
        header, rows = scored.predictions
        with files.replacing(how.predictions) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([["sample", *header], *rows])
        say(f"wrote {how.predictions}")
    if how.table:
        result_tables.append_row(row, how.table)
        say(f"added a row to {how.table}")
    return row
