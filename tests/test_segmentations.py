"""Masks of data sets are pycocotools' pixels; what is wrong with them is counted and named."""

import dataclasses
import json
import sys

import numpy as np
import pytest
from detection_files import annotation, by_name, coco, image, voc, yolo
from pycocotools import mask as theirs
from pycocotools.coco import COCO
from shared_fixtures import DATA, ROOT

from swins import run_lengths
from swins.data.defects import Defects
from swins.data.detection_layouts import find_detection_splits, find_evaluation_split
from swins.data.garment_files import write_coco
from swins.data.garments import Garments
from swins.data.segmentations import Bitmap, Polygons, RunLengths, mask_of, rectangle
from swins.errors import SwinsError

COCO_MINI = ROOT.parent / "shared" / "data" / "coco_mini"


def polygons(rng, size, kind):
    """A few polygons: inside, over all edges, of whole and half pixels, of one point, of a line, far outside."""
    parts, sides = [], np.array(size[::-1])
    for _ in range(rng.integers(1, 4)):
        points = rng.uniform(*((-1, 2) if kind == 1 else (0, 1)), (rng.integers(3, 12), 2)) * sides
        points = np.round(points * kind) / kind if kind in (2, 10) else points
        points = np.repeat(points[:1], len(points), 0) if kind == 3 else points
        parts.append(points * (1, 0) + (0, 7) if kind == 4 else points)
    return tuple(parts)


def test_polygons_become_pycocotools_pixels(rng):
    for case in range(400):
        size = tuple(rng.integers(1, 80, 2).tolist())
        parts = polygons(rng, size, (0, 1, 2, 3, 4, 10)[case % 6])
        expected = theirs.decode(theirs.merge(theirs.frPyObjects([part.ravel().tolist() for part in parts], *size)))
        pixels = Polygons(parts).bitmap(size)
        assert pixels.dtype == bool
        np.testing.assert_array_equal(pixels, expected)


@pytest.mark.skipif(not COCO_MINI.is_dir(), reason="needs shared/data/coco_mini")
def test_a_part_of_coco():
    """Every third image's objects, polygons and crowds' run lengths, as pycocotools reads them."""
    facts = COCO()
    split = find_detection_splits(COCO_MINI, masks=True)[0]
    facts.dataset = json.loads((COCO_MINI / "annotations" / "instances_train2017.json").read_text())
    facts.createIndex()
    kinds = set()
    for _, _, truth in split.samples[::3]:
        lines = facts.loadAnns(facts.getAnnIds(imgIds=[truth.image_id]))
        for mask, pixels, line in zip(truth.masks, truth.bitmaps(), lines, strict=True):
            np.testing.assert_array_equal(pixels, facts.annToMask(line))
            kinds.add((type(mask), bool(line["iscrowd"])))
    assert kinds == {(Polygons, False), (RunLengths, True)} and not split.defects


def test_run_lengths_reach_as_far_as_their_pixels(rng):
    for case in range(200):
        mask = rng.random(rng.integers(1, 20, 2)) < (0.02, 0.5, 0.95)[case % 3]
        box = RunLengths(run_lengths.lengths(mask)).box(mask.shape)
        if not mask.any():
            assert box is None
            continue
        rows, columns = np.nonzero(mask)
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_garments_are_the_same_from_their_files(tmp_path):
    garments = {
        part: Garments(DATA, part, count=3, size=(64, 96), objects=(1, 4), scale=(16, 48)) for part in ("train", "val")
    }
    for part in garments.values():
        write_coco(part, tmp_path)
    for split, part in zip(find_detection_splits(tmp_path, masks=True), garments.values(), strict=True):
        assert not split.defects
        for (_, _, truth), canvas in zip(split.samples, part, strict=True):
            np.testing.assert_array_equal(truth.bitmaps(), canvas.masks)


BOX, SIZE = np.float32([10, 10, 30, 30]), (48, 64)
SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]
RUNS = run_lengths.to_json(rectangle(BOX).bitmap(SIZE))
FEW, NUMBERS = "polygons of fewer than 3 points, left out", "polygons that are no pairs of numbers, in their image or "
NONE, OTHER = "run lengths that are none, or fill no image, left out", "run lengths of another size than their image's"
MISSED = "masks that miss their box, left out"
WRONG = [
    ([[1, 2, 3, 4]], [FEW]),
    ([[]], [FEW]),
    ([SQUARE[:4], SQUARE[:2]], [FEW, FEW]),
    ([SQUARE[:7]], [NUMBERS]),
    ([[*SQUARE[:7], None]], [NUMBERS]),
    ([[*SQUARE[:7], float("nan")]], [NUMBERS]),
    ([[*SQUARE[:7], 1e9]], [NUMBERS]),
    ([[*SQUARE[:7], 10**400]], [NUMBERS]),
    ([[*SQUARE[:7], "30"]], [NUMBERS]),
    ([[SQUARE]], [NUMBERS]),
    ([[SQUARE, SQUARE[:4]]], [NUMBERS]),
    ([SQUARE, "text"][1:], [NUMBERS]),
    (SQUARE, [NUMBERS] * 8),
    ([[40, 40, 50, 40, 50, 45]], [MISSED]),
    ([[-60, 10, -5, 10, -5, 40]], [MISSED]),
    (None, []),
    ([], []),
    ({}, [OTHER]),
    ("text", []),
    (5, []),
    ({**RUNS, "size": [64, 48]}, [OTHER]),
    ({**RUNS, "size": [48.5, 64]}, [OTHER]),
    ({**RUNS, "size": None}, [OTHER]),
    ({**RUNS, "counts": RUNS["counts"][:-1]}, [NONE]),
    ({**RUNS, "counts": "é"}, [NONE]),
    ({**RUNS, "counts": [3071]}, [NONE]),
    ({**RUNS, "counts": [-1, 3073]}, [NONE]),
    ({**RUNS, "counts": [True, 3071]}, [NONE]),
    ({**RUNS, "counts": [1.5, 3070.5]}, [NONE]),
    ({**RUNS, "counts": [10**30]}, [NONE]),
    ({**RUNS, "counts": None}, [NONE]),
    ({**RUNS, "counts": [3072]}, ["run lengths without a pixel, left out"]),
    ({**RUNS, "counts": [0, 5, 3067]}, [MISSED]),
]


@pytest.mark.parametrize("entry, kinds", WRONG, ids=lambda value: repr(value)[:40])
def test_masks_that_cannot_be_used(entry, kinds):
    defects = Defects("a.json")
    assert mask_of(entry, BOX, SIZE, "object", defects) is None
    given = [kind for kind, places in defects.places.items() for _ in places]
    assert len(given) == len(kinds) and all(a.startswith(b) for a, b in zip(given, kinds, strict=True))


def test_masks_that_can_be_used():
    defects = Defects("a.json")
    for entry in ([SQUARE], RUNS, {**RUNS, "counts": run_lengths.of_text(RUNS["counts"]).tolist()}):
        mask = mask_of(entry, BOX, SIZE, "object", defects)
        np.testing.assert_array_equal(mask.bitmap(SIZE), rectangle(BOX).bitmap(SIZE))
    assert not defects.places
    part = mask_of([SQUARE, [1, 2]], BOX, SIZE, "object", defects)
    assert len(part.parts) == 1 and defects.places == {FEW: ["object"]}


def test_objects_without_a_usable_mask_are_as_crowds(tmp_path):
    """Neither trained on nor counted as missed; where none is left, the error says why."""
    entries = [[SQUARE], [[1, 2]], None, RUNS, {**RUNS, "size": [64, 48]}]
    lines = [annotation(i + 1, 1, 7, [10, 10, 20, 20]) for i in range(5)]
    lines = [
        line if entry is None else {**line, "segmentation": entry} for line, entry in zip(lines, entries, strict=True)
    ]
    coco(tmp_path, "train", [image(1), image(2)], lines)
    coco(tmp_path, "val", [image(3)], [annotation(1, 3, 7, [0, 0, 9, 9], segmentation=[SQUARE])])
    training, validation = find_detection_splits(tmp_path, masks=True)
    truth = by_name(training)["1"]
    assert truth.crowd.tolist() == [False, True, True, False, True] and len(truth.training()) == 2
    np.testing.assert_array_equal(truth.bitmaps(), [rectangle(BOX).bitmap(SIZE)] * 5)
    bare = "objects without a mask that can be used, neither trained on nor counted as missed"
    assert (
        f"instances_train.json: {bare}: 3 (1.png, annotation 2, 1.png, annotation 3, 1.png, annotation 5)"
        in training.notes
    )
    assert f"1.png, annotation 2\t{FEW}" in training.defects and validation.samples[0][2].crowd.tolist() == [True]
    assert not by_name(find_detection_splits(tmp_path)[0])["1"].crowd.any()
    coco(tmp_path, "train", [image(1), image(2)], lines[1:3])
    with pytest.raises(SwinsError, match=f"needs objects to train on; got none that can be used .*{bare}: 2"):
        find_detection_splits(tmp_path, masks=True)


def test_polygons_of_yolo(tmp_path):
    lines = {"train/a": "0 0.25 0.25 0.5 0.25 0.5 0.5\n1 0.5 0.5 0.5 0.5\n0 .5 .5 .5 .5 .5", "train/b": "", "val/c": ""}
    yolo(tmp_path, lines)
    training, validation = find_detection_splits(tmp_path, masks=True)
    truth = by_name(training)["a"]
    assert truth.crowd.tolist() == [False, True] and by_name(training)["b"].bitmaps().shape == (0, 48, 64)
    assert truth.masks[0].parts[0].tolist() == [[16, 12], [32, 12], [32, 24]]
    assert (
        "a.txt, line 2\tobjects without a mask that can be used, neither trained on nor counted as missed"
        in training.defects
    )
    assert (
        find_evaluation_split(tmp_path, masks=True).samples[0][2].masks == () and validation.classes == training.classes
    )


def test_formats_without_masks(tmp_path):
    voc(
        tmp_path, {"train": ["a"], "val": ["b"]}, {"a": [("cat", (1, 2, 30, 40), 0)], "b": [("cat", (1, 2, 30, 40), 0)]}
    )
    assert len(find_detection_splits(tmp_path)) == 2
    for find in (find_detection_splits, find_evaluation_split):
        with pytest.raises(
            SwinsError, match=r"needs masks to \w+ on, which its format has none of; take a model of boxes"
        ):
            find(tmp_path, masks=True)


def test_masks_are_scaled_with_their_image():
    """As images that were made smaller after they were annotated."""
    runs, pixels = RunLengths(run_lengths.lengths(rectangle(BOX).bitmap(SIZE))), rectangle(BOX).bitmap(SIZE)
    for mask in (rectangle(BOX), runs, Bitmap(pixels)):
        half = mask.fitted(SIZE, (24, 32)).bitmap((24, 32))
        np.testing.assert_array_equal(half, rectangle(BOX / 2).bitmap((24, 32)))
        twice = mask.fitted(SIZE, (96, 128)).bitmap((96, 128))
        np.testing.assert_array_equal(twice, pixels.repeat(2, 0).repeat(2, 1))


def test_a_digest_is_of_the_masks_too():
    garments = find_evaluation_split(f"garments:{DATA},count=8", masks=True)
    truth = garments[0][2]
    assert truth.digest() != dataclasses.replace(truth, masks=None).digest()
    other = dataclasses.replace(truth, masks=tuple(RunLengths(run_lengths.lengths(m)) for m in truth.bitmaps()))
    assert other.digest() != truth.digest() and truth.digest() == garments[0][2].digest()
    with pytest.raises(SwinsError, match="image 1 must have masks; got boxes alone; read the data with masks=True"):
        dataclasses.replace(truth, masks=None).bitmaps()


def test_without_faster_coco_eval(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval.core", None)
    with pytest.raises(
        SwinsError, match=r"polygons become pixels by faster-coco-eval: pip install 'swins\[detection\]'"
    ):
        rectangle(BOX).bitmap(SIZE)
