"""Evaluation: the same numbers from every source, exact counts, and files that are no images."""

import csv
import json
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from shared_fixtures import DATA, NAME

from swins import opening
from swins.data import labelled
from swins.errors import SwinsError
from swins.evaluate import records
from swins.images import preprocess
from swins.labels import FASHION_MNIST, class_names
from swins.opening import open_model
from swins.tasks.classification import CLASSIFICATION
from swins.tasks.classification_evaluation import read_real, relabelled
from swins.weights import artefacts

COUNT = 70


@pytest.fixture
def table(samples, tmp_path):
    """The images in one folder with labels.csv."""
    folder = tmp_path / "flat"
    (folder / "images").mkdir(parents=True)
    rows = ["file,label,author"]
    for i, (image, label) in enumerate(zip(*samples, strict=True)):
        Image.fromarray(image).save(folder / "images" / f"{i}.png")
        rows.append(f"{i}.png,{label},me")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def evaluate(command, *arguments):
    code, out, err = command("eval", *arguments, "--quiet")
    return code, json.loads(out) if out else None, err


@pytest.mark.slow
def test_sources_and_batches_agree(command, converted, folders, table, samples, tmp_path):
    rows = [
        evaluate(command, converted, "--data", source, "--batch", batch)[1]
        for source, batch in ((folders, 32), (table, 7), (table, 70), (folders, 1))
    ]
    assert {(row["images"], row["top1"], row["top5"]) for row in rows} == {(COUNT, rows[0]["top1"], rows[0]["top5"])}
    assert rows[0]["top1"] > 0.8 and rows[0]["top5"] > 0.95
    assert rows[0]["weights_sha256"] == json.loads((converted / "certificate.json").read_text())["weights_sha256"]


@pytest.mark.slow
def test_the_embedded_test_images(command, converted, table, tmp_path):
    results, predictions = tmp_path / "results.csv", tmp_path / "predictions.csv"
    for data in (table, DATA):
        arguments = ("--data", data, "--batch", 500, "--results", results, "--predictions", predictions)
        code, row, err = evaluate(command, converted, *arguments)
        assert code == 0, err
    assert row["images"] == 10_000 and row["top1"] >= 0.90 and row["model"] == NAME
    with open(results, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [line["images"] for line in rows] == [str(COUNT), "10000"] and float(rows[1]["top1"]) == row["top1"]
    with open(predictions, newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 10_000
    assert np.mean([line["label"] == line["top1"] for line in lines]) == pytest.approx(row["top1"], abs=1e-5)


@pytest.mark.slow
@pytest.mark.core
@pytest.mark.backends
def test_a_keras_file_is_evaluated_by_its_name(command, converted, table):
    code, row, err = evaluate(command, converted / "model.keras", "--data", table)
    assert code == 0, err
    assert row["weights_sha256"] == json.loads((converted / "certificate.json").read_text())["weights_sha256"]


@pytest.mark.slow
def test_weights_that_were_not_certified_are_not_scored_as_such(command, artefact, table):
    model = artefacts.load_model(artefact)
    model.get_layer("norm").beta.assign_add(np.ones(96))
    model.save(artefact / "model.keras")
    code, _, err = evaluate(command, artefact, "--data", table)
    assert code == 1 and "not hold the weights that were certified" in err
    assert evaluate(command, artefact / "model.keras", "--data", table)[0] == 0


@pytest.mark.slow
def test_rgb_weights_made_grey_are_evaluated_on_grey_images(command, perturbed, tmp_path):
    file = perturbed("swin_tiny_patch4_window7_224", in_chans=1, num_classes=10)
    code, _, err = command("convert", "-m", "swin_tiny_patch4_window7_224", "--checkpoint", file, "-o", tmp_path / "a")
    assert code == 0, err
    (tmp_path / "data").mkdir()
    Image.fromarray(np.zeros((50, 60, 3), "uint8")).save(tmp_path / "data" / "a.png")
    (tmp_path / "data" / "labels.csv").write_text("file,label\na.png,3\n")
    code, row, err = evaluate(command, tmp_path / "a", "--data", tmp_path / "data")
    assert code == 0 and row["images"] == 1, err


def test_score_counts_by_hand():
    records = [{"label": label, "top": [1, 2, 3, 4, 5]} for label in (1, 2, 9)]
    assert CLASSIFICATION.score(records) == {"top1": pytest.approx(1 / 3), "top5": pytest.approx(2 / 3)}


@pytest.mark.slow
def test_files_that_are_no_images_are_named_and_counted(command, converted, folders, tmp_path):
    (folders / "dress" / "notes.txt").write_text("not an image")
    (folders / "sandal" / "cut.png").write_bytes(next(folders.rglob("*.png")).read_bytes()[:60])
    results = tmp_path / "results.csv"
    report = tmp_path / "report"
    code, row, err = evaluate(command, converted, "--data", folders, "--results", results, "--report", report)
    assert code == 1
    assert "left out of" in err and "notes.txt" in err  # as in training
    assert "cut.png" in err and "1 of 71 are not" in err
    assert "add --skip-unreadable to the command, which then writes what it finds of the other 70" in err
    assert (row["images"], row["unreadable"]) == (COUNT, 1)
    assert not results.exists() and not report.exists()
    code, row, err = evaluate(command, converted, "--data", folders, "--results", results, "--skip-unreadable")
    assert code == 0 and "notes.txt" in err
    with open(results, newline="") as file:
        assert next(csv.DictReader(file))["unreadable"] == "1"


def test_class_folders_are_matched_by_name(command, converted, folders, samples):
    predictions = folders.parent / "p.csv"
    code, _, err = evaluate(command, converted, "--data", folders, "--predictions", predictions)
    assert code == 0 and " classes" not in err
    with open(predictions, newline="") as file:
        rows = [(row["file"], int(row["label"])) for row in csv.DictReader(file)]
    assert all(FASHION_MNIST[label] == name.split("/")[0] for name, label in rows)
    # some of the classes, in other case and with other separators
    shutil.rmtree(folders / "dress")
    (folders / "ankle boot").rename(folders / "Ankle_Boot")
    (folders / "t-shirt").rename(folders / "T SHIRT")
    code, row, err = evaluate(command, converted, "--data", folders)
    assert code == 0 and row["images"] == COUNT - np.sum(samples[1] == 3), err
    assert "Ankle_Boot = ankle boot" in err and "9 of the 10 classes" in err and row["top1"] > 0.8
    # what is no class of the model's
    (folders / "bag").rename(folders / "handbag")
    code, _, err = evaluate(command, converted, "--data", folders)
    assert code == 1 and "1 are not: handbag; the model's are 10: t-shirt, trouser" in err and "--class-order" in err
    # one class twice
    (folders / "handbag").rename(folders / "bag")
    (folders / "BAG").mkdir()
    code, _, err = evaluate(command, converted, "--data", folders)
    assert code == 1 and "(is bag again)" in err


@pytest.mark.slow
def test_the_order_that_is_asked_for(command, converted, folders, tmp_path):
    for i, name in enumerate(FASHION_MNIST):
        (folders / name).rename(folders / f"class{i + 1}")
    code, _, err = evaluate(command, converted, "--data", folders)
    assert code == 1 and "10 are not: class1" in err
    names = tmp_path / "names.txt"
    names.write_text("".join(f"Class {i + 1}\n" for i in range(10)))
    (tmp_path / "names.json").write_text(json.dumps({f"class{i + 1}": i for i in range(10)}))
    natural, plain = (
        evaluate(command, converted, "--data", folders, "--class-order", order)[1]["top1"]
        for order in ("natural", "sorted")
    )
    assert natural > 0.8 > 0.3 > plain
    for order in ("natural", names, tmp_path / "names.json"):
        found = labelled.find_dataset(folders, 10, names=FASHION_MNIST, order=order)
        assert all(name.startswith(f"class{label + 1}/") for name, _, label in found.samples)
    for text, said in (("a\na\n", "each once"), ('{"a": 1}', "0, 1, 2"), ("a\nb\n", "got 2 and 10"), ("[1]", "texts")):
        names.write_text(text)
        with pytest.raises(SwinsError, match=said):
            labelled.find_dataset(folders, 10, order=names)
    with pytest.raises(SwinsError, match="--class-order must be natural, sorted or a file"):
        labelled.find_dataset(folders, 10, order="alphabetic")
    with pytest.raises(SwinsError, match="is of class folders"):
        labelled.find_dataset(DATA, 10, order="natural")


@pytest.mark.slow
def test_where_no_names_are_known_the_order_is_said(command, converted, folders):
    for i, name in enumerate(FASHION_MNIST):
        (folders / name).rename(folders / f"class{i + 1}")
    code, row, err = evaluate(command, converted / "model.keras", "--data", folders)
    assert code == 0 and "classes are taken in sorted order: class1, class10, class2" in err and row["top1"] < 0.3
    assert "--class-order natural takes the other" in err
    shutil.rmtree(folders / "class3")
    code, _, err = evaluate(command, converted / "model.keras", "--data", folders)
    assert code == 1 and "got 9 and 10" in err and "CSV of labels" in err


@pytest.mark.slow
def test_outputs_are_checked_before_the_run(command, converted, table, tmp_path):
    code, _, _ = evaluate(command, converted, "--data", table, "--predictions", tmp_path / "new" / "p.csv")
    assert code == 0 and (tmp_path / "new" / "p.csv").is_file()


@pytest.mark.slow
def test_broken_links_and_odd_images_are_counted_too(command, converted, folders):
    (folders / "dress" / "dangling.png").symlink_to("/nonexistent.png")
    Image.fromarray(np.zeros((28, 28), "uint16")).save(folders / "coat" / "deep.png")
    code, row, err = evaluate(command, converted, "--data", folders)
    assert code == 1 and row["unreadable"] == 2
    assert "dangling.png" in err and "not 8-bit" in err


def test_outputs_that_cannot_be_written_are_refused_at_once(command, converted, table, tmp_path):
    for option, target in (
        ("--results", tmp_path),
        ("--predictions", tmp_path),
        ("--results", converted / "model.keras"),
    ):
        code, row, err = evaluate(command, converted, "--data", table, option, target)
        assert code == 1 and row is None and "choose another" in err, err


def test_another_models_name_is_refused(command, converted, table):
    code, _, err = evaluate(command, converted, "--data", table, "-m", "swin_tiny_patch4_window7_224")
    assert code == 1 and "is no swin_tiny_patch4_window7_224" in err


@pytest.mark.slow
def test_bad_tables_and_folders(command, converted, table, tmp_path):
    text = (table / "labels.csv").read_text()
    for bad, words in (
        (text.replace("0.png,9", "0.png,10"), "integers from 0 to 9; 1 are not: 0.png: '10'"),
        (text.replace("0.png,9", "0.png,boot"), "0.png: 'boot'"),
        (text.replace("0.png,9", "0.png,\u00b2"), "0.png: '\u00b2'"),
        (text.replace("0.png,9", ",9"), "every row must name a file; row 2 does not"),
        (text.replace("file,label", "x,y"), "needs a column of file"),
        ("", "got no header"),
        ("file,label\n", "holds no labelled images"),
    ):
        (table / "labels.csv").write_text(bad)
        code, _, err = evaluate(command, converted, "--data", table)
        assert code == 1 and words in err, err
    (table / "labels.csv").write_bytes(text.encode("utf-16"))
    code, _, err = evaluate(command, converted, "--data", table)
    assert code == 1 and "not a CSV in UTF-8" in err
    code, _, err = evaluate(command, converted, "--data", tmp_path / "none")
    assert code == 1 and "no such folder" in err
    code, _, err = evaluate(command, converted, "--data", table, "--labels", tmp_path / "none.csv")
    assert code == 1 and "no such CSV" in err
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "t10k-images-idx3-ubyte.gz").write_bytes(b"junk")
    code, _, err = evaluate(command, converted, "--data", tmp_path / "bad")
    assert code == 1 and "not a gzipped IDX file" in err


@pytest.mark.slow
def test_files_named_by_a_table_that_are_missing(command, converted, table):
    for i in (0, 5):
        (table / "images" / f"{i}.png").unlink()
    code, row, err = evaluate(command, converted, "--data", table)
    assert code == 1 and "0.png" in err and "5.png" in err and row["unreadable"] == 2


def test_another_table_is_not_appended_to(command, converted, table, tmp_path):
    (tmp_path / "mine.csv").write_text("a,b\n1,2\n")
    code, _, err = evaluate(command, converted, "--data", table, "--results", tmp_path / "mine.csv")
    assert code == 1 and "a results table has the columns" in err
    assert (tmp_path / "mine.csv").read_text() == "a,b\n1,2\n"


@pytest.mark.slow
def test_ended_half_way_it_goes_on(command, converted, table, tmp_path, monkeypatch):
    whole, half = tmp_path / "whole.csv", tmp_path / "half.csv"
    code, row, _ = evaluate(command, converted, "--data", table, "--batch", 8, "--predictions", whole)
    assert code == 0 and not list(tmp_path.glob(".*.journal"))
    real, calls = records.predict, []

    def ends(*arguments):
        calls.append(len(arguments[1]))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(records, "predict", ends)
    code, _, _ = command("eval", converted, "--data", table, "--batch", 8, "--predictions", half, "--quiet")
    assert code and not half.exists()
    (journal,) = tmp_path.glob(".half.csv.journal")
    journal.write_text(journal.read_text() + '["a.png", 1, [3,')  # it was killed while it wrote
    code, again, err = evaluate(command, converted, "--data", table, "--batch", 8, "--predictions", half)
    assert code == 0 and "going on after 24 of 70 images" in err and sum(calls) == 70 + 8
    assert half.read_text() == whole.read_text() and again["top1"] == row["top1"] and not journal.exists()
    # another protocol begins again
    journal.write_text('["other"]\n["0.png", 1, [1, 2, 3, 4, 5]]\n')
    code, third, err = evaluate(command, converted, "--data", table, "--predictions", half)
    assert code == 0 and "going on" not in err and third["images"] == COUNT


def test_what_was_predicted_counts_for_the_same_samples_only(tmp_path):
    journal = records.Journal(tmp_path / "j", ["x"])
    journal.add([["a", 1, [1]], ["c", 2, [2]]])
    samples = [(name, None, label) for name, label in (("a", 1), ("b", 0), ("c", 2))]  # b came later
    again = records.Journal(tmp_path / "j", ["x"])
    assert [name for name, *_ in again.follow(samples)] == ["b", "c"]
    assert records.Journal(tmp_path / "j", ["x"]).rows == [["a", 1, [1]]]
    again = records.Journal(tmp_path / "j", ["x"])
    assert list(again.follow([])) == [] == again.rows
    again.add([["a", 1, "no image"], ["c", 2, [2]]])
    assert records.Journal(tmp_path / "j", ["x"], skip_unreadable=True).rows == [["a", 1, "no image"], ["c", 2, [2]]]
    assert not records.Journal(tmp_path / "j", ["x"]).rows  # it may have been mended


@pytest.mark.slow
def test_other_labels(command, converted, table, samples, tmp_path):
    names = sorted(f"{i}.png" for i in range(COUNT))
    labels = [int(samples[1][int(name.removesuffix(".png"))]) for name in names]
    real = [[label, (label + 1) % 10] for label in labels]
    real[0] = []
    (tmp_path / "real.json").write_text(json.dumps(real))
    _, plain, _ = evaluate(command, converted, "--data", table)
    code, row, err = evaluate(command, converted, "--data", table, "--real", tmp_path / "real.json")
    assert code == 0, err
    assert row["images"] == COUNT - 1 and row["top1"] >= plain["top1"] - 0.02 and row["dataset"] == "flat (real)"
    rows = [("b.png", {"label": 0, "top": [4, 5, 6, 7, 8]}), ("a.png", {"label": 0, "top": [1, 2, 3, 4, 5]})]
    (tmp_path / "map.json").write_text(json.dumps({"a.png": [9, 2], "b.png": [4, 0]}))
    records = [record for _, record in relabelled(rows, read_real(tmp_path / "map.json"))]
    assert CLASSIFICATION.score(records) == {"top1": 0.5, "top5": 1.0}
    wrong = {"[[1]]": "labels of every image", "{}": "2 have none", "x": "no JSON", "[1, 2]": "list of lists"}
    for text, said in wrong.items():
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(SwinsError, match=said):
            relabelled(rows, read_real(tmp_path / "bad.json"))


@pytest.mark.slow
def test_every_artefact_in_a_folder(command, converted, table, tmp_path):
    (tmp_path / "all").mkdir()
    shutil.copytree(converted, tmp_path / "all" / "one")
    results = tmp_path / "results.csv"
    (tmp_path / "real.json").write_text(json.dumps([[], *[[1]] * (COUNT - 1)]))  # one has no label
    for more, images in (((), [COUNT]), (("--real", tmp_path / "real.json"), [COUNT, COUNT - 1])):
        for said in ("", "has its row"):
            arguments = ("--all", tmp_path / "all", "--data", table, "--results", results, "--quiet", *more)
            code, _, err = command("eval", *arguments)
            assert code == 0 and said in err
            with open(results, newline="") as file:
                assert [int(row["images"]) for row in csv.DictReader(file)] == images
    # one that cannot be evaluated does not keep the others from it
    shutil.copytree(converted, tmp_path / "all" / "a_broken")
    (tmp_path / "all" / "a_broken" / "model.keras").write_bytes(b"PK")
    code, out, err = command("eval", "--all", tmp_path / "all", "--data", table, "--quiet")
    assert code == 1 and out.count('"images"') == 1 and re.search(r"1 of 2 could not be evaluated: .*a_broken", err)
    code, _, err = command("eval", "--all", table, "--data", table)
    assert code == 1 and "holds no artefacts" in err
    code, _, err = command("eval", "--all", tmp_path, "--data", table, "--predictions", tmp_path / "p.csv")
    assert code == 1 and "--all evaluates many artefacts" in err


@pytest.mark.slow
def test_names_that_are_no_utf_8(command, converted, folders, tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    next((folders / "bag").iterdir()).rename(folders / "bag" / name)
    odd = folders.rename(folders.with_name(os.fsdecode(b"d\xe9")))
    predictions, table = tmp_path / "p.csv", tmp_path / "r.csv"
    code, row, err = evaluate(command, converted, "--data", odd, "--predictions", predictions, "--results", table)
    assert code == 0 and row["images"] == COUNT, err
    assert b"bag/caf\xe9.png,8," in predictions.read_bytes() and b",d\\xe9,timm," in table.read_bytes()
    (odd / os.fsdecode(b"\xe9")).mkdir()
    code, _, err = evaluate(command, converted, "--data", odd)
    assert code == 1 and "must have names in UTF-8" in err


@pytest.mark.slow
def test_linked_folders_are_followed_and_loops_end(command, converted, folders):
    (folders.parent / "elsewhere").mkdir()
    (folders / "bag").rename(folders.parent / "elsewhere" / "more")
    (folders / "bag").mkdir()
    (folders / "bag" / "link").symlink_to(folders.parent / "elsewhere")
    (folders.parent / "elsewhere" / "back").symlink_to(folders / "bag")
    (folders / "coat" / "up").symlink_to("../..")
    code, row, err = evaluate(command, converted, "--data", folders)
    assert code == 0 and row["images"] == COUNT, err


def test_an_unfinished_run_is_called_so(command, folders, tmp_path):
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    (run_folder / "recipe.json").write_text(json.dumps({"model.name": NAME, "epochs": 30, "training data": "x"}))
    (run_folder / "log.csv").write_text("epoch\n1\n2\n")
    code, _, err = evaluate(command, run_folder, "--data", folders)
    assert code == 1 and f"an unfinished run of `swins train` ({NAME}, 2 of 30 epochs)" in err
    assert f"swins train RECIPE --data DATA -o {run_folder}" in err
    for function in (open_model, preprocess, class_names):
        with pytest.raises(SwinsError, match="unfinished run"):
            function(run_folder)


@pytest.mark.slow
def test_a_name_means_published_weights_whatever_folder_is_called_so(converted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAME).symlink_to(converted)
    monkeypatch.setattr(opening, "of_weights", lambda *arguments: arguments[1:3])
    assert open_model(NAME) == (NAME, "pretrained")
    opened = open_model(f"./{NAME}")
    assert opened.model.variant.num_classes == 10 and opened.name == NAME
    assert open_model(tmp_path / NAME).name == NAME
