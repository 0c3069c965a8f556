"""Augmentations keep images and boxes together, do what their references do on average, and take empty images."""

import dataclasses
import json

import numpy as np
import pytest
from shared_fixtures import ROOT

from swins import settings
from swins.box_drawing import PALETTE
from swins.data import box_augment
from swins.data.box_augment import BoxTransform, Pattern1, Resize, SsdPaper, pad, safe_window, with_most
from swins.data.box_geometry import around, best_iou, clipped, cropped, flipped, scaled
from swins.data.colour import brightness_contrast, greyed, hue_saturation_value, shifted
from swins.data.drawing import draw_objects
from swins.data.objects import Objects
from swins.data.split import Split
from swins.errors import SwinsError
from swins.images import open_image, planes

KINDS = [Resize(), Pattern1(), SsdPaper()]
REFERENCE = json.loads((ROOT / "tests" / "reference" / "box_augment.json").read_text())
PATTERN = json.loads((ROOT / "tests" / "reference" / "pattern1.json").read_text())
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def colourless(kind):
    """An augmentation that leaves colours as they are, on black canvases."""
    if isinstance(kind, Pattern1):
        return dataclasses.replace(kind, brightness=0.0, contrast=0.0, colours=(1, 0, 0, 0), fill=(0, 0, 0))
    return dataclasses.replace(kind, colour=0.0, fill=(0, 0, 0)) if isinstance(kind, SsdPaper) else kind


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_boxes_move_with_their_pixels(kind, rng):
    """Each pixel tells where it was: at a box's corners there are the coordinates of its corners, after any change."""
    rows, columns = np.mgrid[:200, :250].astype(np.uint8)
    image, boxes = np.stack([columns, rows, rows], -1), np.float64([[60, 50, 130, 80], [100, 90, 190, 150]])
    size, checked, sides = (230, 260), 0, set()
    for _ in range(120):
        pixels, moved, labels = colourless(kind)(image, boxes, np.array([0, 1]), rng, size)
        assert pixels.shape == (*size, 3) and pixels.dtype == np.uint8 and len(moved) == len(labels)
        assert (moved >= 0).all() and (moved <= [260, 230, 260, 230]).all()
        for box, label in zip(moved, labels, strict=True):
            expected = boxes[label]
            mirrored = value_at(pixels, *box[:2])[0] > value_at(pixels, *box[2:])[0]
            expected = expected[[2, 1, 0, 3]] if mirrored else expected
            sides.add((mirrored, round(box[2] - box[0])))
            for i, j in ((0, 1), (2, 3)):
                x, y = box[i], box[j]
                if 3 < x < 257 and 3 < y < 227:  # not clipped
                    np.testing.assert_allclose(value_at(pixels, x, y)[:2], expected[[i, j]] - 0.5, atol=1.2)
                    checked += 1
    assert checked > 200 and {mirrored for mirrored, _ in sides} == {False, True}
    assert (len(sides) > 4) is (type(kind) is not Resize)


def value_at(image, x, y):
    """The levels of an image at a point, between those of four pixels."""
    left, top = int(x - 0.5), int(y - 0.5)
    across, down = x - 0.5 - left, y - 0.5 - top
    four = image[top : top + 2, left : left + 2].astype(float)
    if four.shape[:2] != (2, 2):
        return image[min(top, image.shape[0] - 1), min(left, image.shape[1] - 1)].astype(float)
    return np.einsum("y,x,yxc->c", [1 - down, down], [1 - across, across], four)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_images_without_boxes_and_of_any_channels(kind, channels, rng):
    image = rng.integers(0, 256, (33, 21, channels), np.uint8)
    before = image.copy()
    for boxes in (np.zeros((0, 4)), np.float64([[0, 0, 21, 33], [20, 32, 21, 33]])):
        for _ in range(40):
            pixels, moved, labels = kind(image, boxes, np.arange(len(boxes)), rng, (40, 24))
            assert pixels.shape == (40, 24, channels) and pixels.dtype == np.uint8
            assert moved.shape == (len(labels), 4) and len(moved) <= len(boxes)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (2, 3)])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_the_smallest_images(kind, size, rng):
    image, box = rng.integers(0, 256, (*size, 3), np.uint8), np.float64([[0, 0, size[1], size[0]]])
    for _ in range(60):
        pixels, boxes, labels = kind(image, box, np.array([1]), rng, (16, 16))
        assert pixels.shape == (16, 16, 3) and len(boxes) == len(labels) <= 1


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_the_generator_alone_decides(kind):
    image = np.random.default_rng(1).integers(0, 256, (50, 70, 3), np.uint8)
    boxes = np.float64([[5, 5, 30, 40], [20, 10, 69, 49]])
    results = [
        kind(image, boxes, np.array([0, 1]), np.random.default_rng(seed), (64, 64)) for seed in (5, 5, *range(9))
    ]
    for a, b in zip(*results[:2], strict=True):
        np.testing.assert_array_equal(a, b)
    assert len({pixels.tobytes() for pixels, *_ in results}) == (2 if type(kind) is Resize else 9)


def compare(rows, reference, tolerance=0.02):
    """Means and deviations of [{name: number}] are the reference's, up to a part of each deviation and 5 errors."""
    for name, (mean, deviation) in reference.items():
        values = np.array([row[name] for row in rows])
        error = tolerance * max(1.0, abs(mean)) * 0.25 + 5 * deviation / len(values) ** 0.5
        assert abs(values.mean() - mean) < error, (name, values.mean(), mean)
        assert abs(values.std() - deviation) < 0.1 * deviation + tolerance, (name, values.std(), deviation)


def test_crops_are_torchvisions_on_average(rng):
    (height, width), boxes = REFERENCE["size"], np.float64(REFERENCE["boxes"])
    kind, rows, whole, count = SsdPaper(), [], 0, 4000
    for _ in range(count):
        window = kind.window((height, width, 3), boxes, rng)
        if window is None:
            whole += 1
            continue
        left, top, right, bottom = window
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        inside = ((centres > [left, top]) & (centres < [right, bottom])).all(1)
        w, h = right - left, bottom - top
        row = {"area": w * h / width / height, "aspect": w / h, "left": left / width, "top": top / height}
        rows.append(row | {f"box {i}": float(kept) for i, kept in enumerate(inside)})
    reference = dict(REFERENCE["crops"])
    assert abs(whole / count - reference.pop("whole")) < 0.03
    compare(rows, reference)


def test_canvases_are_torchvisions_on_average(rng):
    (height, width), boxes, rows = REFERENCE["size"], np.float64(REFERENCE["boxes"]), []
    image = np.zeros((height, width, 1), np.uint8)
    for _ in range(1500):
        canvas, moved = SsdPaper().zoomed_out(image, boxes, rng)
        left, top = moved[0, :2] - boxes[0, :2]
        np.testing.assert_array_equal(moved - [left, top, left, top], boxes)
        rows.append({"area": canvas.size / image.size, "left": left / width, "top": top / height})
    compare(rows, REFERENCE["canvases"])


def test_colours_are_torchvisions_on_average(rng):
    image, rows = np.array(REFERENCE["colours"], np.uint8), []
    from swins.data.colour import distort

    for _ in range(3000):
        pixels = distort(image, SsdPaper(), rng).reshape(-1, 3).astype(float)
        row = {f"mean {i}": pixels[:, i].mean() for i in range(3)} | {
            f"deviation {i}": pixels[:, i].std() for i in range(3)
        }
        rows.append({**row, "same": float(np.array_equal(pixels, image.reshape(-1, 3)))})
    compare(rows, REFERENCE["distorted"])


def test_what_becomes_of_boxes_is_torchvisions_on_average(rng):
    (height, width), side = REFERENCE["size"], REFERENCE["side"]
    boxes, rows = np.float64(REFERENCE["boxes"]), []
    image, kind = np.zeros((height, width, 1), np.uint8), dataclasses.replace(SsdPaper(), colour=0.0)
    for _ in range(1000):
        _, own, labels = kind(image, boxes, np.arange(len(boxes)), rng, (side, side))
        sides = own[:, 2:] - own[:, :2]
        row = {"count": float(len(own)), "area": np.prod(sides, 1).sum() / side**2 / max(len(own), 1)}
        row["middle"] = own[:, [0, 2]].mean() / side if len(own) else 0.5
        rows.append(row | {f"box {i}": float(i in labels) for i in range(len(boxes))})
    compare(rows, REFERENCE["whole"])


@pytest.mark.slow
@pytest.mark.parametrize("scene", ["small", "large"])
def test_pattern_1_moves_boxes_as_albumentations_on_average(scene, rng):
    size, boxes = PATTERN["scenes"][scene]
    image, boxes, side, rows = np.zeros((*size, 1), np.uint8), np.float64(boxes), PATTERN["side"], []
    for _ in range(3000):
        _, own, labels = Pattern1()(image, boxes, np.arange(2), rng, (side, side))
        assert labels.tolist() == [0, 1]
        rows.append({f"{i} {j}": own[i, j] / side for i in range(2) for j in range(4)})
    compare(rows, PATTERN[scene])


def test_pattern_1_changes_colours_as_albumentations_on_average(rng):
    image, rows = np.array(PATTERN["pixels"], np.uint8), []
    for _ in range(3000):
        own = Pattern1().coloured(image, rng).reshape(-1, 3).astype(float)
        rows.append({f"{name} {i}": getattr(own[:, i], name)() for name in ("mean", "std") for i in range(3)})
    compare(rows, PATTERN["coloured"])


def test_canvases_are_never_larger_than_memory_allows(rng):
    image = np.zeros((3000, 4000, 3), np.uint8)
    kind = dataclasses.replace(SsdPaper(), zoom_sides=(4.0, 4.0))
    canvas, boxes = kind.zoomed_out(image, np.float64([[0, 0, 4000, 3000]]), rng)
    assert canvas.shape[0] * canvas.shape[1] <= 2**24
    sides = boxes[0, 2:] - boxes[0, :2]
    np.testing.assert_allclose(sides * 4, canvas.shape[1::-1], rtol=0.01)


def test_pattern_1_keeps_every_box_whole(rng):
    """A crop has all boxes in it, edges anywhere between theirs and the image's; borders are symmetrical."""
    boxes = np.float64([[30, 20, 50, 44], [41, 30, 70.5, 40.5]])
    windows = np.array([safe_window((80, 100, 3), boxes, rng) for _ in range(4000)])
    assert (windows[:, :2] <= [30, 20]).all() and (windows[:, 2:] >= [70.5, 44]).all()
    assert windows.min() >= 0 and (windows[:, 2:] <= [100, 80]).all()
    np.testing.assert_allclose(windows.mean(0), [14.5, 9.5, (71.5 + 100) / 2, 62.5], atol=0.6)
    assert safe_window((80, 100, 3), boxes[:0], rng) == (0, 0, 100, 80)
    small = np.full((40, 61, 3), 9, np.uint8)
    bordered, moved = Pattern1().padded(small, boxes, (60, 50))
    assert bordered.shape == (90, 75, 3) and (bordered[25:65, 7:68] == 9).all()
    assert (bordered[:25] == [104, 117, 123]).all() and (bordered[:, 68:] == [104, 117, 123]).all()
    np.testing.assert_array_equal(moved, boxes + np.array([7, 25, 7, 25]))
    assert Pattern1().padded(small, boxes, (20, 30))[0].shape == (40, 61, 3)
    kept = [len(Pattern1()(small, boxes[:1], np.array([1]), rng, (60, 60))[1]) for _ in range(100)]
    assert set(kept) == {1}


def test_pattern_1_changes_colours_once_as_often_and_as_much_as_stated(monkeypatch, rng):
    draws = {}
    for name in ("brightness_contrast", "hue_saturation_value", "shifted", "greyed"):
        own = draws.setdefault(name, [])
        monkeypatch.setattr(box_augment, name, lambda image, *numbers, own=own: own.append(np.ravel(numbers)))
    for _ in range(4000):
        Pattern1().coloured(np.zeros((2, 2, 3), np.uint8), rng)
    counts = [len(own) for own in draws.values()]
    np.testing.assert_allclose(np.array(counts) / 4000, np.array([0.5, 0.5, 0.3, 0.05]) / 1.35, atol=0.03)
    for name, most in zip(draws, ([0.2, 0.2], [10, 15, 10], [15, 15, 15]), strict=False):
        values = np.array(draws[name]) / most
        assert (abs(values) <= 1).all() and abs(values.mean(0)).max() < 0.08
        np.testing.assert_allclose(values.std(0), 3**-0.5, atol=0.04)
        assert abs(np.corrcoef(values.T) - np.eye(len(most))).max() < 0.12


def test_single_changes_of_colour():
    image = np.array([[[0, 100, 200], [10, 20, 30]]], np.uint8)
    np.testing.assert_array_equal(brightness_contrast(image, 0.1, 0.0)[0, 0], [26, 126, 226])
    np.testing.assert_array_equal(brightness_contrast(image, 0.2, 0.2)[0, 0], [51, 171, 255])
    np.testing.assert_array_equal(shifted(image, [5, -30, 0.4])[0], [[5, 70, 200], [15, 0, 30]])
    np.testing.assert_array_equal(greyed(image)[0, 0], np.repeat(round(0.587 * 100 + 0.114 * 200), 3))
    red = np.array([[[200, 0, 0]]], np.uint8)
    np.testing.assert_allclose(hue_saturation_value(red, 60, 0, 0)[0, 0], [0, 200, 0], atol=5)  # 120 degrees
    np.testing.assert_allclose(hue_saturation_value(red, -60, 0, 0)[0, 0], [0, 0, 200], atol=5)
    np.testing.assert_allclose(hue_saturation_value(red, 0, 0, 20)[0, 0], [220, 0, 0], atol=1)
    np.testing.assert_allclose(hue_saturation_value(red, 0, -51, 0)[0, 0], [200, 40, 40], atol=1)
    np.testing.assert_array_equal(hue_saturation_value(red[..., :1], 60, 9, 7)[0, 0], [207])


def test_geometry():
    image = np.arange(24, dtype=np.uint8).reshape(4, 6, 1)
    boxes = np.float64([[1, 0, 3, 2]])
    pixels, moved = flipped(image, boxes)
    np.testing.assert_array_equal(pixels[..., 0], image[:, ::-1, 0])
    assert moved.tolist() == [[3, 0, 5, 2]]
    pixels, moved = cropped(image, boxes, (2, 1, 5, 4))
    np.testing.assert_array_equal(pixels[..., 0], image[1:4, 2:5, 0])
    assert moved.tolist() == [[-1, -1, 1, 1]]
    pixels, moved = around(image, boxes, (6, 9), (2, 1), (7,))
    np.testing.assert_array_equal(pixels[1:5, 2:8], image)
    assert (pixels != 7).sum() == 24 - 1 and moved.tolist() == [[3, 1, 5, 3]]
    pixels, moved = scaled(image, boxes, (8, 3))
    assert pixels.shape == (8, 3, 1) and moved.tolist() == [[0.5, 0, 1.5, 4]]
    own, kept = clipped(np.float64([[-4, 0, 1, 2], [0, 0, 9, 4], [0, 0, 0.5, 1], [9, 9, 12, 12]]), (4, 6), 1, 0.21)
    assert own.tolist() == [[0, 0, 6, 4]] and kept.tolist() == [False, True, False, False]
    windows = np.array([[0, 0, 2, 2], [0, 0, 4, 4]])
    two, counted = np.float64([[0, 0, 2, 4], [0, 0, 2, 2]]), np.array([[True, False], [True, True]])
    assert best_iou(windows, two, counted).tolist() == [0.5, 0.5]
    assert best_iou(windows, two[:0], counted[:, :0]).tolist() == [0, 0]


def test_what_a_network_is_given(rng):
    objects = Objects([[10, 6, 40, 30], [0, 0, 60, 40]], [2, 1], [False, True], [1.0, 2.0], (40, 60), 1)
    image = rng.integers(0, 256, (40, 60, 3), np.uint8)
    transform = BoxTransform(Resize(flip=0.0), (20, 30), MEAN, STD)
    pixels, boxes, labels = transform(open_image(image), objects, rng)
    assert (pixels.dtype, boxes.dtype) == (np.float32, np.float32) and pixels.shape == (20, 30, 3)
    np.testing.assert_allclose(boxes, [[10 / 60, 6 / 40, 40 / 60, 30 / 40]], rtol=1e-6)
    assert labels.tolist() == [2]
    np.testing.assert_allclose(pixels.mean((0, 1)), (image.mean((0, 1)) / 255 - MEAN) / STD, atol=0.03)
    half = open_image(image).resize((30, 20))
    np.testing.assert_allclose(transform(half, objects, rng)[1], boxes, rtol=1e-6)  # its size is not what is stated
    assert transform(open_image(image), objects, rng, (8, 8))[0].shape == (8, 8, 3)
    grey = BoxTransform(SsdPaper(), (16, 16), (0.5,), (0.5,))
    assert grey(open_image(image), objects, rng)[0].shape == (16, 16, 1)
    with pytest.raises(SwinsError, match="must have the size that its boxes are of, 60x40; got 40x60"):
        transform(open_image(image.transpose(1, 0, 2).copy()), objects, rng)
    deep = BoxTransform(Pattern1(), (16, 16), (0.5,) * 5, (0.5,) * 5)
    assert deep(open_image(rng.integers(0, 256, (40, 60, 5), np.uint8)), objects, rng)[0].shape == (16, 16, 5)


def test_validation_is_prepared_alike(rng):
    """Resize gives the pixels that Preprocess of the whole image gives."""
    from swins.images import Preprocess

    image = rng.integers(0, 256, (37, 51, 3), np.uint8)
    objects = Objects(np.zeros((0, 4)), [], [], [], (37, 51), 1)
    pixels = BoxTransform(Resize(flip=0.0), (24, 32), MEAN, STD)(open_image(image), objects, rng)[0]
    np.testing.assert_array_equal(pixels, Preprocess((24, 32), (24, 32), False, MEAN, STD)(image))
    assert len(planes(open_image(image), 3)) == 1


def test_batches_have_static_shapes(rng):
    boxes = np.sort(rng.random((7, 2, 2), np.float32), 1).reshape(-1, 4)
    labels = np.arange(7)
    padded, numbers, valid = pad(boxes, labels, 9)
    assert padded.shape == (9, 4) and padded.dtype == np.float32 and valid.tolist() == [True] * 7 + [False] * 2
    np.testing.assert_array_equal(padded[:7], boxes)
    assert (padded[7:] == [0, 0, 1, 1]).all() and numbers.tolist() == [*range(7), 0, 0]
    padded, numbers, valid = pad(boxes, labels, 3)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], 1)
    assert valid.all() and sorted(area)[-3:] == sorted(np.prod(padded[:, 2:] - padded[:, :2], 1))
    assert numbers.tolist() == sorted(numbers.tolist())
    padded, numbers, valid = pad(np.zeros((0, 4)), np.zeros(0, int), 2)
    assert not valid.any() and numbers.tolist() == [0, 0]
    many = Objects(boxes, labels, np.zeros(7, bool), area, (9, 9), 1)
    split = Split("s", [("a", None, many), ("b", None, many)], ("x",) * 7)
    assert with_most(split, 7) is split
    note = "images with more than 6 objects (data.objects), of which the largest train: 2 (a, b)"
    assert with_most(split, 6).notes == (note,)


def test_boxes_are_drawn_on_any_image():
    boxes, labels = np.float32([[3, 2, 20, 9], [32.2, 22.3, 32.4, 22.4]]), np.array([1, 0])
    for shape in ((30, 40), (30, 40, 1), (30, 40, 3)):
        picture = draw_objects(np.zeros(shape, np.uint8), boxes, labels, ("cat", "dog"))
        assert picture.size == (40, 30) and picture.mode == "RGB"
        drawn = (np.asarray(picture) == PALETTE[1]).all(-1)
        assert drawn[2, 3:20].all() and drawn[2:9, 3].all() and not drawn[:, 30:].any()
        assert (np.asarray(picture)[22, 32] == PALETTE[0]).all()


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Resize(flip=1.5), "flip must be a probability"),
        (Resize(least_area=-1.0), "least_area must be at least 0"),
        (Pattern1(colours=(0, 0, 0, 0)), "colours must be four numbers of at least 0, not all 0"),
        (Pattern1(fill=(1, 2, 256)), "fill must be levels from 0 to 255"),
        (Pattern1(border=0.5), "border must be from 1 to 4"),
        (SsdPaper(overlaps=(0.5,)), "overlaps must be IoUs from 0 to 1, 1 among them"),
        (SsdPaper(zoom_sides=(0.5, 4)), "zoom_sides must be a pair from 1 to 16"),
        (SsdPaper(sides=(0.3, 1.2)), "sides must be a pair above 0, at most 1"),
        (SsdPaper(hue=0.6), "hue must be from 0 to 0.5"),
        (SsdPaper(tries="40"), "tries takes int"),
    ],
)
def test_settings_check_themselves(kind, text):
    assert any(text in problem for problem in settings.problems(kind))


def test_the_defaults_are_right_and_lists_become_tuples():
    assert not any(settings.problems(kind) for kind in KINDS)
    assert Pattern1(fill=[1, 2, 3]).fill == (1, 2, 3)
