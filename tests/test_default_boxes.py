"""Default boxes of the maps that networks give, against the reference's and torchvision's (reference/detection.py)."""

import dataclasses
import re

import detection_cases as cases
import numpy as np
import pytest
from keras import ops
from test_boxes import arrays

from swins.boxes import corners, iou
from swins.data.detection_layouts import find_evaluation_split
from swins.detection.default_boxes import PRESETS, Priors, default_boxes, per_cell, spread
from swins.errors import SwinsError

TOLERANCE = 6e-8


def squares(sides):
    return [(side, side) for side in sides]


def swapped(boxes, sizes):
    """Boxes with the fourth and fifth of each cell of six exchanged: torchvision has 2, 1/2, 3, 1/3."""
    counts = [rows * columns * n for (rows, columns), n in zip(sizes, per_cell(), strict=True)]
    levels = np.split(boxes, np.cumsum(counts)[:-1])
    for level, n in zip(levels, per_cell(), strict=True):
        if n == 6:
            cells = level.reshape(-1, 6, 4)
            cells[:, [3, 4]] = cells[:, [4, 3]]
    return np.concatenate(levels)


@pytest.mark.parametrize("count", cases.LARGE)
def test_counts_and_boxes_are_the_references(count):
    reference = arrays("priors")
    boxes = default_boxes(squares(cases.LARGE[count]))
    assert boxes.shape == (count, 4) and boxes.dtype == np.float32
    np.testing.assert_allclose(boxes.astype("float64").sum(0), reference[f"sums_{count}"], rtol=1e-7)
    np.testing.assert_allclose(boxes[:4], reference[f"first_{count}"], rtol=0, atol=TOLERANCE)
    if count == 8732:
        np.testing.assert_allclose(boxes, reference["r_ssd"].T, rtol=0, atol=TOLERANCE)


def test_first_boxes_by_hand():
    boxes = default_boxes(squares(cases.LARGE[8732]))
    half = 1 / 76
    cell = [(0.1, 0.1), (0.1414214, 0.1414214), (0.1414214, 0.0707107), (0.0707107, 0.1414214)]
    np.testing.assert_allclose(boxes[:4], [(half, half, *sides) for sides in cell], atol=TOLERANCE)
    np.testing.assert_allclose(boxes[4:8, :2], [(3 * half, half)] * 4, atol=TOLERANCE)
    last = [(0.9, 0.9), (0.9486833, 0.9486833), (1, 0.6363961), (0.6363961, 1)]
    np.testing.assert_allclose(boxes[-4:], [(0.5, 0.5, *sides) for sides in last], atol=TOLERANCE)
    assert per_cell() == per_cell("torchvision") == (4, 6, 6, 6, 4, 4)


@pytest.mark.parametrize("oblong", [False, True])
def test_torchvisions_generator_gives_the_same(oblong):
    """With its own scales and fixed steps, and with the reference's, where it has ratios in another order."""
    reference, end = arrays("priors"), "_oblong" if oblong else ""
    sizes = cases.OBLONG if oblong else squares(cases.LARGE[8732])
    image = cases.OBLONG_IMAGE if oblong else (300, 300)
    boxes = default_boxes(sizes, "torchvision", image)
    np.testing.assert_allclose(boxes, reference[f"fixed{end}"].T, rtol=0, atol=TOLERANCE)
    boxes = swapped(default_boxes(sizes, "r_ssd", image), sizes)
    np.testing.assert_allclose(boxes, reference[f"free{end}"].T, rtol=0, atol=TOLERANCE)


def test_cells_of_oblong_maps_lie_row_by_row():
    boxes = default_boxes([(2, 3)], Priors((0.5,), 0.5, ((),)))
    np.testing.assert_allclose(boxes[::2, 0], [1 / 6, 3 / 6, 5 / 6] * 2, atol=TOLERANCE)
    np.testing.assert_allclose(boxes[::2, 1], [0.25] * 3 + [0.75] * 3)
    assert (boxes[:, 2:] == 0.5).all()


def test_sides_end_at_the_images_if_asked():
    wide = Priors((0.9,), 1.2, ((4.0,),))
    assert default_boxes([(1, 1)], wide)[:, 2:].max() == 1
    boxes = default_boxes([(1, 1)], dataclasses.replace(wide, clip=False))
    np.testing.assert_allclose(boxes[:, 2:], [(0.9, 0.9), (1.08**0.5, 1.08**0.5), (1.8, 0.45)], rtol=1e-6)


def test_the_rule_of_the_reference_for_other_pyramids():
    assert spread(6) == PRESETS["r_ssd"]
    four = spread(4)
    assert four.scales == (0.1, 0.2, 0.55, 0.9) and per_cell(four) == (4, 6, 4, 4)
    assert len(default_boxes(squares((8, 4, 2, 1)), four)) == 4 * 64 + 6 * 16 + 4 * 4 + 4


def test_errors_say_what_to_do():
    def refused(text, call, *arguments):
        with pytest.raises(SwinsError, match=re.escape(text)):
            call(*arguments)

    refused("are of 6 maps; got 4; give Priors of as many, such as spread(4)", default_boxes, squares((8, 4, 2, 1)))
    refused("got no image_size", default_boxes, squares(cases.LARGE[8732]), "torchvision")
    refused("unknown preset of default boxes 'torch_vision': the closest are torchvision", per_cell, "torch_vision")
    refused("got 2; give their Priors", spread, 2)
    refused("got 2 scales, 1 of ratios;", Priors, (0.1, 0.2), 1.0, ((2.0,),))
    refused("got 1 scales, 1 of ratios, 2 steps;", Priors, (0.1,), 1.0, ((2.0,),), (8, 16))


def test_boxes_for_garments_fit_all_of_them():
    """Those of the canvases that recipes/ssd_garments_swin_mini.py trains on."""
    split = find_evaluation_split("garments:demo/fashion_mnist,count=800,size=64,objects=1-2,scale=21-48,colour=False")
    boxes = np.concatenate([split[i][2].boxes for i in range(len(split))]) / 64
    priors = corners(default_boxes([(16, 16), (8, 8), (4, 4)], "garments"))
    assert len(boxes) > 200 and (ops.convert_to_numpy(iou(boxes, priors)).max(1) >= 0.5).mean() > 0.99
