"""Mean IoU beside mmsegmentation's and beside the plain formula."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
import segment_cases as cases

from swins.data.class_masks import ClassMask, contents, table_of
from swins.data.miou_scores import (
    SCORES,
    ConfusionMatrix,
    class_table,
    columns,
    record,
    score,
    segmentation_scores,
    tables,
)
from swins.errors import SwinsError

REFERENCE = json.loads((pathlib.Path(__file__).parent / "reference" / "segment_augment.json").read_text())["scores"]
NAMES = ("sky", "road", "car", "tree", "cat", "dog")


@dataclasses.dataclass
class Answer:
    mask: np.ndarray


def truth_of(mask):
    return ClassMask(mask, table_of({k: k for k in range(6)}), contents(mask))


def test_scores_are_mmsegs():
    pairs = cases.predictions()
    truths, masks = zip(*pairs, strict=True)
    scores = segmentation_scores(truths, masks, NAMES)
    means = [scores[name] for name in ("mIoU", "mAcc", "aAcc")]
    np.testing.assert_allclose(means, [REFERENCE["means"][name] for name in ("IoU", "Acc", "aAcc")], rtol=1e-6)
    own = [scores["per_class"][name] for name in NAMES]
    assert [v is None for v in own] == [v is None for v in REFERENCE["IoU"]]
    np.testing.assert_allclose(own[:-1], REFERENCE["IoU"][:-1], rtol=1e-6)
    records = [record(Answer(guess), truth_of(truth)) for truth, guess in pairs]
    records = json.loads(json.dumps(records))
    assert score(records) == {name: scores[name] for name in SCORES} and next(iter(SCORES)) == "mIoU"
    header, rows = class_table(records, NAMES)
    assert header == ("label", "name", "pixels", "IoU", "Acc") and tables(records, {"classes": NAMES}) == {
        "classes": (header, rows)
    }
    assert [row[4] is None for row in rows] == [v is None for v in REFERENCE["Acc"]]
    np.testing.assert_allclose([row[4] for row in rows[:4]], REFERENCE["Acc"][:4], atol=1e-5)
    assert sum(row[2] for row in rows) == sum(line[0] for line in columns(records, {})[1])


def test_scores_are_the_plain_formula():
    rng = np.random.default_rng(0)
    for _ in range(20):
        truth, guess = rng.integers(0, 5, (2, 9, 8))
        truth[rng.random(truth.shape) < 0.2] = 7
        ious = []
        for k in range(6):
            valid = truth != 7
            union = ((truth == k) | (guess == k)) & valid
            if union.any():
                ious.append(((truth == k) & (guess == k)).sum() / union.sum())
        scores = segmentation_scores([truth], [guess], NAMES, ignored=7)
        np.testing.assert_allclose(scores["mIoU"], np.mean(ious), rtol=1e-12)
        np.testing.assert_allclose(scores["aAcc"], (truth == guess).sum() / (truth != 7).sum(), rtol=1e-12)


def test_what_is_ignored_and_what_is_nowhere():
    nothing = np.full((4, 5), 255, np.uint8)
    empty = record(Answer(np.zeros((4, 5), int)), truth_of(nothing))
    assert score([empty]) == dict.fromkeys(SCORES) == score([])
    assert columns([empty], {})[1] == [[0, 0, None, None, None]]
    assert class_table([empty], NAMES)[1][0] == [0, "sky", 0, None, None]
    perfect = record(Answer(np.ones((4, 5), int)), truth_of(np.ones((4, 5), np.uint8)))
    assert score([empty, perfect]) == dict.fromkeys(SCORES, 1.0)
    wrong = segmentation_scores([[[0, 0]]], [[[1, 1]]], NAMES)
    assert wrong["mIoU"] == 0 and wrong["mAcc"] == 0 and wrong["per_class"]["car"] is None
    assert all(type(value) is float for value in ConfusionMatrix(3).scores().values() if value is not None)


def test_bad_masks():
    with pytest.raises(SwinsError, match="one size; got 5x4 for 4x5"):
        record(Answer(np.zeros((4, 5), int)), truth_of(np.zeros((5, 4), np.uint8)))
    with pytest.raises(SwinsError, match="classes 0 to 1; got 0 to 2"):
        segmentation_scores([[[0, 1]]], [[[0, 2]]], ("a", "b"))
    with pytest.raises(SwinsError, match="1 true ones and 2"):
        segmentation_scores([[[0]]], [[[0]], [[0]]], ("a", "b"))
