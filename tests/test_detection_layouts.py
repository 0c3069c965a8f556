"""Whatever the layout: the part of a data set that models are scored on can be chosen by name."""

import json
import types

import pytest
from detection_files import annotation, coco, image, voc, yolo

from swins.data.detection_layouts import find_detection_splits, find_evaluation_split
from swins.data.run_parts import parts_of_run
from swins.errors import SwinsError
from swins.tasks import instances_evaluation

PARTS = {"train": 3, "val": 1, "test": 2}  # images of each


def coco_folder(folder, parts):
    for part, count in parts.items():
        images = [image(i + 1, f"{part}{i}.png") for i in range(count)]
        coco(folder, part, images, [annotation(i + 1, i + 1, 7, [1, 2, 9, 9]) for i in range(count)])


def voc_folder(folder, parts):
    names = {part: [f"{part}{i}" for i in range(count)] for part, count in parts.items()}
    voc(folder, names, {name: [("cat", (1, 2, 9, 9), 0)] for part in names.values() for name in part})


def yolo_folder(folder, parts):
    stated = "train: images/train\nval: images/val\ntest: images/test\nnames: [cat]\n"
    lines = {f"{part}/{part}{i}": "0 .5 .5 .2 .2" for part, count in parts.items() for i in range(count)}
    yolo(folder, lines, stated)


@pytest.mark.parametrize("write", [coco_folder, voc_folder, yolo_folder])
def test_a_part_is_chosen_by_name(tmp_path, write):
    write(tmp_path / "all", PARTS)
    for part, count in PARTS.items():
        split = find_evaluation_split(tmp_path / "all", part=part)
        assert len(split) == count and split.name == f"all/{part}"
        assert {name.rpartition("/")[2][: len(part)] for name, *_ in split.samples} == {part}
    assert len(find_evaluation_split(tmp_path / "all")) == PARTS["val"]
    assert [len(split) for split in find_detection_splits(tmp_path / "all")] == [3, 1]
    write(tmp_path / "two", {"train": 3, "val": 1})  # YOLO's file names a test folder that is not there
    assert [len(split) for split in find_detection_splits(tmp_path / "two")] == [3, 1]
    with pytest.raises(SwinsError, match="has no test images; it has those of train and val"):
        find_evaluation_split(tmp_path / "two", part="test")
    with pytest.raises(SwinsError, match="unknown split"):
        find_evaluation_split(tmp_path / "two", part="dev")


@pytest.mark.parametrize("write", [coco_folder, voc_folder])
def test_the_parts_that_a_run_made_are_found_again(tmp_path, write):
    write(tmp_path / "one", {"train": 9})
    training, validation = find_detection_splits(tmp_path / "one", 0.3, 4)
    assert len(validation) == 3
    run = {"recipe": {"data.held_out": 0.3, "seed": 4}}
    of_run = parts_of_run(tmp_path / "one", tmp_path, run, find_detection_splits)
    stated = {"training data": training.summary(), "validation data": validation.summary()}
    (tmp_path / "recipe.json").write_text(json.dumps(stated))
    for part, whole, words in (
        ("train", training, "6 images that the run trained on"),
        ("val", validation, "3 images"),
    ):
        split = find_evaluation_split(tmp_path / "one", training.classes, part=part, of_run=of_run)
        assert [name for name, *_ in split.samples] == [name for name, *_ in whole.samples]
        assert split.name == f"one/{part}" and words in split.notes[0]
    (tmp_path / "recipe.json").write_text(json.dumps(dict(zip(stated, reversed(stated.values()), strict=True))))
    for part in ("train", "val"):
        with pytest.raises(SwinsError, match=r"are not those that .* was trained with"):
            find_evaluation_split(tmp_path / "one", part=part, of_run=of_run)
    assert len(find_evaluation_split(tmp_path / "one", of_run=of_run)) == 9
    assert parts_of_run(tmp_path / "one", tmp_path, None, find_detection_splits) is None
    assert len(find_evaluation_split(tmp_path / "one", part="train")) == 9
    with pytest.raises(SwinsError, match="has no val images; it has those of train"):
        find_evaluation_split(tmp_path / "one", part="val")


def test_a_run_of_instances_trained_on_images_with_an_object(tmp_path):
    """The others are not among those that it trained on, whose digest its recipe.json has."""
    images = [image(i + 1, f"{i}.png", 64, 64) for i in range(6)]
    coco(tmp_path / "one", "train", images, [annotation(i + 1, i + 1, 7, [1, 2, 9, 9]) for i in range(4)])
    training, validation = instances_evaluation.find_splits(tmp_path / "one", 0.3, 4, False)
    (tmp_path / "recipe.json").write_text(json.dumps({"training data": training.summary()}))
    model = types.SimpleNamespace(numbers=types.SimpleNamespace(masks=False))
    opened = types.SimpleNamespace(path=tmp_path, model=model, training={"recipe": {"data.held_out": 0.3, "seed": 4}})
    dataset = instances_evaluation.dataset(tmp_path / "one", opened, {"classes": training.classes}, {"split": "train"})
    names = [name for name, *_ in dataset.samples]
    assert names == [name for name, *_ in training.samples] and len(names) == dataset.count < 6 - len(validation)
