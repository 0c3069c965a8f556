"""What `swins eval --report` leaves: tables that add up, a figure, and a sheet of the worst mistakes."""

import csv
import sys

import numpy as np
import pytest
from PIL import Image

from swins.errors import SwinsError
from swins.evaluate import reports
from swins.tasks import classification_report
from swins.tasks.classification import CLASSIFICATION

NAMES = ["boot", "shirt", "trouser, of any kind"]
ROWS = [  # (file, label, answer, its probability)
    ("a.png", 0, 0, 0.9),
    ("b.png", 0, 1, 0.6),
    ("c.png", 0, 1, 0.8),
    ("d.png", 1, 1, 0.5),
    ("e.png", 1, 2, 0.99),
    ("f.png", 0, 2, 0.4),
]
RECORDS = [(n, {"label": t, "top": [a, (a + 1) % 3, (a + 2) % 3], "probabilities": [p]}) for n, t, a, p in ROWS]
FACTS = {"classes": NAMES}


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_tables_count_by_hand(tmp_path, rng):
    images = {name: rng.integers(0, 256, (28, 20 + i), "uint8") for i, (name, *_) in enumerate(ROWS)}
    samples = ((name, images[name], 0) for name in images)
    written = reports.write(CLASSIFICATION, RECORDS, FACTS, samples, tmp_path)
    assert [path.name for path in written] == [
        *("classes.csv", "confusion.csv", "mistakes.csv", "confusion.png", "mistakes.png")
    ]
    matrix = [[int(row[name]) for name in NAMES] for row in table(tmp_path / "confusion.csv")]
    assert matrix == [[1, 2, 1], [0, 1, 1], [0, 0, 0]]
    boot, shirt, trouser = table(tmp_path / "classes.csv")
    assert (boot["images"], boot["right"], boot["recall"], boot["precision"]) == ("4", "1", "0.25", "1.0")
    assert (boot["mostly_taken_for"], boot["times"], boot["f1"]) == ("shirt", "2", "0.4")
    assert (shirt["recall"], shirt["precision"]) == ("0.5", "0.33333")
    assert (trouser["images"], trouser["recall"], trouser["precision"]) == ("0", "none", "0.0")
    first, *_, last = table(tmp_path / "mistakes.csv")
    assert first == {
        "file": "e.png",
        "is": "shirt",
        "said": "trouser, of any kind",
        "probability": "0.99",
        "probability_of_is": "none",
    }
    assert last["file"] == "f.png" and last["is"] == "boot"
    with Image.open(tmp_path / "mistakes.png") as sheet, Image.open(tmp_path / "confusion.png") as figure:
        assert sheet.size == (4 * 176, 224) and figure.width > 300
        assert len(np.unique(np.asarray(sheet))) > 100
    # none is wrong: no sheet of mistakes, not of an evaluation before either
    reports.write(CLASSIFICATION, RECORDS[:1], FACTS, iter(()), tmp_path)
    assert not (tmp_path / "mistakes.png").exists()


def test_the_surest_mistakes_come_first():
    worst = classification_report.worst(RECORDS, FACTS)
    assert [name for name, _ in worst] == ["e.png", "c.png", "b.png", "f.png"]
    assert worst[0][1] == ("is shirt", "said trouser 99%")
    bare = [
        (name, {key: record[key] for key in ("label", "top")}) for name, record in RECORDS
    ]  # of a journal of before
    assert len(classification_report.worst(bare, {})) == 4
    assert classification_report.class_names([record for _, record in bare], {}) == ["class 0", "class 1", "class 2"]


def test_a_file_is_no_folder_for_a_report(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(SwinsError, match=r"--report takes a folder; .* is a file"):
        reports.check_folder(tmp_path / "x")
    with pytest.raises(SwinsError, match=r"takes a folder that can be written; got .*x/new, and .*x cannot"):
        reports.check_folder(tmp_path / "x" / "new")
    reports.check_folder(tmp_path / "a" / "new")
    assert not (tmp_path / "a").exists()  # before there is something to write


def test_what_is_not_drawn_is_said(tmp_path, monkeypatch):
    (tmp_path / "confusion.png").write_text("of an evaluation before")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    lines = []
    written = reports.write(CLASSIFICATION, RECORDS, FACTS, iter(()), tmp_path, lines.append)
    assert [path.name for path in written] == ["classes.csv", "confusion.csv", "mistakes.csv"]
    (line,) = lines
    assert line.startswith("left out: drawing confusion.png needs matplotlib: pip install 'swins[plot]'")
    assert not (tmp_path / "confusion.png").exists()


@pytest.mark.slow
def test_the_command(command, converted, folders, tmp_path):
    out = tmp_path / "report"
    code, _, err = command("eval", converted, "--data", folders, "--report", out, "--quiet")
    assert code == 0 and f"wrote {out / 'mistakes.png'}" in err, err
    rows = table(out / "classes.csv")
    assert len(rows) == 10 and sum(int(row["images"]) for row in rows) == 70
    code, _, err = command("eval", tmp_path, "--all", "--data", folders, "--report", out)
    assert code == 1 and "no --report" in err
