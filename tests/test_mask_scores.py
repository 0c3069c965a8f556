"""COCO's scores of masks beside pycocotools', on detectors that are perfect, blind, a little off, and hostile."""

import contextlib
import dataclasses
import io
import json

import numpy as np
import pytest
from pycocotools import mask as theirs
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from shared_fixtures import ROOT

from swins.data import coco_scores
from swins.data.detection_layouts import find_detection_splits
from swins.data.objects import Objects
from swins.data.segmentations import Bitmap
from swins.results import Detections

CLASSES, IDS = ("cat", "dog", "hat", "cup", "bed"), (90, 3, 7, 44, 1)
SIZE = (160, 200)
COCO_MINI = ROOT.parent / "shared" / "data" / "coco_mini"


def box_of(mask):
    """The box around a mask's pixels."""
    if not mask.any():
        return [0, 0, 0, 0]
    rows, columns = np.nonzero(mask)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def objects(image_id, masks, labels, crowd=None, area=None):
    masks = np.reshape(masks, (-1, *SIZE)).astype(bool)
    crowd = np.zeros(len(masks), bool) if crowd is None else crowd
    area = masks.sum((1, 2)) if area is None else area
    boxes = np.array([box_of(mask) for mask in masks]).reshape(-1, 4)
    return Objects(boxes, labels, crowd, area, SIZE, image_id, tuple(map(Bitmap, masks)))


def detections(masks, scores, labels):
    masks, labels = np.reshape(masks, (-1, *SIZE)).astype(bool), np.array(labels, int)
    boxes = np.float32([box_of(mask) for mask in masks]).reshape(-1, 4)
    return Detections(boxes, np.float32(scores), labels, tuple(CLASSES[label] for label in labels), masks)


def exact(truth, shift=0):
    """The detector that finds all but crowds, so many pixels to the right."""
    kept = np.flatnonzero(~truth.crowd)
    masks = np.roll(truth.bitmaps()[kept], shift, 2)
    return detections(masks, np.linspace(1, 0.9, len(kept)), truth.labels[kept])


def annotations(truths):
    """The truths as a file of COCO's, their masks as pycocotools writes them."""
    lines = []
    for truth in truths:
        for row, mask in enumerate(truth.bitmaps()):
            left, top, right, bottom = truth.boxes[row].tolist()
            segmentation = theirs.encode(np.asfortranarray(mask.astype(np.uint8)))
            line = {"id": len(lines) + 1, "image_id": truth.image_id, "category_id": IDS[truth.labels[row]]}
            line |= {"bbox": [left, top, right - left, bottom - top], "segmentation": segmentation}
            lines.append(line | {"area": truth.area[row].item(), "iscrowd": int(truth.crowd[row])})
    images = [{"id": truth.image_id, "height": truth.size[0], "width": truth.size[1]} for truth in truths]
    categories = [{"id": number, "name": name} for number, name in zip(IDS, CLASSES, strict=True)]
    return {"info": {}, "images": images, "annotations": lines, "categories": categories}


def reference(facts, lines, kind):
    """pycocotools' 12 numbers, None for -1, and each category's AP. Results with boxes would have the boxes' areas."""
    if kind == "segm":
        lines = [{name: value for name, value in line.items() if name != "bbox"} for line in lines]
    with contextlib.redirect_stdout(io.StringIO()):
        truth, answers = COCO(), COCO()
        truth.dataset = facts
        truth.createIndex()
        if lines:
            answers = truth.loadRes(json.loads(json.dumps(lines)))
        else:  # which `loadRes` does not take
            answers.dataset = {**facts, "annotations": []}
            answers.createIndex()
        evaluation = COCOeval(truth, answers, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    own = [evaluation.eval["precision"][:, :, k, 0, -1] for k in range(len(evaluation.params.catIds))]
    means = [of_class[of_class > -1].mean() if (of_class > -1).any() else None for of_class in own]
    numbers = [None if value == -1 else value for value in evaluation.stats.tolist()]
    return numbers, dict(zip(evaluation.params.catIds, means, strict=True))


def compare(truths, results, facts=None, ids=IDS, classes=CLASSES):
    """Our numbers, which are pycocotools', of boxes and of masks."""
    scores = coco_scores.coco_scores(truths, results, classes)
    facts = facts or annotations(truths)
    lines = [line for t, r in zip(truths, results, strict=True) for line in r.to_coco(t.image_id, ids)]
    for prefix, kind in (("", "bbox"), ("mask_", "segm")):
        numbers, per_class = reference(facts, lines, kind)
        ours = [scores[f"{prefix}{name}"] for name in coco_scores.SCORES]
        ours += [scores[f"{prefix}per_class"][name] for name in classes]
        for value, other in zip(ours, [*numbers, *(per_class[number] for number in ids)], strict=True):
            assert value == (None if other is None else pytest.approx(other, abs=1e-12)), (kind, ours, numbers)
    return scores


def blobs(rng, count):
    """Masks (n, H, W) of ellipses with holes."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    masks = np.zeros((count, *SIZE), bool)
    for mask in masks:
        centre, radii = rng.uniform(0, SIZE), rng.uniform(3, 90, 2)
        far = ((rows - centre[0]) / radii[0]) ** 2 + ((columns - centre[1]) / radii[1]) ** 2
        mask[:] = (far < 1) & (rng.random(SIZE) < rng.choice([0.7, 1.0]))
    return masks


def some(seed, crowd=0.2):
    """Truths of six images, whose numbers are in no order, one without objects."""
    rng, truths = np.random.default_rng(seed), []
    for place, number in enumerate(rng.permutation(1000)[:6].tolist()):
        masks = blobs(rng, 0 if place == 2 else rng.integers(1, 6))
        truths.append(objects(number, masks, rng.integers(0, 4, len(masks)), rng.random(len(masks)) < crowd))
    return truths, rng


def test_a_perfect_a_blind_and_a_shifted_detector():
    truths, _ = some(0)
    perfect = compare(truths, [exact(truth) for truth in truths])
    assert perfect["mask_AP"] == perfect["AP"] == perfect["mask_AR100"] == 1
    assert set(perfect["mask_per_class"]) == set(CLASSES) and perfect["mask_per_class"]["bed"] is None
    blind = compare(truths, [detections([], [], [])] * len(truths))
    assert {value for name, value in blind.items() if name in coco_scores.MASK_SCORES} - {None} == {0.0}
    shifted = compare(truths, [exact(truth, 3) for truth in truths])
    assert 0 < shifted["mask_AP"] < shifted["AP"] < 1


def test_masks_and_boxes_are_scored_apart():
    """Right boxes around wrong pixels, and areas that are of the masks: a large box, few pixels in it."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    cross = (np.abs(rows - 80) < 2) | (np.abs(columns - 100) < 2)
    truth = objects(4, [cross], [1])
    whole = detections([np.ones(SIZE)], [0.9], [1])
    scores = compare([truth], [whole])
    assert scores["AP"] == 1 and scores["mask_AP"] == 0
    assert truth.area[0] == cross.sum() and scores["AP_medium"] == 1 and scores["mask_AP_large"] is None


def test_crowds_and_empty_masks(rng):
    """What lies in a crowd counts nowhere; masks without a pixel are as any other."""
    masks = blobs(rng, 3)
    inside = masks[0] & (rng.random(SIZE) < 0.5)
    truths = [objects(1, masks, [0, 1, 1], [True, False, False]), objects(2, np.zeros((1, *SIZE)), [0])]
    results = [detections([inside, masks[1], np.zeros(SIZE)], [0.9, 0.8, 0.7], [0, 1, 1]), detections([], [], [])]
    compare(truths, results)
    crowd = [objects(1, masks[:1], [0], [True])]
    assert compare(crowd, [detections([inside], [0.9], [0])])["mask_AP"] is None


@pytest.mark.parametrize("seed", range(6))
def test_random_detectors_with_equal_scores(seed):
    truths, rng = some(seed + 10)
    results = []
    for truth in truths:
        own = truth.bitmaps()
        near = np.roll(np.repeat(own, 2, 0), int(rng.integers(-6, 7)), int(rng.integers(1, 3)))
        near &= rng.random(near.shape) < rng.choice([0.6, 0.9, 1.0])
        masks = np.concatenate([near, blobs(rng, 4)])
        labels = np.concatenate([np.repeat(truth.labels, 2), rng.integers(0, 5, 4)])
        scores = np.round(rng.random(len(masks)), 1)
        order = np.argsort(-scores, kind="stable")
        results.append(detections(masks[order], scores[order], labels[order]))
    scores = compare(truths, results)
    assert 0 < scores["mask_AP50"] < 1


def test_records_tables_and_protocols():
    """Records are JSON; box scores of a detector without masks are as before; relative boxes have no masks."""
    truths, _ = some(3)
    results = [exact(truth, 2) for truth in truths]
    records = [coco_scores.record(r, t) for r, t in zip(results, truths, strict=True)]
    again = json.loads(json.dumps(records))
    scores = coco_scores.score(again)
    assert list(scores) == [*coco_scores.SCORES, *coco_scores.MASK_SCORES] and again == records
    text = theirs.encode(np.asfortranarray(truths[0].bitmaps()[0].astype(np.uint8)))["counts"].decode()
    assert records[0]["truth"]["masks"][0] == text
    header, rows = coco_scores.class_table(again, CLASSES)
    assert header[-3:] == ("mask_AP", "mask_AP50", "mask_AP75") and all(len(row) == 9 for row in rows)
    bare = [coco_scores.record(dataclasses.replace(r, masks=None), t) for r, t in zip(results, truths, strict=True)]
    assert coco_scores.score(bare) == {name: scores[name] for name in coco_scores.SCORES}
    assert len(coco_scores.class_table(bare, CLASSES)[0]) == 6
    relative = [record for _, record in coco_scores.revise([("", r) for r in records], {"protocol": "r_ssd"})]
    assert list(coco_scores.score(relative)) == list(coco_scores.SCORES)
    mixed = coco_scores.score([*records[:1], *bare[1:]])
    assert list(mixed) == list(coco_scores.SCORES) and not coco_scores.have_masks([])


def test_results_of_files_in_cocos_format():
    """What `swins predict --json` writes, which pycocotools reads."""
    truths, _ = some(5, crowd=0)
    rows = [(f"photos/{truth.image_id:012}.jpg", exact(truth)) for truth in truths]
    lines = json.loads(json.dumps(coco_scores.listing(rows, {"category_ids": list(IDS)})))
    assert {line["image_id"] for line in lines} < {truth.image_id for truth in truths}
    assert reference(annotations(truths), lines, "segm")[0][0] == 1


@pytest.mark.skipif(not COCO_MINI.is_dir(), reason="needs shared/data/coco_mini")
def test_a_part_of_coco(rng):
    """The file's own polygons and crowds; detections are these, eaten away and grown."""
    split = find_detection_splits(COCO_MINI, masks=True)[1]
    truths, results = [], []
    for _, _, truth in split.samples[:30]:
        masks = truth.bitmaps()
        moved = np.roll(masks, int(rng.integers(-9, 10)), 2) | (masks & (rng.random(masks.shape) < 0.8))
        kept = rng.random(len(masks)) < 0.8
        scores = np.sort(rng.random(kept.sum()).astype("float32"))[::-1]
        boxes = np.float32([box_of(mask) for mask in moved[kept]]).reshape(-1, 4)
        labels = truth.labels[kept]
        results.append(Detections(boxes, scores, labels, ("",) * len(labels), moved[kept]))
        truths.append(truth)
    facts = json.loads((COCO_MINI / "annotations" / "instances_val2017.json").read_text())
    numbers = {truth.image_id for truth in truths}
    facts["images"] = [image for image in facts["images"] if image["id"] in numbers]
    facts["annotations"] = [line for line in facts["annotations"] if line["image_id"] in numbers]
    scores = compare(truths, results, facts, split.category_ids, split.classes)
    assert 0.1 < scores["mask_AP"] < 0.95
