"""COCO's scores beside pycocotools', on detectors that are perfect, blind, a little off, and hostile."""

import contextlib
import io
import json
import sys
import types

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from shared_fixtures import ROOT

from swins.data import coco_scores
from swins.errors import SwinsError
from swins.results import Detections

CLASSES, IDS = ("cat", "dog", "hat", "cup", "bed"), (90, 3, 7, 44, 1)  # as in COCO, with gaps, and in no order
COCO_MINI = ROOT.parent / "shared" / "data" / "coco_mini" / "annotations"


def objects(image_id, boxes=(), labels=(), crowd=(), area=None, size=(480, 640)):
    """What swins.data's Objects are: the truth of an image."""
    boxes, labels = np.float32(boxes).reshape(-1, 4), np.array(labels, int)
    if area is None:
        area = np.prod(boxes[:, 2:].astype(float) - boxes[:, :2], axis=1)
    crowd = np.array(crowd, bool) if len(crowd) else np.zeros(len(labels), bool)
    return types.SimpleNamespace(
        image_id=image_id, size=size, boxes=boxes, labels=labels, crowd=crowd, area=np.array(area, float), masks=None
    )


def detections(boxes=(), scores=(), labels=()):
    labels = np.array(labels, int)
    boxes, scores = np.float32(boxes).reshape(-1, 4), np.float32(scores)
    return Detections(boxes, scores, labels, tuple(CLASSES[label] for label in labels))


def annotations(truths):
    """The truths as a file of COCO's."""
    lines = []
    for truth in truths:
        for box, label, crowd, area in zip(truth.boxes, truth.labels, truth.crowd, truth.area, strict=True):
            left, top, right, bottom = box.tolist()
            lines.append(
                {
                    "id": len(lines) + 1,
                    "image_id": truth.image_id,
                    "category_id": IDS[label],
                    "bbox": [left, top, right - left, bottom - top],
                    "area": area.item(),
                    "iscrowd": int(crowd),
                }
            )
    images = [{"id": truth.image_id, "height": truth.size[0], "width": truth.size[1]} for truth in truths]
    categories = [{"id": number, "name": name} for number, name in zip(IDS, CLASSES, strict=True)]
    return {"info": {}, "images": images, "annotations": lines, "categories": categories}


def theirs(facts, lines):
    """pycocotools' 12 numbers of a file of annotations and a list of results, and {category: AP}."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth, answers = COCO(), COCO()
        truth.dataset = facts
        truth.createIndex()
        if lines:
            answers = truth.loadRes(lines)
        else:  # which `loadRes` does not take
            answers.dataset = {**facts, "annotations": []}
            answers.createIndex()
        evaluation = COCOeval(truth, answers, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = [None if value == -1 else value for value in evaluation.stats]
    means = {}
    for k, number in enumerate(evaluation.params.catIds):
        of_class = evaluation.eval["precision"][:, :, k, 0, -1]
        means[number] = of_class[of_class > -1].mean() if (of_class > -1).any() else None
    return dict(zip(coco_scores.SCORES, values, strict=True)), means


def same(ours, other):
    """Whether numbers are equal to 1e-12, and None where the others are."""
    assert list(ours) == list(other)
    for name, value in other.items():
        assert (ours[name] is None) == (value is None), (name, ours[name], value)
        assert value is None or abs(ours[name] - value) <= 1e-12, (name, ours[name], value)


def compare(truths, results):
    """Compare with pycocotools, also by way of records in a file and of COCO's format of results -> our numbers."""
    lines = [line for t, r in zip(truths, results, strict=True) for line in r.to_coco(t.image_id, IDS)]
    numbers, per_class = theirs(annotations(truths), json.loads(json.dumps(lines)))
    scores = coco_scores.coco_scores(truths, results, CLASSES)
    same(scores.pop("per_class"), {name: per_class[number] for name, number in zip(CLASSES, IDS, strict=True)})
    same(scores, numbers)
    records = [coco_scores.record(r, t) for t, r in zip(truths, results, strict=True)]
    assert coco_scores.score(json.loads(json.dumps(records))) == scores
    return scores


TRUTHS = [
    objects(42, [[10, 10, 30, 30], [50, 60, 110, 130], [200, 100, 400, 300]], [0, 1, 2], area=[1024, 1025, 9216]),
    objects(7, [[5, 5, 25, 60]], [0]),
    objects(139),  # an image without objects
    objects(8, [[100, 100, 260, 300], [0, 0, 300, 300], [20, 20, 40, 40]], [1, 1, 3], [False, True, False]),
]  # no object is of the last class


def exact(truth, shift=0.0):
    """A detector that finds all that counts, as much off."""
    kept = ~truth.crowd
    return detections(truth.boxes[kept] + np.float32(shift), np.linspace(1, 0.9, kept.sum()), truth.labels[kept])


def test_a_perfect_a_blind_and_a_shifted_detector():
    perfect = compare(TRUTHS, [exact(truth) for truth in TRUTHS])
    assert perfect["AP"] == perfect["AR100"] == perfect["AP_large"] == 1 and perfect["AR1"] == 1
    blind = compare(TRUTHS, [detections()] * 4)
    assert set(blind.values()) == {0.0}
    shifted = compare(TRUTHS, [exact(truth, 4) for truth in TRUTHS])
    assert 0 < shifted["AP75"] < shifted["AP50"] < 1
    wrong = compare(TRUTHS, [detections([[0, 0, 9, 9]], [0.9], [4])] * 4)  # of a class that is nowhere
    assert set(wrong.values()) == {0.0}


def test_a_number_without_objects_is_none():
    small = [objects(1, [[0, 0, 9, 9]], [0])]
    for result in (detections(), exact(small[0])):
        scores = compare(small, [result])
        assert scores["AP"] is not None and scores["AP_small"] == scores["AP"] == scores["AR_small"]
        assert [name for name, value in scores.items() if value is None] == [
            f"{kind}_{size}" for kind in ("AP", "AR") for size in ("medium", "large")
        ]
    crowd = [objects(1, [[0, 0, 9, 9]], [0], [True]), objects(2)]
    for results in ([detections()] * 2, [exact(small[0])] * 2):
        assert set(compare(crowd, results).values()) == {None}
    nothing = coco_scores.coco_scores([objects(1)], [exact(small[0])], CLASSES)
    assert set(nothing.pop("per_class").values()) == set(nothing.values()) == {None}
    assert set(coco_scores.score([]).values()) == {None}


def test_more_than_100_detections_of_an_image(rng):
    """The first 100 of each class count."""
    truth = objects(5, [[10, 10, 60, 60], [100, 100, 160, 160]], [0, 1])
    boxes = rng.uniform(200, 300, (250, 2))
    boxes = np.concatenate([boxes, boxes + rng.uniform(1, 50, (250, 2))], 1)
    labels, scores = np.repeat([0, 1], 125), np.sort(rng.uniform(0.5, 1, 250))[::-1]
    boxes[99], boxes[125 + 100] = truth.boxes
    ordered = detections(boxes, scores, labels)
    scores = compare([truth], [ordered])
    assert scores["AR100"] == 0.5 and scores["AR10"] == 0 and 0 < scores["AP"] < 0.02


@pytest.mark.parametrize("seed", range(12))
def test_random_detectors_with_equal_scores_and_overlaps(seed):
    """Boxes lie on a grid, so that many IoUs are equal, or a threshold; scores have one digit; some boxes are empty."""
    rng = np.random.default_rng(seed)
    step, truths, results = (1, 8, 24)[seed % 3], [], []

    def draw(count):
        corners = rng.integers(0, 300 // step, (count, 2)) * step
        sides = rng.integers(0 if seed % 2 else 1, 200 // step, (count, 2)) * step
        return np.concatenate([corners, corners + sides], 1), rng.integers(0, 4, count)

    for image_id in rng.permutation(1000)[:12].tolist():
        boxes, labels = draw(rng.integers(0, 6))
        area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) * rng.choice([0.5, 1.0, 1.0], len(boxes))
        area[rng.random(len(area)) < 0.2] = rng.choice([1024, 9216])
        truths.append(objects(image_id, boxes, labels, rng.random(len(boxes)) < 0.2, area))
        near = np.repeat(boxes, 3, 0) + rng.integers(-1, 2, (3 * len(boxes), 4)) * step
        near = np.concatenate([np.minimum(near[:, :2], near[:, 2:]), np.maximum(near[:, :2], near[:, 2:])], 1)
        far, others = draw(8)
        boxes, labels = np.concatenate([near, far]), np.concatenate([np.repeat(labels, 3), others])
        scores = np.round(rng.random(len(boxes)), 1)
        order = np.argsort(-scores, kind="stable")
        results.append(detections(boxes[order], scores[order], labels[order]))
    compare(truths, results)


def test_images_may_have_names_for_numbers():
    numbered = coco_scores.coco_scores(TRUTHS, [exact(truth, 3) for truth in TRUTHS], CLASSES)
    named = [types.SimpleNamespace(**{**vars(truth), "image_id": f"photo {truth.image_id:03}"}) for truth in TRUTHS]
    assert coco_scores.coco_scores(named, [exact(truth, 3) for truth in TRUTHS], CLASSES) == numbered


def test_the_protocol_of_r_ssd():
    """Relative boxes, every object counts: the first of pycocotools' numbers of such files."""
    results = [exact(truth, 3) for truth in TRUTHS]
    results[3] = detections([[4, 4, 300, 300]], [0.8], [1])  # on the crowd, which is an object here
    relative = []
    for truth in TRUTHS:
        sides = np.array([truth.size[1], truth.size[0]] * 2)
        relative.append(objects(truth.image_id, truth.boxes / sides, truth.labels, size=(1, 1)))
    lines = [line for t, r in zip(TRUTHS, results, strict=True) for line in r.to_coco(t.image_id, IDS)]
    for line in lines:
        line["bbox"] = (np.array(line["bbox"]) / [640, 480, 640, 480]).tolist()
    numbers, _ = theirs(annotations(relative), lines)
    scores = coco_scores.coco_scores(TRUTHS, results, CLASSES, "r_ssd")
    assert scores["AP"] == pytest.approx(numbers["AP"], abs=1e-6)
    assert scores["AP"] != coco_scores.coco_scores(TRUTHS, results, CLASSES)["AP"]
    assert all((value is None) == name.endswith(("small", "medium", "large")) for name, value in scores.items())
    rows = [("a", coco_scores.record(results[0], TRUTHS[0]))]
    assert coco_scores.revise(rows, {}) is rows and coco_scores.revise(rows, {"protocol": "coco"}) is rows
    with pytest.raises(SwinsError, match="unknown protocol 'voc'"):
        coco_scores.revise(rows, {"protocol": "voc"})


def test_tables_of_images_and_of_classes():
    records = [coco_scores.record(exact(truth), truth) for truth in TRUTHS]
    header, rows = coco_scores.tables(records, {"classes": list(CLASSES)})["classes"]
    assert header == ("label", "name", "objects", "AP", "AP50", "AP75")
    assert rows == [
        [0, "cat", 2, 1.0, 1.0, 1.0],
        [1, "dog", 2, 1.0, 1.0, 1.0],  # the crowd is none
        [2, "hat", 1, 1.0, 1.0, 1.0],
        [3, "cup", 1, 1.0, 1.0, 1.0],
        [4, "bed", 0, None, None, None],
    ]
    header, rows = coco_scores.columns(records, {})
    assert header == ["image_id", "objects", "detected", "detections"] and [row[:3] for row in rows] == [
        [42, 3, 3], [7, 1, 1], [139, 0, 0], [8, 3, 2]
    ]  # fmt: skip
    assert json.loads(rows[1][3]) == [{"label": 0, "score": 1.0, "box": [5.0, 5.0, 25.0, 60.0]}] and rows[2][3] == "[]"


def test_results_of_files_in_cocos_format():
    cup = detections([[1, 2, 4, 8]], [0.5], [2])
    rows = [("photos/000000000139.jpg", cup), ("photos/a.jpg", detections()), ("photos/b.jpg", cup)]
    line = {"category_id": 7, "bbox": [1, 2, 3, 6], "score": 0.5}
    expected = [{"image_id": 139, **line}, {"image_id": "photos/b.jpg", **line}]
    assert coco_scores.listing(rows, {"category_ids": list(IDS)}) == expected
    assert [row["category_id"] for row in coco_scores.listing(rows, {})] == [2, 2]


def test_what_is_wrong_is_said(monkeypatch):
    with pytest.raises(SwinsError, match="every image needs a result; got 4 images and 1 results"):
        coco_scores.coco_scores(TRUTHS, [detections()], CLASSES)
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(SwinsError, match=r"COCO's scores need faster-coco-eval: pip install 'swins\[detection\]'"):
        coco_scores.coco_scores(TRUTHS, [exact(truth) for truth in TRUTHS], CLASSES)


@pytest.mark.skipif(not COCO_MINI.is_dir(), reason="needs shared/data/coco_mini")
@pytest.mark.parametrize("part", ["train2017", "val2017"])
def test_a_part_of_coco(part, rng):
    """The file's own annotations; the boxes of ours are float32, as the data's."""
    facts = json.loads((COCO_MINI / f"instances_{part}.json").read_text())
    ids = [category["id"] for category in facts["categories"]]
    names = [category["name"] for category in facts["categories"]]
    truths, results = [], []
    for image in facts["images"]:
        lines = [line for line in facts["annotations"] if line["image_id"] == image["id"]]
        boxes = np.float64([line["bbox"] for line in lines]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = [ids.index(line["category_id"]) for line in lines]
        crowd, area = ([line[name] for line in lines] for name in ("iscrowd", "area"))
        size = image["height"], image["width"]
        truths.append(objects(image["id"], boxes, labels, crowd, area, size))
        moved = boxes + rng.normal(0, 0.06, boxes.shape) * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        kept = rng.random(len(boxes)) < 0.8
        scores = np.sort(rng.random(kept.sum()).astype("float32"))[::-1]
        results.append(
            Detections(moved[kept].astype("float32"), scores, np.array(labels, int)[kept], ("",) * kept.sum())
        )
    lines = [line for t, r in zip(truths, results, strict=True) for line in r.to_coco(t.image_id, ids)]
    numbers, per_class = theirs(facts, lines)
    scores = coco_scores.coco_scores(truths, results, names)
    same(scores.pop("per_class"), {name: per_class[number] for name, number in zip(names, ids, strict=True)})
    same(scores, numbers)
    assert 0.1 < scores["AP"] < 0.9
