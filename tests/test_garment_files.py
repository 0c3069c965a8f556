"""Garments' files hold the canvases exactly: COCO JSON, index masks; written whole, and only over swins' own."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from shared_fixtures import DATA

from swins.box_drawing import PALETTE
from swins.data.garment_files import rle, write_coco, write_masks
from swins.data.garments import Garments
from swins.errors import SwinsError
from swins.labels import FASHION_MNIST

CROWDED = Garments(DATA, "val", count=12, size=(96, 128), objects=(6, 9), scale=(12, 64), overlap=0.6, visible=0.3)


@pytest.fixture(scope="module")
def crowded():
    return list(CROWDED)


def decoded(segmentation):
    """The mask (H, W) of COCO's uncompressed run lengths."""
    counts = segmentation["counts"]
    pixels = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return pixels.reshape(segmentation["size"][::-1]).T


def test_coco_files_hold_the_canvases(tmp_path, crowded):
    ids = (1, 2, 3, 5, 8, 13, 21, 34, 55, 90)
    small = dataclasses.replace(CROWDED, split="train", count=2, objects=(0, 1))
    write_coco(CROWDED, tmp_path / "coco", ids)
    write_coco(small, tmp_path / "coco")  # beside it
    facts = json.loads((tmp_path / "coco" / "annotations" / "instances_val.json").read_text())
    assert {c["id"]: c["name"] for c in facts["categories"]} == dict(zip(ids, FASHION_MNIST, strict=True))
    assert [image["file_name"] for image in facts["images"]] == [f"{i:06d}.png" for i in range(12)]
    by_image = {image["id"]: [] for image in facts["images"]}
    for annotation in facts["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    for image, canvas in zip(facts["images"], crowded, strict=True):
        pixels = np.asarray(Image.open(tmp_path / "coco" / "images" / "val" / image["file_name"]))
        np.testing.assert_array_equal(pixels, canvas.image)
        assert (image["height"], image["width"]) == pixels.shape[:2]
        rows = by_image[image["id"]]
        assert [row["category_id"] for row in rows] == [ids[label] for label in canvas.labels]
        for row, box, mask in zip(rows, canvas.boxes, canvas.masks, strict=True):
            np.testing.assert_array_equal(decoded(row["segmentation"]), mask)
            np.testing.assert_array_equal(row["bbox"], [*box[:2], *(box[2:] - box[:2])])
            assert row["area"] == mask.sum() and row["iscrowd"] == 0
    assert sorted(row["id"] for row in facts["annotations"]) == list(range(1, len(facts["annotations"]) + 1))
    other = json.loads((tmp_path / "coco" / "annotations" / "instances_train.json").read_text())
    assert [c["id"] for c in other["categories"]] == list(range(1, 11)) and len(other["images"]) == 2


def test_pycocotools_reads_them(tmp_path, crowded, capsys):
    coco = pytest.importorskip("pycocotools.coco")
    write_coco(CROWDED, tmp_path / "coco")
    data = coco.COCO(tmp_path / "coco" / "annotations" / "instances_val.json")
    for number, canvas in zip(sorted(data.imgs), crowded, strict=True):
        rows = data.loadAnns(data.getAnnIds(number))
        assert len(rows) == len(canvas.masks)
        for row, box, mask in zip(rows, canvas.boxes, canvas.masks, strict=True):
            np.testing.assert_array_equal(data.annToMask(row), mask)
            np.testing.assert_array_equal(coco.maskUtils.toBbox(data.annToRLE(row)), row["bbox"])
            np.testing.assert_array_equal(row["bbox"], [*box[:2], *(box[2:] - box[:2])])


def test_run_lengths_of_masks_that_touch_the_corner():
    for mask in ([[1, 0], [0, 1]], [[0, 0], [0, 0]], [[1, 1], [1, 1]], [[0, 1, 1]]):
        mask = np.array(mask, bool)
        np.testing.assert_array_equal(decoded(rle(mask)), mask)
    assert rle(np.array([[1, 0]], bool)) == {"size": [1, 2], "counts": [0, 1, 1]}


def test_mask_files_hold_the_canvases(tmp_path, crowded):
    write_masks(CROWDED, tmp_path / "masks")
    write_masks(dataclasses.replace(CROWDED, split="train", count=2, colour=False), tmp_path / "masks")
    for i, canvas in enumerate(crowded):
        mask = Image.open(tmp_path / "masks" / "masks" / "val" / f"{i:06d}.png")
        assert mask.mode == "P" and mask.getpalette()[3:6] == list(PALETTE[0])
        np.testing.assert_array_equal(np.asarray(mask), canvas.semantic)
        pixels = Image.open(tmp_path / "masks" / "images" / "val" / f"{i:06d}.png")
        np.testing.assert_array_equal(np.asarray(pixels), canvas.image)
    assert (tmp_path / "masks" / "classes.txt").read_text().splitlines() == ["background", *FASHION_MNIST]
    with Image.open(tmp_path / "masks" / "images" / "train" / "000001.png") as grey:
        assert grey.mode == "L"


@pytest.mark.parametrize("write", [write_coco, write_masks])
def test_files_are_replaced_whole_and_only_ours(tmp_path, write):
    small = dataclasses.replace(CROWDED, count=3, objects=(1, 1))
    folder = tmp_path / "data"
    write(small, folder)
    (folder / "notes.txt").write_text("mine")
    write(dataclasses.replace(small, count=2), folder)
    assert [p.name for p in sorted((folder / "images" / "val").iterdir())] == ["000000.png", "000001.png"]
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "classes.txt").is_file() == (write is write_masks)
    assert json.loads((folder / "garments_val.json").read_text())["made_of"]["count"] == 2
    before = sorted((p, p.stat().st_mtime_ns) for p in folder.rglob("*"))
    foreign = folder / "images" / "train" / "000000.png"
    foreign.parent.mkdir()
    foreign.write_bytes(b"mine")
    with pytest.raises(SwinsError, match=r"images/train/000000.png would be replaced, and swins did not write it"):
        write(dataclasses.replace(small, split="train"), folder)
    assert foreign.read_bytes() == b"mine"
    assert [row for row in before if row[0].is_file()] == sorted(
        (p, p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file() and p != foreign
    )
    with pytest.raises(SwinsError, match=r"must be a folder"):
        write(small, folder / "notes.txt")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data"]


@pytest.mark.parametrize("ids", [(1, 2), range(-1, 9), [1] * 10, [*range(9), 9.5], [*range(9), True]])
def test_category_ids_must_be_one_a_class(tmp_path, ids):
    with pytest.raises(SwinsError, match="category_ids must be 10 integers"):
        write_coco(CROWDED, tmp_path / "coco", ids)
    assert not list(tmp_path.iterdir())
