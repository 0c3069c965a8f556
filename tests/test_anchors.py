"""Anchors and deltas against mmdet's, from arrays made by reference/regions.py, on every backend."""

import functools

import numpy as np
import pytest
import region_cases as cases
from shared_fixtures import ROOT
from test_boxes import compiled

from swins.detection.anchors import anchors, level_anchors, usable_anchors
from swins.detection.box_deltas import CASCADE_STDS, REGION_STDS, RPN_STDS, decode_deltas, encode_deltas, of_class

pytestmark = pytest.mark.backends


@functools.cache
def reference():
    with np.load(ROOT / "tests" / "reference" / "regions.npz") as file:
        return dict(file)


def test_anchors_are_mmdets_and_so_are_those_of_an_image():
    for i, (maps, sizes) in enumerate(cases.anchor_cases()):
        boxes = np.concatenate(compiled(lambda maps=maps: anchors(maps))())
        np.testing.assert_allclose(boxes, reference()[f"anchors_{i}"], atol=1e-4)
        wanted = np.unpackbits(reference()[f"usable_{i}"], axis=1, count=len(boxes)).astype(bool)
        for border, row in ((None, 0), (0, 1)):
            usable = compiled(functools.partial(usable_anchors, maps, border=border))(sizes)
            np.testing.assert_array_equal(usable, wanted[row::2])


def test_anchors_by_hand():
    """A level of one row of two cells: three boxes a cell around its upper left corner, wide, square, tall."""
    boxes = compiled(functools.partial(level_anchors, 1, 2, 8))()
    sides = (boxes[:, 2:] - boxes[:, :2]) / 64
    np.testing.assert_allclose(sides, [[1.4142136, 0.7071068], [1, 1], [0.7071068, 1.4142136]] * 2, rtol=1e-6)
    np.testing.assert_allclose((boxes[:, 2:] + boxes[:, :2]) / 2, [[0, 0]] * 3 + [[8, 0]] * 3, atol=1e-5)


def test_deltas_are_mmdets():
    case = cases.delta_cases()
    pairs = case["boxes"], case["references"]
    for name, stds in (("rpn", RPN_STDS), ("region", REGION_STDS), ("cascade", CASCADE_STDS[2])):
        wanted = {kind: reference()[f"{kind}_{name}"] for kind in ("encoded", "decoded", "clipped")}
        coded = compiled(functools.partial(encode_deltas, stds=stds))(*pairs)
        np.testing.assert_allclose(coded, wanted["encoded"], rtol=2e-5, atol=2e-5)
        moved = compiled(functools.partial(decode_deltas, stds=stds))(case["deltas"], case["references"])
        scale = np.abs(wanted["decoded"]).max(-1, keepdims=True)
        np.testing.assert_allclose(moved / scale, wanted["decoded"] / scale, atol=2e-6)
        own = [case[key][:, None] for key in ("deltas", "references")]
        ended = compiled(lambda a, b, sizes, stds=stds: decode_deltas(a, b, stds, sizes))(*own, case["sizes"])
        np.testing.assert_allclose(ended[:, 0], wanted["clipped"], atol=1e-3)
    assert np.isfinite(reference()["decoded_rpn"]).all() and np.abs(case["deltas"]).max() > 60


def test_deltas_of_a_class_and_references_without_an_area():
    deltas = np.arange(2 * 3 * 8, dtype="float32").reshape(2, 3, 8)
    labels = np.array([[0, 1, -1], [1, 1, 0]])
    chosen = compiled(of_class)(deltas, labels)
    np.testing.assert_array_equal(chosen[0], [deltas[0, 0, :4], deltas[0, 1, 4:], deltas[0, 2, :4]])
    np.testing.assert_array_equal(chosen[1, 0], deltas[1, 0, 4:])
    points = np.float32([[3, 3, 3, 3], [0, 0, 0, 9]])
    coded = compiled(encode_deltas)(points[::-1].copy(), points)
    assert np.isfinite(coded).all()
    np.testing.assert_array_equal(compiled(decode_deltas)(np.zeros((2, 4), "float32"), points), points)
