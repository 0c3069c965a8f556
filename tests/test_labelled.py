"""Labelled images of every layout, and whose classes their labels are."""

import json
import shutil

import numpy as np
import pytest
from shared_fixtures import DATA

from swins.data import cifar10, class_folders, labelled
from swins.data.layouts import find_splits
from swins.data.run_parts import trained_on_too
from swins.errors import SwinsError
from swins.labels import FASHION_MNIST, class_names
from swins.labels import table as class_table


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
    records = np.zeros((3, cifar10.CIFAR_BYTES), "uint8")
    records[:, 0] = (6, 9, 1)
    records.tofile(tmp_path / cifar10.TEST_BATCH)
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


def test_a_flat_folder_needs_a_table(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(SwinsError, match="neither class folders"):
        labelled.find_dataset(tmp_path, 10)


def test_imagenet_model_wants_1000_folders(tmp_path):
    (tmp_path / "n01440764x").mkdir()
    with pytest.raises(SwinsError, match="got 1 and 1000"):
        labelled.find_dataset(tmp_path, 1000)


@pytest.mark.slow
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
    assert [c.name for c in class_folders.folders(tmp_path)] == [str(i) for i in range(12)]
    (tmp_path / "other").mkdir()
    assert [c.name for c in class_folders.folders(tmp_path)][:3] == ["0", "1", "10"]


def test_data_sets_with_splits_are_evaluated_on_the_validation_split(folders, tmp_path):
    shutil.copytree(folders, tmp_path / "both" / "train")
    shutil.copytree(folders / "sneaker", tmp_path / "both" / "val" / "sneaker")
    dataset = labelled.find_dataset(tmp_path / "both", 10)
    assert dataset.count and {label for _, _, label in dataset.samples} == {sorted(FASHION_MNIST).index("sneaker")}
    records = np.zeros((3, cifar10.CIFAR_BYTES), "uint8")
    records[:, 0] = (6, 9, 2)
    records.tofile(tmp_path / cifar10.TEST_BATCH)
    dataset = labelled.find_dataset(tmp_path, 10)
    assert [label for _, _, label in dataset.samples] == [6, 9, 2]


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


def test_parts_of_a_data_set(folders, tmp_path):
    """Its own; where it has no validation images those of a run, by the function that the run divides it with."""
    classes = labelled.Classes(10, tuple(FASHION_MNIST))
    training, validation = find_splits(folders, 0.3, 5)
    run = {"recipe": {"data.held_out": 0.3, "seed": 5}}
    (tmp_path / "run").mkdir()
    parts = {"training data": training.summary(), "validation data": validation.summary()}
    (tmp_path / "run" / "recipe.json").write_text(json.dumps(parts))
    for part, split in (("train", training), ("val", validation)):
        for path in (tmp_path / "run", tmp_path / "run" / "best.keras"):
            dataset = labelled.find_part(folders, part, classes, path, run)
            assert dataset.name == f"data/{part}" and dataset.count == len(split)
            assert [name for name, *_ in dataset.samples] == [name for name, *_ in split.samples]
            assert dataset.notes[0].endswith("(data.held_out=0.3, seed=5)")
    assert all(FASHION_MNIST[label] == name.split("/")[0] for name, _, label in dataset.samples)
    assert "is not known" in labelled.find_part(folders, "val", classes, tmp_path, run).notes[0]
    both = len(training) + len(validation)
    assert f"it was trained on {len(training)} of them; --split val" in trained_on_too(tmp_path / "run", both)
    for path, count in ((tmp_path / "run", len(validation)), (tmp_path / "run", None), (tmp_path, both)):
        assert trained_on_too(path, count) is None
    for part, training_run, text in (
        ("val", None, "no validation images of its own, .* is of none; give the run's folder"),
        ("test", run, "has no test images; leave --split out, or choose train or val"),
    ):
        with pytest.raises(SwinsError, match=text):
            labelled.find_part(folders, part, classes, tmp_path, training_run)
    next(folders.rglob("*.png")).unlink()
    with pytest.raises(SwinsError, match=r"are not those that .*/run was trained with .* give the same data"):
        labelled.find_part(folders, "val", classes, tmp_path / "run", run)
    for number, name in enumerate(("train", "val", "test")):
        shutil.copytree(folders, tmp_path / "three" / name)
        for i in range(number):
            shutil.copy(next(folders.rglob("*.png")), tmp_path / "three" / name / "sandal" / f"more{i}.png")
    counts = [labelled.find_part(tmp_path / "three", part, classes).count for part in ("train", "val", "test")]
    assert counts == [69, 70, 71]
    assert labelled.find_part(tmp_path / "three", "val", classes).name == "three/val"
    shutil.rmtree(tmp_path / "three" / "test")
    with pytest.raises(SwinsError, match="has no test images in folders of classes; choose train or val"):
        labelled.find_part(tmp_path / "three", "test", classes)
    dataset = labelled.find_part(f"idx_test:{DATA}", "val", labelled.Classes(10), tmp_path, run)
    assert (dataset.name, dataset.count) == ("fashion_mnist/val", 3000)
