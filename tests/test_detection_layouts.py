"""Whatever the layout: the part of a data set that models are scored on can be chosen by name."""

import json

import pytest
from detection_files import annotation, coco, image, voc, yolo

from swins.data.detection_layouts import find_detection_splits, find_evaluation_split
from swins.data.run_parts import held_of_run
from swins.errors import SwinsError

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
def test_the_part_that_a_run_held_out_is_found_again(tmp_path, write):
    write(tmp_path / "one", {"train": 9})
    training, validation = find_detection_splits(tmp_path / "one", 0.3, 4)
    assert len(validation) == 3
    run = {"recipe": {"data.held_out": 0.3, "seed": 4}}
    held = held_of_run(tmp_path / "one", tmp_path, run, find_detection_splits)
    (tmp_path / "recipe.json").write_text(json.dumps({"validation data": validation.summary()}))
    split = find_evaluation_split(tmp_path / "one", training.classes, part="val", held_images=held)
    assert [name for name, *_ in split.samples] == [name for name, *_ in validation.samples]
    assert split.name == "one/val" and "the 3 images that the run held out" in split.notes[0]
    (tmp_path / "recipe.json").write_text(json.dumps({"validation data": training.summary()}))
    with pytest.raises(SwinsError, match=r"are not those that .* was trained with"):
        find_evaluation_split(tmp_path / "one", part="val", held_images=held)
    assert held_of_run(tmp_path / "one", tmp_path, None, find_detection_splits) is None
    with pytest.raises(SwinsError, match="has no val images; it has those of train"):
        find_evaluation_split(tmp_path / "one", part="val")
