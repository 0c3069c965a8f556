"""Evaluation: the same numbers from every source, exact counts, and files that are no images."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import DATA, NAME
from PIL import Image

from swins.data import labelled, layouts
from swins.errors import SwinsError
from swins.evaluate import evaluation, results, scoring
from swins.evaluate.evaluation import find_model
from swins.images import preprocess
from swins.labels import FASHION_MNIST, class_names
from swins.labels import table as class_table
from swins.weights import artefacts

COUNT = 70


@pytest.fixture(scope="module")
def samples():
    """The first test images and their labels."""
    pixels, labels = (labelled.read_idx(DATA / f"t10k-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    return pixels[:COUNT], labels[:COUNT]


@pytest.fixture
def folders(samples, tmp_path):
    """The images as one folder per class."""
    for i, (image, label) in enumerate(zip(*samples, strict=True)):
        path = tmp_path / "data" / FASHION_MNIST[label] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return tmp_path / "data"


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
def test_the_embedded_test_images(command, converted, tmp_path):
    results, predictions = tmp_path / "results.csv", tmp_path / "predictions.csv"
    arguments = ("--data", DATA, "--batch", 500, "--results", results, "--predictions", predictions)
    for _ in range(2):
        code, row, err = evaluate(command, converted, *arguments)
        assert code == 0, err
    assert row["images"] == 10_000 and row["top1"] >= 0.90 and row["model"] == NAME
    with open(results, newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 and float(rows[0]["top1"]) == row["top1"]
    with open(predictions, newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 10_000
    assert np.mean([line["label"] == line["top1"] for line in lines]) == pytest.approx(row["top1"], abs=1e-5)


@pytest.mark.core
@pytest.mark.backends
def test_a_keras_file_is_evaluated_by_its_name(command, converted, table):
    code, row, err = evaluate(command, converted / "model.keras", "--data", table)
    assert code == 0, err
    assert row["weights_sha256"] == json.loads((converted / "certificate.json").read_text())["weights_sha256"]


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
    predictions = [("a", 1, [1, 2, 3, 4, 5]), ("b", 2, [1, 2, 3, 4, 5]), ("c", 9, [1, 2, 3, 4, 5])]
    assert scoring.score(predictions) == (pytest.approx(1 / 3), pytest.approx(2 / 3))


def test_files_that_are_no_images_are_named_and_counted(command, converted, folders, tmp_path):
    (folders / "dress" / "notes.txt").write_text("not an image")
    (folders / "sandal" / "cut.png").write_bytes(next(folders.rglob("*.png")).read_bytes()[:60])
    results = tmp_path / "results.csv"
    code, row, err = evaluate(command, converted, "--data", folders, "--results", results)
    assert code == 1
    assert "left out of" in err and "notes.txt" in err  # as in training
    assert "cut.png" in err and "1 of 71 are not" in err and "--skip-unreadable" in err
    assert (row["images"], row["unreadable"]) == (COUNT, 1)
    assert not results.exists()
    code, row, err = evaluate(command, converted, "--data", folders, "--results", results, "--skip-unreadable")
    assert code == 0 and "notes.txt" in err
    with open(results, newline="") as file:
        assert next(csv.DictReader(file))["unreadable"] == "1"


def test_class_folders_are_matched_by_name(command, converted, folders, samples):
    predictions = folders.parent / "p.csv"
    code, _, err = evaluate(command, converted, "--data", folders, "--predictions", predictions)
    assert code == 0 and "classes" not in err
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


def test_where_no_names_are_known_the_order_is_said(command, converted, folders):
    for i, name in enumerate(FASHION_MNIST):
        (folders / name).rename(folders / f"class{i + 1}")
    code, row, err = evaluate(command, converted / "model.keras", "--data", folders)
    assert code == 0 and "classes are taken in sorted order: class1, class10, class2" in err and row["top1"] < 0.3
    assert "--class-order natural takes the other" in err
    shutil.rmtree(folders / "class3")
    code, _, err = evaluate(command, converted / "model.keras", "--data", folders)
    assert code == 1 and "got 9 and 10" in err and "CSV of labels" in err


def numbered(names, count, known=()):
    return labelled.class_numbers("data", names, labelled.Classes(count, tuple(known)))


def test_imagenets_folders_are_matched_by_synset_or_name():
    synsets, names = [row[0] for row in class_table("imagenet1k")], class_names(1000)
    for known in (names, ()):  # known by its tag, or by its count alone
        assert numbered(synsets[::-1], 1000, known).numbers == tuple(range(999, -1, -1))
        assert numbered(["n01443537", "n02102040"], 1000, known).numbers == (1, 217)  # Imagenette's are ten of them
    found = numbered(["Goldfish", "golden_retriever", "tench, Tinca tinca"], 1000, names)
    assert found.numbers == (1, 207, 0) and "Goldfish = goldfish, Carassius auratus" in found.notes[0]
    with pytest.raises(SwinsError, match=r"crane \(could be 2\)"):
        numbered(["crane"], 1000, names)  # the bird or the machine
    assert numbered(["n02102040"], 2, ("n01443537", "n02102040")).numbers == (1,)
    assert numbered(["goldfish"], 2, ("n01443537", "n02102040")).numbers == (0,)
    every = [row[0] for row in class_table("imagenet22k")]
    assert numbered(every, 21841, class_names(21841)).numbers == tuple(range(21841))  # of which many have one name
    with pytest.raises(SwinsError, match="1 are not: n01440764; the model's are 1000: dog0"):
        numbered(["n01440764"], 1000, [f"dog{i}" for i in range(1000)])


def test_folders_that_are_numbers():
    assert numbered(["0", "2", "1"], 3, "abc").numbers == (0, 2, 1)
    found = numbered(["2", "0"], 3)
    assert found.numbers == (2, 0) and "taken as numbers from 0; 2 of 3" in found.notes[0]
    assert numbered(["1", "2"], 3, ("1", "2", "3")).numbers == (0, 1)  # a run's names that are numbers are names
    with pytest.raises(SwinsError, match="2 are not: 01, 02"):
        numbered(["01", "02"], 3, ("1", "2", "3"))
    assert numbered(["1", "2", "3"], 3).notes[0].startswith("classes are taken in sorted order")


def test_composed_and_decomposed_letters_are_the_same():
    assert numbered(["cafe\u0301", "C++"], 2, ("c++", "caf\u00e9")).numbers == (1, 0)  # a Mac's; C++ is not C
    with pytest.raises(SwinsError, match="1 are not: c"):
        numbered(["c"], 1, ("c++",))


def test_splits_of_a_data_set_are_matched_by_name_too(folders, tmp_path):
    known = ("truck", "ship", "horse", "frog", "dog", "deer", "cat", "bird", "Automobile", "airplane")
    records = np.zeros((3, layouts.CIFAR_BYTES), "uint8")
    records[:, 0] = (6, 9, 1)
    records.tofile(tmp_path / layouts.TEST_BATCH)
    dataset = labelled.find_dataset(tmp_path, 10, names=known)
    assert [label for _, _, label in dataset.samples] == [3, 0, 8] and "automobile = Automobile" in dataset.notes[0]
    assert "in this order, airplane, automobile" in labelled.find_dataset(tmp_path, 10).notes[0]
    shutil.copytree(folders, tmp_path / "both" / "train")
    shutil.copytree(folders / "sandal", tmp_path / "both" / "val" / "Sandal")
    dataset = labelled.find_dataset(tmp_path / "both", 10, names=FASHION_MNIST)
    assert {label for _, _, label in dataset.samples} == {5}


def test_other_sources_must_have_the_models_classes_too():
    with pytest.raises(SwinsError, match="got 10 and 1000"):
        labelled.find_dataset(DATA, 1000)


def test_a_flipped_byte_in_an_idx_file(tmp_path):
    content = bytearray((DATA / "t10k-labels-idx1-ubyte.gz").read_bytes())
    for place in range(20, len(content), 400):
        broken = bytearray(content)
        broken[place] ^= 0xFF
        (tmp_path / "x.gz").write_bytes(broken)
        with pytest.raises(SwinsError, match="not a gzipped IDX file"):
            labelled.read_idx(tmp_path / "x.gz")


def test_outputs_are_checked_before_the_run(command, converted, table, tmp_path):
    code, _, _ = evaluate(command, converted, "--data", table, "--predictions", tmp_path / "new" / "p.csv")
    assert code == 0 and (tmp_path / "new" / "p.csv").is_file()


def test_a_flat_folder_needs_a_table(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(SwinsError, match="neither class folders"):
        labelled.find_dataset(tmp_path, 10)


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


def test_imagenet_model_wants_1000_folders(tmp_path):
    (tmp_path / "n01440764x").mkdir()
    with pytest.raises(SwinsError, match="got 1 and 1000"):
        labelled.find_dataset(tmp_path, 1000)


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


def test_tensorflow_datasets_source(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets", reason="needs swins[datasets]")
    with pytest.raises(SwinsError, match="prepare it with tensorflow-datasets"):
        labelled.from_tfds("imagenet2012", labelled.Classes(1000), data_dir=tmp_path)
    with tfds.testing.mock_data(num_examples=3, policy=tfds.testing.MockPolicy.USE_CODE):
        with pytest.raises(SwinsError, match="1 are not: n04399382; the model's are 21841"):
            labelled.find_dataset("tfds:imagenet2012", 21841)
        dataset = labelled.find_dataset("tfds:imagenet2012", 1000)
        rows = list(dataset.samples)
    assert len(rows) == 3
    for name, image, label in rows:
        assert isinstance(name, str) and isinstance(image, bytes) and 0 <= label < 1000


def test_folders_named_by_numbers_are_class_numbers(tmp_path):
    for i in range(12):
        (tmp_path / str(i)).mkdir()
    assert [c.name for c in layouts.folders(tmp_path)] == [str(i) for i in range(12)]
    (tmp_path / "other").mkdir()
    assert [c.name for c in layouts.folders(tmp_path)][:3] == ["0", "1", "10"]


def test_data_sets_with_splits_are_evaluated_on_the_validation_split(folders, tmp_path):
    shutil.copytree(folders, tmp_path / "both" / "train")
    shutil.copytree(folders / "sneaker", tmp_path / "both" / "val" / "sneaker")
    dataset = labelled.find_dataset(tmp_path / "both", 10)
    assert dataset.count and {label for _, _, label in dataset.samples} == {sorted(FASHION_MNIST).index("sneaker")}
    records = np.zeros((3, layouts.CIFAR_BYTES), "uint8")
    records[:, 0] = (6, 9, 2)
    records.tofile(tmp_path / layouts.TEST_BATCH)
    dataset = labelled.find_dataset(tmp_path, 10)
    assert [label for _, _, label in dataset.samples] == [6, 9, 2]


def test_ended_half_way_it_goes_on(command, converted, table, tmp_path, monkeypatch):
    whole, half = tmp_path / "whole.csv", tmp_path / "half.csv"
    code, row, _ = evaluate(command, converted, "--data", table, "--batch", 8, "--predictions", whole)
    assert code == 0 and not list(tmp_path.glob(".*.journal"))
    real, calls = scoring.predict, []

    def ends(*arguments):
        calls.append(len(arguments[1]))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(scoring, "predict", ends)
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
    journal = scoring.Journal(tmp_path / "j", ["x"])
    journal.add([["a", 1, [1]], ["c", 2, [2]]])
    samples = [(name, None, label) for name, label in (("a", 1), ("b", 0), ("c", 2))]  # b came later
    again = scoring.Journal(tmp_path / "j", ["x"])
    assert [name for name, *_ in again.follow(samples)] == ["b", "c"]
    assert scoring.Journal(tmp_path / "j", ["x"]).rows == [["a", 1, [1]]]
    again = scoring.Journal(tmp_path / "j", ["x"])
    assert list(again.follow([])) == [] == again.rows
    again.add([["a", 1, "no image"], ["c", 2, [2]]])
    assert scoring.Journal(tmp_path / "j", ["x"], skip_unreadable=True).rows == [["a", 1, "no image"], ["c", 2, [2]]]
    assert not scoring.Journal(tmp_path / "j", ["x"]).rows  # it may have been mended


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
    predictions = [("b.png", 0, [4, 5, 6, 7, 8]), ("a.png", 0, [1, 2, 3, 4, 5])]
    (tmp_path / "map.json").write_text(json.dumps({"a.png": [9, 2], "b.png": [4, 0]}))
    assert scoring.score(scoring.relabelled(predictions, scoring.read_real(tmp_path / "map.json"))) == (0.5, 1.0)
    wrong = {"[[1]]": "labels of every image", "{}": "2 have none", "x": "no JSON", "[1, 2]": "list of lists"}
    for text, said in wrong.items():
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(SwinsError, match=said):
            scoring.relabelled(predictions, scoring.read_real(tmp_path / "bad.json"))


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


def test_data_sets_are_told_apart_by_their_names(tmp_path):
    for name, said in (("noise/1", "noise/1"), ("a/val", "a/val"), ("photos", "photos")):
        (tmp_path / name).mkdir(parents=True)
        assert (
            labelled.named(tmp_path / name) == labelled.named(tmp_path / name, tmp_path / name / "labels.csv") == said
        )
        assert labelled.named(tmp_path / name, tmp_path / "mine.csv") == f"{said}:mine.csv"


def test_a_folder_with_training_images_alone_is_not_scored_as_it_is(tmp_path):
    for c in "ab":
        (tmp_path / "train" / c).mkdir(parents=True)
    with pytest.raises(SwinsError, match=r"has train/ and no validation images; to score the former, give .*train"):
        labelled.find_dataset(tmp_path, 2)


def test_predictions_of_fewer_than_five_classes_and_of_odd_names(tmp_path):
    odd = os.fsdecode(b"caf\xe9.png")
    results.write_predictions([(odd, 1, [1, 0, 2])], tmp_path / "p.csv")
    assert (tmp_path / "p.csv").read_bytes() == b"file,label,top1,top2,top3\ncaf\xe9.png,1,1,0,2\n"


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


def test_linked_folders_are_followed_and_loops_end(command, converted, folders):
    (folders.parent / "elsewhere").mkdir()
    (folders / "bag").rename(folders.parent / "elsewhere" / "more")
    (folders / "bag").mkdir()
    (folders / "bag" / "link").symlink_to(folders.parent / "elsewhere")
    (folders.parent / "elsewhere" / "back").symlink_to(folders / "bag")
    (folders / "coat" / "up").symlink_to("../..")
    code, row, err = evaluate(command, converted, "--data", folders)
    assert code == 0 and row["images"] == COUNT, err


APPEND = """
import dataclasses, sys
from swins.evaluate.results import Result, append_row
row = Result(**{f.name: sys.argv[2] for f in dataclasses.fields(Result)})
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
    results.append_row(results.Result(**{**rows[0], "model": "c", "source_sha256": ""}), tmp_path / "link.csv")
    assert (tmp_path / "link.csv").is_symlink() and path.read_text().count("\n") == len(rows) + 2
    path.write_text(path.read_text()[:-3])
    with pytest.raises(SwinsError, match=r"every row must have 15 columns; row \d+ has not"):
        results.check_targets(path, None)


def test_an_unfinished_run_is_called_so(command, folders, tmp_path):
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    (run_folder / "recipe.json").write_text(json.dumps({"model.name": NAME, "epochs": 30, "training data": "x"}))
    (run_folder / "log.csv").write_text("epoch\n1\n2\n")
    code, _, err = evaluate(command, run_folder, "--data", folders)
    assert code == 1 and f"an unfinished run of `swins train` ({NAME}, 2 of 30 epochs)" in err
    assert f"swins train RECIPE --data DATA -o {run_folder}" in err
    for function in (find_model, preprocess, class_names):
        with pytest.raises(SwinsError, match="unfinished run"):
            function(run_folder)


def test_a_name_means_published_weights_whatever_folder_is_called_so(converted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAME).symlink_to(converted)
    monkeypatch.setattr(evaluation, "create", lambda name, weights: (name, weights))
    assert find_model(NAME) == ((NAME, "pretrained"), NAME)
    model, name = find_model(f"./{NAME}")
    assert model.variant.num_classes == 10 and name == NAME
    assert find_model(tmp_path / NAME)[1] == NAME
