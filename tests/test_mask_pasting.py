"""Masks pasted into images, as mmdet does it, from reference/regions.py: in numpy and in a graph."""

import functools

import keras
import numpy as np
import pytest
import region_cases as cases
from test_anchors import reference
from test_boxes import compiled

from swins.detection.mask_pasting import paste, paste_in_graph
from swins.errors import SwinsError


def bitmaps():
    return np.unpackbits(reference()["bitmaps"], count=200 * 40 * 60).reshape(200, 40, 60).astype(bool)


def test_bitmaps_are_mmdets():
    masks, boxes = cases.paste_cases()
    np.testing.assert_array_equal(paste(masks, boxes, cases.PASTED), bitmaps())
    assert 20 < (bitmaps().sum((1, 2)) == 0).sum() < 100


@pytest.mark.slow
@pytest.mark.backends
def test_bitmaps_of_a_graph_are_mmdets():
    masks, boxes = cases.paste_cases()
    shape = (2, 100)
    function = compiled(functools.partial(paste_in_graph, size=cases.PASTED))
    result = function(masks.reshape(*shape, 28, 28), boxes.reshape(*shape, 4)).reshape(200, *cases.PASTED)
    assert np.mean(result != bitmaps()) <= 1e-5  # of values that are a half


@pytest.mark.backends
def test_boxes_without_an_area_have_no_pixels():
    boxes = np.float32([[3, 3, 3, 9], [3, 3, 9, 3], [9, 9, 3, 3], [2, 2, 6, 6], [0, 0, 0, 0]])
    masks = np.ones((5, 28, 28), "float32")
    for function in (paste, paste_in_graph):
        assert keras.ops.convert_to_numpy(function(masks, boxes, (10, 12))).sum((1, 2)).tolist() == [0, 0, 0, 16, 0]
    assert paste(masks[:0], boxes[:0], (4, 5)).shape == (0, 4, 5)
    assert not paste(masks, boxes * np.nan, (4, 5)).any()


def test_one_mask_a_box():
    with pytest.raises(SwinsError, match=r"got \(2, 28, 28\) and 3 boxes"):
        paste(np.zeros((2, 28, 28)), np.zeros((3, 4)), (4, 5))
