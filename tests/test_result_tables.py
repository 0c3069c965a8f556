"""The tables that evaluations write: rows of models, and of images."""

import csv
import os
import subprocess
import sys

import pytest

from swins.errors import SwinsError
from swins.evaluate import result_tables
from swins.tasks.classification import CLASSIFICATION


def test_predictions_of_fewer_than_five_classes_and_of_odd_names(tmp_path):
    odd = os.fsdecode(b"caf\xe9.png")
    record, facts = {"label": 1, "top": [2, 0, 1], "probabilities": [0.7, 0.2, 0.1]}, {"classes": ["a", "b", "c"]}
    result_tables.write_predictions(CLASSIFICATION, [(odd, record)], facts, tmp_path / "p.csv")
    header = b"file,label,top1,top2,top3,is,said,probability\n"
    assert (tmp_path / "p.csv").read_bytes() == header + b"caf\xe9.png,1,2,0,1,b,c,0.7\n"
    del record["probabilities"]  # as in a journal of before; and no names are known
    result_tables.write_predictions(CLASSIFICATION, [(odd, record)], {}, tmp_path / "p.csv")
    assert (tmp_path / "p.csv").read_bytes() == header + b"caf\xe9.png,1,2,0,1,class 1,class 2,none\n"


APPEND = """
import sys
from swins.evaluate.result_tables import append_row, columns_of
from swins.tasks.classification import CLASSIFICATION
row = dict.fromkeys(columns_of(CLASSIFICATION), sys.argv[2])
for _ in range(20):
    append_row(row, sys.argv[1])
    print("row", flush=True)
"""


@pytest.mark.slow
def test_two_processes_add_rows_and_one_that_is_killed_leaves_whole_ones(tmp_path):
    path = tmp_path / "results.csv"
    started = [subprocess.Popen([sys.executable, "-c", APPEND, path, name], stdout=subprocess.PIPE) for name in "ab"]
    assert started[0].stdout.readline()
    started[0].kill()
    for process in started:
        process.communicate(timeout=120)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    models = [row["model"] for row in rows]
    assert models.count("b") == 20 and models.count("a") >= 1 and all(len(set(row.values())) == 1 for row in rows)
    # a table that something cut is found before the run, and a link stays one
    (tmp_path / "link.csv").symlink_to(path)
    result_tables.append_row({**rows[0], "model": "c", "source_sha256": ""}, tmp_path / "link.csv")
    assert (tmp_path / "link.csv").is_symlink() and path.read_text().count("\n") == len(rows) + 2
    path.write_text(path.read_text()[:-3])
    with pytest.raises(SwinsError, match=r"every row must have 15 columns; row \d+ has not"):
        result_tables.check_table(path)
