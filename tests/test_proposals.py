"""Proposals and detections against mmdet's, from reference/regions.py; Cascade's moves; on every backend."""

import functools

import numpy as np
import pytest
import region_cases as cases
from test_anchors import reference
from test_boxes import compiled

from swins.detection.anchors import anchors
from swins.detection.assignment import Regions
from swins.detection.box_deltas import REGION_STDS, decode_deltas, of_class
from swins.detection.proposals import refine, refine_regions, select_detections, select_proposals, without_overlaps


@pytest.mark.slow
@pytest.mark.backends
@pytest.mark.core
def test_proposals_are_mmdets():
    case = cases.proposal_cases()
    ends = np.cumsum([3 * rows * columns for rows, columns in cases.MAPS])[:-1].tolist()

    def propose(logits, deltas, sizes):
        parts = [
            [x[:, low:high] for low, high in zip([0, *ends], [*ends, None], strict=True)] for x in (logits, deltas)
        ]
        return select_proposals(*parts, anchors(cases.MAPS), sizes, **cases.PROPOSALS)

    values = [case[name] for name in ("logits", "deltas", "sizes")]
    found = compiled(propose, values)(*values)
    np.testing.assert_array_equal(found["count"], reference()["proposal_counts"])
    np.testing.assert_allclose(found["scores"], reference()["proposal_scores"], rtol=1e-5)
    np.testing.assert_allclose(found["boxes"], reference()["proposals"], atol=1e-3)
    assert found["count"].min() < 10 < found["count"].max() == 25


@pytest.mark.slow
@pytest.mark.backends
def test_detections_are_mmdets():
    case = cases.detection_cases()

    def detect(boxes, logits, deltas, sizes):
        return select_detections(boxes, boxes[..., 0] > -1000, logits, deltas, sizes, **cases.DETECTIONS)

    values = [case[name] for name in ("boxes", "logits", "deltas", "sizes")]
    found = compiled(detect, values)(*values)
    labels = reference()["detection_labels"]
    np.testing.assert_array_equal(found["count"], (labels >= 0).sum(1))
    np.testing.assert_allclose(found["scores"], reference()["detection_scores"], rtol=1e-5)
    np.testing.assert_array_equal(found["labels"], labels)
    np.testing.assert_allclose(found["boxes"], reference()["detections"], atol=1e-3)


@pytest.mark.slow
def test_what_is_not_usable_is_not_detected():
    case = cases.detection_cases()
    values = [case[name][:3] for name in ("boxes", "logits", "deltas", "sizes")]
    usable = np.zeros((3, 30), bool)
    usable[1, :5] = usable[2] = True
    boxes, logits, deltas, sizes = values
    found = select_detections(boxes, usable, logits, deltas, sizes)
    alone = select_detections(boxes[1:2, :5], usable[1:2, :5], logits[1:2, :5], deltas[1:2, :5], sizes[1:2])
    assert np.array(found["count"])[0] == 0 and not np.array(found["boxes"])[0].any()
    for name in ("boxes", "scores", "labels", "count"):
        np.testing.assert_allclose(np.array(found[name])[1], np.array(alone[name])[0], atol=1e-4)


@pytest.mark.backends
def test_suppression_of_chains_is_the_greedy_one():
    """Boxes that each overlap the next one: every second stays, though all change in turn."""
    left = 3 * np.arange(40, dtype="float32")
    boxes = np.stack([left, 0 * left, left + 10, 0 * left + 10], -1)[None]
    scores = np.linspace(1, 0.1, 40, dtype="float32")[None].copy()
    kept = compiled(functools.partial(without_overlaps, max_overlap=0.5))
    assert np.flatnonzero(kept(boxes, scores)[0]).tolist() == list(range(0, 40, 2))
    scores[0, ::2] = -np.inf
    assert np.flatnonzero(kept(boxes, scores)[0]).tolist() == list(range(1, 40, 2))
    assert not kept(boxes, scores - np.inf).any()


@pytest.mark.backends
def test_cascade_moves_boxes_by_their_class():
    case = cases.detection_cases()
    boxes, logits, deltas, sizes = (case[name][:2] for name in ("boxes", "logits", "deltas", "sizes"))
    best = logits[..., :-1].argmax(-1)
    wanted = np.array(decode_deltas(of_class(deltas, best), boxes, REGION_STDS, sizes))
    moved = compiled(functools.partial(refine, stds=REGION_STDS))(boxes, logits, deltas, sizes)
    np.testing.assert_allclose(moved, wanted, atol=1e-4)

    positive = np.tile(np.arange(30) < 6, (2, 1))
    valid, truth = np.tile(np.arange(30) < 20, (2, 1)), np.tile(np.arange(30) < 2, (2, 1))
    labels = np.where(positive, 1, -1)
    regions = Regions(boxes, labels, 0 * boxes, 0 * labels, positive, valid, truth)
    moved, usable = refine_regions(regions, logits, deltas, sizes, REGION_STDS)
    own = np.array(decode_deltas(of_class(deltas, np.where(positive, 1, best)), boxes, REGION_STDS, sizes))
    np.testing.assert_allclose(np.array(moved), own, atol=1e-4)
    assert np.array(usable).sum() == 2 * 18 and not np.array(usable)[:, :2].any()


@pytest.mark.slow
def test_xla_compiles_what_is_trained():
    """Proposals, samples and all losses in one graph of static shapes."""
    import tensorflow as tf
    from test_region_losses import all_losses, values_of

    case = next(iter(cases.loss_cases()))
    function = tf.function(all_losses, jit_compile=True)
    np.testing.assert_allclose(function(*values_of(case))[0].numpy(), reference()["losses"][0], rtol=3e-3)
    ends = np.cumsum([3 * rows * columns for rows, columns in cases.MAPS])[:-1]
    parts = [np.split(case[name], ends, 1) for name in ("logits", "deltas")]
    propose = functools.partial(select_proposals, candidates=30, most=25)
    compiled_by_xla = tf.function(propose, jit_compile=True)(*parts, anchors(cases.MAPS), case["sizes"])
    for name, value in propose(*parts, anchors(cases.MAPS), case["sizes"]).items():
        np.testing.assert_allclose(compiled_by_xla[name].numpy(), value.numpy(), atol=1e-3)
