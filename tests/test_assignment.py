"""Which object a candidate is to find, and which are chosen: as mmdet has it, from reference/regions.py."""

import functools

import keras
import numpy as np
import pytest
import region_cases as cases
from test_anchors import reference
from test_boxes import compiled

from swins.detection.assignment import (
    CASCADE_RULES,
    REGION_RULE,
    RPN_RULE,
    assign,
    sample,
    sample_anchors,
    sample_regions,
)

pytestmark = pytest.mark.backends
RULES = {"rpn": RPN_RULE, "region": REGION_RULE, "cascade": CASCADE_RULES[2]}


@pytest.mark.core
def test_objects_of_candidates_are_mmdets():
    case = cases.assignment_cases()
    values = [case[name] for name in ("references", "usable", "boxes", "valid")]
    for name, rule in RULES.items():
        owners = compiled(functools.partial(assign, rule=rule), values)(*values)
        np.testing.assert_array_equal(owners, reference()[f"owners_{name}"])


@pytest.mark.slow
def test_chosen_regions_are_mmdets():
    """Of given random numbers; objects' own boxes are among the candidates."""
    case = cases.assignment_cases()
    truths = {name: case[name] for name in ("boxes", "labels", "valid")}
    names = ("references", "usable", "boxes", "labels", "valid", "uniforms")
    values = [case[name] for name in names]
    for name in ("region", "cascade"):

        def choose(references, usable, boxes, labels, valid, uniforms, rule=RULES[name]):
            truths = {"boxes": boxes, "labels": labels, "valid": valid}
            return sample_regions(references, usable, truths, uniforms, rule, cases.COUNT, cases.MOST)

        regions = compiled(choose, values)(*values)
        wanted = reference()[f"chosen_{name}"]
        candidates = np.concatenate([case["boxes"], case["references"]], 1)
        owners = np.concatenate([np.tile(np.arange(5), (200, 1)), reference()[f"owners_{name}"]], 1)
        for i in range(200):
            kinds = ((1, regions.positive[i]), (2, regions.valid[i] & ~regions.positive[i]))
            for kind, places in kinds:
                own = wanted[i] == kind
                boxes = sorted(regions.boxes[i, places].tolist())
                assert boxes == sorted(candidates[i, own].tolist())
            own, positive = wanted[i] == 1, regions.positive[i]
            assert sorted(regions.owners[i, positive]) == sorted(owners[i, own])
            objects = regions.owners[i, positive]
            np.testing.assert_array_equal(regions.labels[i, positive], truths["labels"][i, objects])
            np.testing.assert_array_equal(regions.targets[i, positive], truths["boxes"][i, objects])
            assert regions.truth[i].sum() == own[:5].sum()
            assert (regions.labels[i, ~positive] == -1).all() and not regions.targets[i, ~positive].any()
            assert positive.tolist() == sorted(positive, reverse=True)  # an object's come first
            assert regions.valid[i].tolist() == sorted(regions.valid[i], reverse=True)


def test_chosen_anchors_are_mmdets():
    case = cases.assignment_cases()
    wanted = reference()["chosen_rpn"]
    uniforms = case["uniforms"][:, 5:]
    for row in range(0, 200, 40):
        part = slice(row, row + 40)
        truths = {name: case[name][part] for name in ("boxes", "valid")}
        sampled = sample_anchors(
            case["references"][part], case["usable"][part], truths, uniforms[part], RPN_RULE, cases.COUNT, cases.MOST
        )
        places, positive, valid = (keras.ops.convert_to_numpy(x) for x in (sampled[0], *sampled[2:]))
        for i in range(40):
            for kind, own in ((1, positive[i]), (2, valid[i] & ~positive[i])):
                assert sorted(places[i, own]) == np.flatnonzero(wanted[row + i, 5:] == kind).tolist()


def test_fewer_candidates_than_samples():
    owners = np.array([[0, -1, -2], [-2, -2, -2], [1, 0, 2]])
    uniforms = np.float32([[0.1, 0.2, 0.3]] * 3)
    sampled = compiled(functools.partial(sample, count=6, most=2))(owners, uniforms)
    assert sampled.valid.sum(1).tolist() == [2, 0, 2]
    assert sampled.places[0, :2].tolist() == [0, 1] and sampled.places[2, :2].tolist() == [2, 1]
    assert sampled.owners[2, :2].tolist() == [2, 0]
    assert sampled.positive.sum(1).tolist() == [1, 0, 2]


def test_matches_by_hand():
    """Of two objects that take one anchor the last has it; and all that overlap an object as much as the best do."""
    references = np.float32([[0, 0, 10, 10], [20, 0, 30, 10], [100, 0, 110, 10]])
    boxes = np.float32([[[0, 0, 10, 6], [0, 0, 10, 8], [np.nan] * 4]])
    owners = functools.partial(assign, references, rule=RPN_RULE)
    assert np.array(owners(np.ones((1, 3)), boxes, [[1, 1, 0]])).tolist() == [[1, -1, -1]]
    assert np.array(owners(np.ones((1, 3)), boxes[:, ::-1], [[0, 1, 1]])).tolist() == [[2, -1, -1]]
    assert np.array(owners([[0, 1, 1]], boxes, [[1, 1, 0]])).tolist() == [[-2, -1, -1]]
    between = np.float32([[[0, 0, 30, 10]]])  # two anchors overlap it by a third each
    assert np.array(owners(np.ones((1, 3)), between, [[1]])).tolist() == [[0, 0, -1]]
    assert np.array(assign(references, [[1, 1, 1]], between, [[1]], REGION_RULE)).tolist() == [[-1, -1, -1]]
    assert np.array(owners(np.ones((1, 3)), boxes, [[0, 0, 0]])).tolist() == [[-1, -1, -1]]


def test_boxes_without_an_area_are_no_objects():
    boxes = np.float32([[[0, 0, 0, 9], [np.nan] * 4, [0, 0, np.inf, np.inf], [5, 5, 3, 3], [1, 1, 4, 4]]])
    truths = {"boxes": boxes, "labels": np.full((1, 5), 2), "valid": np.ones((1, 5))}
    regions = sample_regions(boxes, np.ones((1, 5)), truths, np.random.default_rng(0).random((1, 10)), count=8, most=4)
    positive = keras.ops.convert_to_numpy(regions.positive)[0]
    assert positive.sum() == 2  # the last, as an object and as a proposal
    assert keras.ops.convert_to_numpy(regions.owners)[0, :2].tolist() == [4, 4]
    assert np.isfinite(keras.ops.convert_to_numpy(regions.targets)).all()
