"""Boxes against torchvision's and the reference's, from arrays made by reference/detection.py, on every backend."""

import functools

import detection_cases as cases
import keras
import numpy as np
import pytest
from shared_fixtures import ROOT

from swins.boxes import (
    area,
    centres,
    clip,
    corners,
    decode,
    encode,
    first_maximum,
    float32_below,
    iou,
    nms,
    stable_top_k,
)

pytestmark = pytest.mark.backends


def arrays(name):
    with np.load(ROOT / "tests" / "reference" / f"detection_{name}.npz") as file:
        return dict(file)


def compiled(function, examples=None):
    """A function of arrays as its backend compiles it, -> numpy arrays; for any number of images where it can.

    Without examples TensorFlow's is not compiled.
    """
    if keras.backend.backend() == "jax":  # which compiles each operation otherwise
        import jax

        function = jax.jit(function)
    elif examples and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        signature = [tf.TensorSpec((None, *x.shape[1:]), x.dtype) for x in examples]
        function = tf.function(function, input_signature=signature)
    return lambda *values: keras.tree.map_structure(keras.ops.convert_to_numpy, function(*values))


def test_corners_centres_and_areas():
    xyxy = np.float32([[1, 2, 4, 8], [-3, -1, -1, 0], [5, 5, 5, 9], [4, 4, 2, 2], [4, 0, 2, 2]])
    cxcywh = np.float32([[2.5, 5, 3, 6], [-2, -0.5, 2, 1], [5, 7, 0, 4], [3, 3, -2, -2], [3, 1, -2, 2]])
    np.testing.assert_array_equal(compiled(centres)(xyxy), cxcywh)
    np.testing.assert_array_equal(compiled(corners)(cxcywh), xyxy)
    np.testing.assert_array_equal(compiled(area)(xyxy[None]), [[18, 2, 0, 0, 0]])
    half = keras.ops.cast(cxcywh, "bfloat16")
    assert {compiled(function)(half).dtype.name for function in (corners, centres, area)} == {"float32"}


def test_overlaps_by_hand_of_boxes_without_area_too():
    empty = [[5, 5, 5, 5], [3, 3, 1, 1], [np.nan, 0, 1, 1], [0, 0, np.inf, np.inf]]
    boxes = np.float32([[0, 0, 2, 2], [1, 1, 3, 3], *empty])
    wanted = np.zeros((6, 6))
    wanted[0, :2], wanted[1, :2] = (1, 1 / 7), (1 / 7, 1)
    np.testing.assert_allclose(compiled(iou)(boxes, boxes), wanted, rtol=1e-6)
    pairs = compiled(iou)(np.stack([boxes, boxes[::-1]]), boxes[:2])
    np.testing.assert_allclose(pairs, np.stack([wanted[:, :2], wanted[::-1, :2]]), rtol=1e-6)


@pytest.mark.core
def test_codes_and_overlaps_are_torchvisions_and_the_references():
    priors, boxes, codes = cases.coding_cases()
    reference = arrays("coding")
    np.testing.assert_allclose(compiled(encode)(boxes, priors), reference["encoded"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(compiled(decode)(codes, priors), reference["decoded"], rtol=1e-5, atol=1e-5)
    free = compiled(functools.partial(decode, limit=np.inf))(codes, priors)
    np.testing.assert_allclose(free, reference["decoded_without_limit"], rtol=3e-5, atol=1e-5)
    assert np.abs(free).max() > 100 > np.abs(reference["decoded"]).max()
    np.testing.assert_allclose(compiled(iou)(boxes[:40], boxes[40:]), reference["iou"], atol=1e-6)


def test_codes_there_and_back():
    priors, boxes, _ = cases.coding_cases()
    flat = boxes * np.float32([1, 1, 0, 1]) + np.float32([0, 0, 1, 0]) * boxes[:, :1]  # no width
    boxes = np.stack([boxes, boxes[::-1], flat])

    @compiled
    def there_and_back(boxes):
        codes = [encode(boxes, priors), encode(boxes, priors, scales=(1.0, 2.0, 3.0, 4.0))]
        return codes[0], decode(codes[0], priors), decode(codes[1], priors, scales=(1.0, 2.0, 3.0, 4.0))

    codes, *back = there_and_back(boxes)
    assert np.isfinite(codes).all()
    for other in back:
        np.testing.assert_allclose(other, boxes, atol=2e-6)
    half = keras.ops.cast(codes, "bfloat16")
    assert compiled(decode)(half, priors).dtype == np.float32


def test_clipped():
    boxes = np.float32([[[-1, -2, 0.5, 2], [0.2, 0.3, 0.4, 0.5], [2, 3, 4, 5]]])
    np.testing.assert_array_equal(compiled(clip)(boxes), np.float32([[[0, 0, 0.5, 1], boxes[0, 1], [1, 1, 1, 1]]]))
    np.testing.assert_array_equal(compiled(functools.partial(clip, size=(4, 3)))(boxes)[0, 2], [2, 3, 3, 4])


@pytest.mark.parametrize("number", [0.45, 0.5, 0.6, 0.1, 0.0, -0.3])
def test_a_float32_compares_as_its_number_does(number):
    below = np.float32(float32_below(number))
    assert float(below) <= number < float(np.nextafter(below, np.float32(np.inf)))


@pytest.mark.parametrize(
    ("shared", "i"),
    [pytest.param(True, 0, marks=pytest.mark.core), (True, 1), (True, 2), (True, 3), (False, 0), (False, 1)],
)
def test_suppression_is_torchvisions(shared, i):
    """Of 50 images, with equal scores, negative coordinates, and classes that nothing is of."""
    boxes, scores = list(cases.suppression_cases(shared))[i]
    places = arrays("nms")[f"{'shared' if shared else 'own'}_{i}"].astype(int)
    function = compiled(functools.partial(nms, **cases.OPTIONS[i]), (boxes, scores))
    kept, values, labels, count = function(boxes, scores)
    assert labels.dtype == count.dtype == np.int32
    np.testing.assert_array_equal(count, (places >= 0).sum(1))
    for row in range(cases.COUNT):
        place, label = np.divmod(places[row, : count[row]], 3)
        own = boxes[row, place] if shared else boxes[row, place, label]
        np.testing.assert_array_equal(labels[row, : count[row]], label)
        np.testing.assert_array_equal(kept[row, : count[row]], own)
        np.testing.assert_array_equal(values[row, : count[row]], scores[row, place, label])
        assert (labels[row, count[row] :] == -1).all()
        assert not values[row, count[row] :].any() and not kept[row, count[row] :].any()


@pytest.mark.core
def test_suppression_of_any_number_of_images():
    boxes, scores = next(cases.suppression_cases())
    options = {"most": 5, "candidates": 7}
    function = compiled(functools.partial(nms, **options), (boxes, scores))
    for count in (1, 3):
        part = boxes[:count], scores[:count]
        for one, other in zip(function(*part), compiled(functools.partial(nms, **options))(*part), strict=True):
            np.testing.assert_array_equal(one, other)


def test_suppression_by_hand():
    boxes = np.float32([[[0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 4], [20, 0, 30, 10]]])
    scores = np.float32([[[0.9, 0.05], [0.8, 0.7], [0.7, 0.6], [np.nan, 0.9]]])
    kept, values, labels, count = compiled(functools.partial(nms, max_overlap=0.5, most=6))(boxes, scores)
    # the second overlaps the first by exactly a half, and stays; the third the second by more, and goes
    assert count.tolist() == [4]
    assert labels.tolist() == [[0, 1, 0, 1, -1, -1]]
    np.testing.assert_array_equal(values, np.float32([[0.9, 0.9, 0.8, 0.7, 0, 0]]))
    np.testing.assert_array_equal(kept[0], boxes[0, [0, 3, 1, 1]].tolist() + [[0] * 4] * 2)
    assert compiled(nms)(boxes, scores * 0)[3].tolist() == [0]


@pytest.mark.parametrize(("limit", "count"), [(0.6, 1), (0.60000003, 2), (0.5999999, 1)])
def test_an_overlap_of_three_fifths_exceeds_so_much_as_torchvision_says(limit, count):
    """Three fifths are a float32 above 0.6, which torchvision compares with 0.6 as it stands."""
    boxes = np.float32([[[0, 0, 4, 1], [1, 0, 5, 1]]])
    assert compiled(functools.partial(nms, max_overlap=limit))(boxes, np.float32([[[0.9], [0.8]]]))[3] == count


@pytest.mark.core
def test_the_first_of_equals():
    x = np.float32([[[3, 1, 3], [5, 5, 3]], [[0, -np.inf, 0], [-1, 0, 0]]])
    for axis in (0, 1, 2):
        values, places = compiled(functools.partial(first_maximum, axis=axis))(x)
        np.testing.assert_array_equal(values, x.max(axis))
        np.testing.assert_array_equal(places, x.argmax(axis))
    many = np.random.default_rng(0).integers(0, 9, (2, 3, 500)).astype("float32")
    values, places = compiled(functools.partial(stable_top_k, k=100))(many)
    np.testing.assert_array_equal(places, np.argsort(-many, -1, kind="stable")[..., :100])
    np.testing.assert_array_equal(values, np.take_along_axis(many, places, -1))
