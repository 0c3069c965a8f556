"""SSD's matching and losses: by hand, against a slow reading, the reference's and torchvision's, on every backend."""

import dataclasses
import functools
import re

import detection_cases as cases
import keras
import numpy as np
import pytest
from keras import ops
from test_boxes import arrays, compiled

from swins.detection.default_boxes import default_boxes
from swins.detection.prior_matching import match
from swins.detection.ssd_loss import LOSS_RULES, LossRule, hardest, ssd_loss
from swins.errors import SwinsError

NAMES = ("codes", "scores", "boxes", "labels", "valid")
PRIORS = np.float32([[0.25, 0.25, 0.5, 0.5], [0.75, 0.25, 0.5, 0.5], [0.25, 0.75, 0.5, 0.5], [0.5, 0.5, 1, 1]])


def matched(boxes, labels, valid=None, priors=PRIORS, threshold=0.5):
    """Labels and index of one image."""
    boxes = np.float32([boxes])
    valid = [np.ones(len(labels))] if valid is None else [valid]
    results = match(priors, boxes, np.array([labels]), np.array(valid), threshold)
    return [ops.convert_to_numpy(x)[0].tolist() for x in results]


def slow_match(priors, boxes, labels, valid):
    """The rules of `match` in plain loops, for one image; in float32, as equal overlaps are to be equal."""
    corners = [(*(p[:2] - p[2:] / 2), *(p[:2] + p[2:] / 2)) for p in priors]
    objects = [i for i in range(len(labels)) if valid[i]]
    overlap = np.zeros((len(labels), len(corners)), "float32")
    for i in objects:
        for j, (left, top, right, bottom) in enumerate(corners):
            a, b, c, d = boxes[i]
            common = max(min(c, right) - max(a, left), 0) * max(min(d, bottom) - max(b, top), 0)
            overlap[i, j] = common / ((c - a) * (d - b) + (right - left) * (bottom - top) - common)
    result, owner = [0] * len(corners), [None] * len(corners)
    for j in range(len(corners)):
        best = max(objects, key=lambda i: overlap[i, j], default=None)
        if best is not None and overlap[best, j] >= 0.5:
            result[j], owner[j] = 1 + labels[best], best
    for i in objects:
        j = int(np.argmax(overlap[i]))
        result[j], owner[j] = 1 + labels[i], i
    return result, owner


def test_matches_by_hand():
    left, right = [0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5]
    assert matched([left, right], [4, 2]) == [[5, 3, 0, 0], [0, 1, 0, 0]]
    # two objects of which one prior is the best: the later has it
    assert matched([left, left], [4, 2])[0] == [3, 0, 0, 0]
    assert matched([left, left], [4, 2], valid=[1, 0])[0] == [5, 0, 0, 0]
    # a small object claims a prior that a larger one would have
    assert matched([[0, 0, 0.5, 0.6], [0.1, 0.1, 0.2, 0.2]], [0, 1])[0] == [2, 0, 0, 0]
    # half of the whole image: exactly the threshold, and claimed; the quarters are overlapped by half each
    labels, index = matched([[0, 0, 1, 0.5]], [7])
    assert labels == [8, 8, 0, 8] and index == [0, 0, 0, 0]
    assert matched([[0, 0, 1, 0.5]], [7], threshold=0.51)[0] == [8, 0, 0, 0]


def test_images_without_objects_are_background():
    nothing = [[0, 0, 0, 0], [np.nan] * 4, [0.5, 0.5, 0.5, 0.9], [0.6, 0.6, 0.1, 0.1], [0, 0, np.inf, np.inf]]
    for valid in (np.zeros(5), np.ones(5)):  # boxes without an area are no objects either
        assert matched(nothing, [3] * 5, valid)[0] == [0, 0, 0, 0]
    assert matched([*nothing, [0, 0, 0.5, 0.5]], [3] * 5 + [1])[0] == [2, 0, 0, 0]
    with pytest.raises(SwinsError, match="got none; add a row whose valid is 0"):
        match(PRIORS, np.zeros((2, 0, 4)), np.zeros((2, 0)), np.zeros((2, 0)))


@pytest.mark.backends
def test_matches_are_those_of_a_slow_reading():
    priors = arrays("losses")["priors"]
    function = compiled(functools.partial(match, priors))
    positives = 0
    for case in cases.loss_cases(priors, 24):
        truths = [case[name] for name in ("boxes", "labels", "valid")]
        labels, index = function(*truths)
        for row in range(len(labels)):
            wanted, owners = slow_match(priors, case["boxes"][row], case["labels"][row], case["valid"][row])
            assert labels[row].tolist() == wanted
            places = np.flatnonzero(wanted)
            assert index[row, places].tolist() == [owners[j] for j in places]
            positives += len(places)
    assert positives > 300


def losses(priors, case, rule="r_ssd", **more):
    outputs = {"boxes": case["codes"], "scores": case["scores"]}
    truths = {**{name: case[name] for name in ("boxes", "labels", "valid")}, **more}
    result = ssd_loss(priors, outputs, truths, rule)
    return {name: float(value) for name, value in result.items()}


def gradients(function):
    """A function of arrays -> the gradients of a scalar function of them in the first two."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(jax.grad(function, (0, 1)))

    def of(*values):
        tensors = [ops.convert_to_tensor(value) for value in values[:2]]
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            with tf.GradientTape() as tape:
                tape.watch(tensors)
                total = function(*tensors, *values[2:])
            return tape.gradient(total, tensors)
        for tensor in tensors:
            tensor.requires_grad_(True)
        function(*tensors, *values[2:]).backward()
        return [tensor.grad for tensor in tensors]

    return of


def all_losses(priors, *values):
    """The losses of both rules."""
    case = dict(zip(NAMES, values, strict=True))
    outputs = {"boxes": case.pop("codes"), "scores": case.pop("scores")}
    return [
        ssd_loss(priors, outputs, case, rule)[name] for rule in ("r_ssd", "torchvision") for name in ("box", "class")
    ]


@pytest.mark.backends
@pytest.mark.core
def test_losses_are_the_references_and_torchvisions():
    reference = arrays("losses")
    assert abs(default_boxes([(side, side) for side in cases.MAPS]) - reference["priors"]).max() <= 6e-8
    batches = [[case[name] for name in NAMES] for case in cases.loss_cases(reference["priors"])]
    function = compiled(functools.partial(all_losses, reference["priors"]), batches[0])
    results = np.array([function(*batch) for batch in batches])
    results[:, 0] += results[:, 1]
    np.testing.assert_allclose(results[:, :2], reference["r_ssd"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(results[:, 2:], reference["torchvision"], rtol=1e-5, atol=1e-5)
    assert results[49, 0] == results[49, 1] > 0 and not results[49, 2:].any()  # a batch without objects


@pytest.mark.slow
def test_losses_of_any_number_of_images():
    priors = arrays("losses")["priors"]
    case = next(cases.loss_cases(priors))
    function = compiled(functools.partial(all_losses, priors), [case[name] for name in NAMES])
    for count in (1, 2):
        values = [case[name][:count] for name in NAMES]
        np.testing.assert_allclose(function(*values), [float(x) for x in all_losses(priors, *values)], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.backends
def test_gradients_are_the_references():
    reference = arrays("losses")
    function = gradients(lambda *values: sum(all_losses(reference["priors"], *values)[:2]))
    for i, case in enumerate(cases.loss_cases(reference["priors"], 12)):
        if i % 6 == 0:  # equal losses, of which any may be the hardest
            continue
        row = []
        for gradient in map(ops.convert_to_numpy, function(*(case[name] for name in NAMES))):
            row += [np.square(gradient).sum() ** 0.5, (gradient * cases.pattern(gradient.shape)).sum()]
        np.testing.assert_allclose(row, reference["gradients"][i], rtol=1e-4, atol=1e-5)


def small_case():
    """One image of PRIORS, an object on the first; losses that one can compute by hand."""
    scores = np.zeros((1, 4, 3), "float32")
    scores[0, :, 0] = (0, 1, 2, 3)
    codes = np.zeros((1, 4, 4), "float32")
    codes[0, 0] = (0.5, -2, 0, 1)
    return {
        "codes": codes,
        "scores": scores,
        "boxes": np.float32([[[0, 0, 0.5, 0.5], [np.nan] * 4]]),
        "labels": np.array([[1, 0]]),
        "valid": np.array([[True, False]]),
    }


def test_losses_by_hand():
    case = small_case()
    entropy = [np.log(3), *(np.log(np.exp(x) + 2) - x for x in (1, 2, 3))]
    box = 0.5 * 0.25 + 1.5 + 0 + 0.5
    ours = losses(PRIORS, case)
    np.testing.assert_allclose([ours["box"], ours["class"]], [box / 4, sum(entropy)], rtol=1e-6)
    ours = losses(PRIORS, case, LossRule(negatives=1, loc_reduction="sum_per_box", box_weight=0.5))
    np.testing.assert_allclose([ours["box"], ours["class"]], [box / 2, entropy[0] + entropy[1]], rtol=1e-6)
    # nothing is there: the three hardest of four
    case["valid"][:] = False
    assert losses(PRIORS, case)["box"] == 0
    np.testing.assert_allclose(losses(PRIORS, case)["class"], sum(entropy[:3]), rtol=1e-6)
    assert losses(PRIORS, case, "torchvision") == {"box": 0, "class": 0}


def test_fillers_count_for_nothing_but_the_batchs_size():
    reference = arrays("losses")
    for rule in LOSS_RULES:
        for case in cases.loss_cases(reference["priors"], 3):
            part = {name: value[:2] for name, value in case.items()}
            filled = losses(reference["priors"], case, rule, weight=np.float32([1, 1, 0]))
            for name, value in losses(reference["priors"], part, rule).items():
                np.testing.assert_allclose(3 * filled[name], 2 * value, rtol=1e-6)
            nothing = losses(reference["priors"], case, rule, weight=np.zeros(3, "float32"))
            assert nothing == {"box": 0, "class": 0}


def test_an_image_that_counts_twice_counts_as_two():
    reference = arrays("losses")
    case = next(cases.loss_cases(reference["priors"]))
    twice = {name: np.concatenate([value, value[:1]]) for name, value in case.items()}
    ours = losses(reference["priors"], case, weight=np.float32([2, 1, 1]))
    np.testing.assert_allclose(list(ours.values()), list(losses(reference["priors"], twice).values()), rtol=1e-5)


def test_losses_of_half_precision_are_float32():
    reference = arrays("losses")
    case = next(cases.loss_cases(reference["priors"]))
    outputs = {"boxes": case["codes"], "scores": case["scores"]}
    half = {name: ops.cast(value, "bfloat16") for name, value in outputs.items()}
    rounded = {name: ops.cast(value, "float32") for name, value in half.items()}
    truths = {name: case[name] for name in ("boxes", "labels", "valid")}
    one, other = (ssd_loss(reference["priors"], x, truths) for x in (half, rounded))
    for name, value in one.items():
        assert keras.backend.standardize_dtype(value.dtype) == "float32"
        assert float(value) == float(other[name])


def test_the_hardest_of_the_background():
    entropy = np.float32([[5, 1, 4, 3, 2], [1, 2, 3, 4, 5], [1, 1, 1, 1, 1]])
    background = np.array([[False, True, True, True, True], [True, True, True, False, False], [True] * 5])
    chosen = hardest(*map(ops.convert_to_tensor, (entropy, background, np.float32([2, 9, 3]))))
    chosen = ops.convert_to_numpy(chosen)
    assert chosen[:2].tolist() == [[0, 0, 1, 1, 0], [1, 1, 1, 0, 0]]
    np.testing.assert_allclose(chosen[2], 3 / 5)  # of equals each in part
    assert not ops.convert_to_numpy(hardest(entropy, background, np.zeros(3, "float32"))).any()


def test_the_hardest_are_those_that_a_sort_finds(rng):
    entropy = np.round(np.exp(rng.normal(0, 4, (40, 300))), 2).astype("float32")  # from 0 to 1e5, some equal
    background, counts = rng.random(entropy.shape) < 0.7, rng.integers(0, 300, 40).astype("float32")
    chosen = ops.convert_to_numpy(hardest(*map(ops.convert_to_tensor, (entropy, background, counts))))
    for losses_of_image, own, count, weights in zip(entropy, background, counts.astype(int), chosen, strict=True):
        largest = np.sort(losses_of_image[own])[::-1][:count]
        np.testing.assert_allclose((weights * losses_of_image).sum(), largest.sum(), rtol=1e-5)
        np.testing.assert_allclose(weights.sum(), len(largest), rtol=1e-5)
        assert not weights[~own].any()


def test_errors_say_what_to_do():
    for call, text in (
        (lambda: losses(PRIORS, small_case(), "rssd"), "unknown rule of SSD's loss 'rssd': the closest are r_ssd"),
        (lambda: LossRule(loc_reduction="sum"), "loc_reduction is mean or sum_per_box; got 'sum'"),
        (lambda: dataclasses.replace(LossRule(), negatives=-1), "0 or more; got 1, -1"),
    ):
        with pytest.raises(SwinsError, match=re.escape(text)):
            call()
