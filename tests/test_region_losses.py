"""Losses of proposals, regions and masks against mmdet's, with the same samples, from reference/regions.py."""

import itertools

import numpy as np
import pytest
import region_cases as cases
from keras import ops
from test_anchors import reference
from test_boxes import compiled
from test_roi_align import gradients

from swins.detection.anchors import anchors, usable_anchors
from swins.detection.assignment import CASCADE_RULES, REGION_RULE, sample_anchors, sample_regions
from swins.detection.box_deltas import CASCADE_STDS, REGION_STDS
from swins.detection.mask_targets import mask_targets
from swins.detection.region_losses import (
    CASCADE_BETA,
    delta_errors,
    giou_errors,
    mask_loss,
    region_losses,
    rpn_losses,
)

NAMES = ("logits", "deltas", "anchor_uniforms", "proposals", "uniforms", "class_logits", "class_deltas", "mask_logits")
TRUTHS = ("boxes", "labels", "valid", "masks")
STAGES = ((REGION_RULE, REGION_STDS, delta_errors), (CASCADE_RULES[2], CASCADE_STDS[2], giou_errors))


def all_losses(sizes, *values, weight=None):
    """The losses of Mask R-CNN and of a Cascade in the reference's order, and how many cells masks' targets have."""
    case = dict(zip((*NAMES, *TRUTHS), values, strict=True))
    truths = {name: case[name] for name in TRUTHS}
    if weight is not None:
        truths["weight"] = weight
    everywhere = ops.concatenate(anchors(cases.MAPS), 0)
    losses, counts = [], []
    for border, beta in ((None, 0.0), (0, CASCADE_BETA)):
        usable = usable_anchors(cases.MAPS, sizes, border=border)
        samples = sample_anchors(everywhere, usable, truths, case["anchor_uniforms"], count=32, most=8)
        losses += rpn_losses(case["logits"], case["deltas"], everywhere, samples, truths, beta).values()
    usable = ops.ones(ops.shape(case["proposals"])[:2], "bool")
    for rule, stds, errors in STAGES:
        regions = sample_regions(case["proposals"], usable, truths, case["uniforms"], rule, cases.COUNT, cases.MOST)
        outputs = case["class_logits"], case["class_deltas"]
        losses += region_losses(*outputs, regions, stds, truths.get("weight"), errors).values()
        most = cases.MOST
        targets = mask_targets(truths["masks"], regions.boxes[:, :most], regions.owners[:, :most])
        losses.append(mask_loss(case["mask_logits"], targets, regions, truths.get("weight")))
        counts.append(ops.sum(targets * ops.cast(regions.positive[:, :most], "float32")[..., None, None]))
    return ops.stack(losses), ops.stack(counts)


def values_of(case):
    """Arrays of a case as training has them: masks of eight pixels a byte."""
    truths = {**case["truths"], "masks": np.packbits(case["truths"]["masks"], -1, bitorder="little")}
    return [case["sizes"], *(case[name] for name in NAMES), *(truths[name] for name in TRUTHS)]


@pytest.mark.slow
@pytest.mark.backends
@pytest.mark.parametrize("step", [49, pytest.param(1, marks=pytest.mark.slow)])
def test_losses_are_mmdets(step):
    """Of batches of two, with images and whole batches without objects, objects of one place, masks of half cells."""
    batches = [values_of(case) for case in itertools.islice(cases.loss_cases(), 0, None, step)]
    function = compiled(all_losses, batches[0] if step == 1 else None)
    losses, cells = (np.array(x) for x in zip(*[function(*batch) for batch in batches], strict=True))
    wanted, wanted_cells = reference()["losses"][::step], reference()["target_sums"][::step]
    np.testing.assert_array_equal(cells, wanted_cells)
    np.testing.assert_allclose(losses, wanted, rtol=1e-5, atol=1e-6)
    empty = wanted[49 // step]
    assert (empty[[1, 3, 5, 6, 8, 9]] == 0).all() and (empty[[0, 2, 4, 7]] > 0).all()


@pytest.mark.slow
def test_fillers_change_nothing_but_the_share():
    case = values_of(next(iter(cases.loss_cases())))
    other = values_of(list(cases.loss_cases(4))[3])
    filled = [np.concatenate([x, y]) for x, y in zip(case, other, strict=True)]
    alone, _ = all_losses(*case)
    shared, _ = all_losses(*filled, weight=np.float32([1, 1, 0, 0]))
    np.testing.assert_allclose(shared, 0.5 * np.array(alone), rtol=1e-5, atol=1e-7)
    nothing, _ = all_losses(*filled, weight=np.zeros(4, "float32"))
    assert not np.array(nothing).any()


@pytest.mark.backends
def test_gradients_are_numbers_also_without_objects():
    case = list(cases.loss_cases(10))[9]
    case["truths"]["valid"][:] = False
    case["truths"]["boxes"][:] = np.nan
    places = [1 + NAMES.index(name) for name in ("logits", "deltas", "class_logits", "class_deltas", "mask_logits")]

    def total(outputs):
        values = values_of(case)
        for place, output in zip(places, outputs, strict=True):
            values[place] = output
        return ops.sum(all_losses(*values)[0])

    values = values_of(case)
    found = [ops.convert_to_numpy(x) for x in gradients(total, [values[place] for place in places])]
    assert all(np.isfinite(x).all() for x in found)
    assert [bool(x.any()) for x in found] == [True, False, True, False, False]
