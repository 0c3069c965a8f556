"""Images, boxes and masks of Mask R-CNN's training are mmdetection's to the bit; canvases, samples, batches."""

import dataclasses
import json

import instance_cases
import numpy as np
import pytest
from instance_cases import CASES, CROP_SHORT, CROP_SIDES, LONG, ROOM, SHORT, digest
from PIL import Image
from shared_fixtures import DATA, ROOT

from swins import settings
from swins.data.garment_objects import from_garments
from swins.data.instance_augment import (
    CropOrScale,
    InstanceTransform,
    KeepRatio,
    canvas_groups,
    filler,
    instance_arrays,
    scene_of,
    validating,
    with_objects,
)
from swins.data.objects import Objects
from swins.data.segmentations import Bitmap, rectangle
from swins.data.split import Split
from swins.errors import SwinsError
from swins.images import open_image
from swins.keep_ratio import KeepRatioPreprocess, best_canvas, bilinear, nearest_indices, scaled_sides
from swins.task import Reading
from swins.tasks.detection_settings import Data, Detection
from swins.train import input_pipeline

REFERENCE = json.loads((ROOT / "tests" / "reference" / "instance_augment.json").read_text())
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
KINDS = [KeepRatio(), CropOrScale()]


class Scripted:
    """In place of a generator: what mmdetection drew, in our order."""

    def __init__(self, chances, integers):
        self.chances, self.numbers = list(chances), list(integers)

    def random(self):
        return 0.0 if self.chances.pop(0) else 0.99

    def integers(self, low, high=None):
        number = self.numbers.pop(0)
        assert (0 if high is None else low) <= number < (low if high is None else high)
        return number


def replayed(number, row):
    """The Scene of a case, drawn as the reference was."""
    sides = {"short": SHORT, "long": LONG, "canvases": (ROOM,)}
    if number % 3 == 0:
        augment, script = KeepRatio(**sides), Scripted(row["flipped"], row["short"])
    else:
        augment = CropOrScale(**sides, crop_short=CROP_SHORT, crop_sides=CROP_SIDES)
        steps = row.get("first", []) + row.get("crop", []) + row["short"]
        script = Scripted([*row["flipped"], "crop" in row], steps)
    image, boxes, masks = instance_cases.case(number)
    scene = augment(scene_of(image, boxes), script, ROOM)
    assert not script.chances and not script.numbers
    return scene, masks


def unpacked(masks):
    """Masks (..., W / 8) as (..., W) bool."""
    return np.unpackbits(masks, axis=-1, bitorder="little").astype(bool)


def test_images_boxes_and_masks_are_mmdetections_to_the_bit():
    assert len(REFERENCE) == CASES and sum("crop" in row for row in REFERENCE) == CASES // 3
    lost = 0
    for number, row in enumerate(REFERENCE):
        scene, masks = replayed(number, row)
        assert list(scene.size) == row["size"] and digest(scene.image) == row["image"], number
        assert scene.kept.tolist() == row["kept"], number
        np.testing.assert_array_equal(scene.boxes, np.float32(row["boxes"]).reshape(-1, 4))
        shown = np.zeros((len(scene.kept), *scene.size), bool)
        for place, kept in enumerate(scene.kept):
            packed = scene.packed(masks[kept].astype(bool), ROOM)
            assert packed.shape == (ROOM[0], ROOM[1] // 8) and packed.dtype == np.uint8
            whole = unpacked(packed)
            shown[place] = whole[: scene.size[0], : scene.size[1]]
            assert whole.sum() == shown[place].sum()
        assert digest(shown) == row["masks"], number
        lost += len(masks) - len(scene.kept)
    assert lost > 3


def test_sides_are_rounded_as_mmcv_does():
    """640x427 is of the specification: its factors differ."""
    assert scaled_sides((427, 640), 800, 1333) == (800, 1199) and scaled_sides((640, 427), 800, 1333) == (1199, 800)
    assert scaled_sides((100, 1000), 800, 1333) == (133, 1333) and scaled_sides((480, 640), 800, 1333) == (800, 1067)
    assert scaled_sides((1, 9999), 800, 1333) == (1, 1333) and scaled_sides((7, 7), 800, 1333) == (800, 800)
    prepare = KeepRatioPreprocess(800, 1333, ((800, 1344), (1344, 800)), MEAN, STD)
    np.testing.assert_allclose(1199 / 640, 1.87344, atol=1e-5)
    whole = prepare.original([[0, 0, 1199, 800], [599.5, 400, 1199, 800]], (427, 640))
    np.testing.assert_allclose(whole, [[0, 0, 640, 427], [320, 213.5, 640, 427]], rtol=1e-6)
    assert whole.dtype == np.float32


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_bilinear_is_what_it_is_called(channels, rng):
    """Beside floats, for any channels; the same to the bit as OpenCV in the reference's cases."""
    for size, to in (((9, 13), (27, 20)), ((40, 31), (11, 62)), ((1, 1), (5, 4)), ((2, 30), (1, 7)), ((8, 6), (4, 3))):
        image = rng.integers(0, 256, (*size, channels), np.uint8)
        expected = image.astype(float)
        for axis in (0, 1):
            places = np.clip((np.arange(to[axis]) + 0.5) * size[axis] / to[axis] - 0.5, 0, size[axis] - 1)
            low = np.floor(places).astype(int)
            part = (places - low).reshape(-1, *(1,) * (2 - axis))
            high = np.minimum(low + 1, size[axis] - 1)
            expected = np.take(expected, low, axis) * (1 - part) + np.take(expected, high, axis) * part
        result = bilinear(image, to)
        assert result.shape == (*to, channels) and result.dtype == np.uint8
        np.testing.assert_allclose(result, expected, atol=0.9)
    assert bilinear(image, image.shape[:2]) is image
    assert nearest_indices(3, 7).tolist() == [0, 0, 0, 1, 1, 2, 2] and nearest_indices(7, 3).tolist() == [0, 2, 4]


def objects(size, boxes, area=None, crowd=None):
    boxes = np.float32(boxes).reshape(-1, 4)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], 1) if area is None else area
    crowd = np.zeros(len(boxes), bool) if crowd is None else crowd
    return Objects(boxes, np.arange(len(boxes)), crowd, area, size, 5, tuple(map(rectangle, boxes)))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_masks_stay_with_their_boxes_and_the_canvas_has_room(kind, rng):
    """Rectangles as masks: after any change each is its box, up to the rounding of a pixel."""
    kind = dataclasses.replace(kind, short=(40, 64), long=120, canvases=((64, 96), (96, 64)))
    if isinstance(kind, CropOrScale):
        kind = dataclasses.replace(kind, crop_short=(30, 60), crop_sides=(25, 40))
    transform = InstanceTransform(kind, MEAN, STD)
    seen = set()
    for size in ((50, 70), (90, 31), (33, 200), (64, 64)):
        truth = objects(size, [[4, 5, size[1] - 8, size[0] - 7], [0, 0, size[1], size[0]], [9, 8, 25, 24]])
        image = open_image(rng.integers(0, 256, (*size, 3), np.uint8))
        for _ in range(12):
            sample = transform(image, truth, rng)
            canvas = sample.pixels.shape[:2]
            seen.add((canvas, sample.size))
            assert canvas == kind.canvas(size) and all(a <= b for a, b in zip(sample.size, canvas, strict=True))
            assert not sample.pixels[sample.size[0] :].any() and not sample.pixels[:, sample.size[1] :].any()
            assert len(sample.boxes) == len(sample.labels) == len(sample.masks) and sample.boxes.dtype == np.float32
            for box, mask in zip(sample.boxes, unpacked(sample.masks), strict=True):
                if (box[2:] - box[:2] > 4).all():
                    (rows, columns) = np.nonzero(mask)
                    extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                    scale = max(1, *(np.array(sample.size) / np.minimum(size, 25)))
                    np.testing.assert_allclose(extent, box, atol=1 + scale)
    assert len(seen) > 5 and {canvas for canvas, _ in seen} == {(64, 96), (96, 64)}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_the_generator_alone_decides(kind):
    kind = dataclasses.replace(kind, short=(64,), canvases=((96, 96),))
    if isinstance(kind, CropOrScale):
        kind = dataclasses.replace(kind, crop=1.0, crop_short=(40, 60), crop_sides=(20, 50))
    truth, transform = objects((40, 60), [[5, 5, 30, 35], [20, 10, 55, 39]]), InstanceTransform(kind, MEAN, STD)
    image = open_image(np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8))
    first, second, *others = [transform(image, truth, np.random.default_rng(seed)) for seed in (5, 5, *range(8))]
    for name in ("pixels", "boxes", "labels", "masks"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert len({sample.pixels.tobytes() for sample in others}) == (2 if type(kind) is KeepRatio else 8)
    whole = InstanceTransform(validating(kind), MEAN, STD)(image, truth, None, (96, 96))
    assert whole.size == (64, 96) and len(whole.boxes) == 2
    prepare = KeepRatioPreprocess(800, 1333, kind.canvases, MEAN, STD)
    np.testing.assert_array_equal(prepare(image), whole.pixels)
    np.testing.assert_allclose(prepare.original(whole.boxes, (40, 60)), truth.boxes, rtol=1e-6)


def test_samples_in_static_shapes(rng):
    """Crowds and specks are left out, of too many objects the largest stay, in their order; masks go with them."""
    boxes = [[0, 0, 8, 8], [1, 1, 1.9, 9], [2, 2, 40, 30], [0, 0, 60, 40], [3, 3, 30, 30], [5, 5, 9, 9]]
    truth = objects((40, 60), boxes, [64, 9, 1000, 0, 700, 16], [False] * 5 + [True])
    transform = InstanceTransform(KeepRatio(0.0, (20,), 60, ((32, 64),)), MEAN, STD, most=2)
    image = open_image(rng.integers(0, 256, (40, 60, 3), np.uint8))
    sample = transform(image, truth, rng)
    assert sample.labels.tolist() == [2, 4] and sample.size == (20, 30)
    assert [int(unpacked(mask).sum()) for mask in sample.masks] == [19 * 14, 13 * 13]
    images, arrays = instance_arrays([sample, filler(transform, (32, 64))], 2)
    assert images.shape == (2, 32, 64, 3) and images.dtype == np.float32
    assert {name: (array.shape, array.dtype.name) for name, array in arrays.items()} == {
        "boxes": ((2, 2, 4), "float32"),
        "labels": ((2, 2), "int64"),
        "valid": ((2, 2), "bool"),
        "sizes": ((2, 2), "int32"),
        "masks": ((2, 2, 32, 8), "uint8"),
    }
    assert arrays["valid"].tolist() == [[True, True], [False, False]]
    assert arrays["sizes"].tolist() == [[20, 30], [32, 64]]
    np.testing.assert_array_equal(arrays["masks"][0], sample.masks)
    bare = InstanceTransform(transform.augment, MEAN, STD, masks=False)
    alone = dataclasses.replace(truth, masks=None)
    assert "masks" not in instance_arrays([bare(image, alone, rng)])[1] and filler(bare, (32, 32)).masks is None
    with pytest.raises(SwinsError, match="image 5 must have masks; got boxes alone"):
        transform(image, alone, rng)
    none = transform(image, truth.chosen(np.zeros(6, bool)), rng)
    assert none.masks.shape == (0, 32, 8) and not instance_arrays([none])[1]["valid"].any()


def test_canvases_and_groups():
    """An image is laid where it is largest, and of those on the smallest; canvases without images make no group."""
    canvases = ((800, 1344), (1344, 800), (800, 1088), (512, 512))
    assert best_canvas((480, 640), 800, 1333, canvases) == (800, 1088)
    assert best_canvas((427, 640), 800, 1333, canvases) == (800, 1344)
    assert best_canvas((640, 480), 800, 1333, canvases) == (1344, 800)
    sizes = [(480, 640), (427, 640), (640, 480), (480, 640)]
    samples = [(f"{i}", None, objects(size, [[0, 0, 9, 9]])) for i, size in enumerate(sizes)]
    split = Split("photos", samples, ("a",))
    groups = canvas_groups(split, KeepRatio(canvases=canvases))
    assert groups.groups.tolist() == [2, 0, 1, 2]
    assert groups.sizes == (((800, 1344),), ((1344, 800),), ((800, 1088),))
    drawn = from_garments(f"{DATA},size=96,scale=16-64,objects=1-5,count=8", masks=True)[0]
    assert canvas_groups(drawn, KeepRatio(canvases=((64, 96), (128, 128)))).groups.tolist() == [0] * 8


def test_batches_are_of_one_canvas_and_of_seed_and_step(tmp_path, rng):
    """Read from the beginning, or from the middle, as a run that goes on: the same."""
    samples = []
    for number, size in enumerate(((40, 60), (60, 40), (40, 70), (70, 41), (40, 50))):
        pixels = rng.integers(0, 256, (*size, 3), np.uint8)
        samples.append((f"{number}", pixels, objects(size, [[2, 3, 30, 33], [9, 9, 39, 39]])))
    split = Split("photos", samples, ("a", "b"))
    augment = CropOrScale(0.5, (32, 64), 96, ((64, 96), (96, 64)), crop_short=(40, 50), crop_sides=(20, 40))
    grouped = canvas_groups(split, augment)
    reading = Reading(
        InstanceTransform(augment, MEAN, STD), lambda s, rng: instance_arrays(s, 3), None, grouped.groups, grouped.sizes
    )
    recipe = Detection(data=Data(batch=2, threads=1), seed=3)

    def first(count, start=0):
        unreadable = input_pipeline.Unreadable(tmp_path / "unreadable.txt", 0)
        batches = iter(input_pipeline.training_batches(split, reading, recipe, unreadable, start))
        return [next(batches) for _ in range(count)]

    whole = first(5)
    assert {images.shape[1:3] for images, _ in whole} == {(64, 96), (96, 64)}
    assert len({images.tobytes() for images, _ in whole}) == 5
    for (images, arrays), (others, theirs) in zip(whole[2:], first(3, 2), strict=True):
        np.testing.assert_array_equal(images, others)
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, theirs[name])
        assert arrays["masks"].shape == (2, 3, *images.shape[1:2], images.shape[2] // 8)


def test_images_that_are_not_trained_on():
    truth = objects((40, 60), [[0, 0, 9, 9]])
    crowd, small = dataclasses.replace(truth, crowd=[True]), objects((31, 60), [[0, 0, 9, 9]])
    samples = [("a", None, truth), ("b", None, crowd), ("c", None, small), ("d", None, objects((99, 99), []))]
    split = with_objects(Split("photos", samples, ("a",), notes=("first",)))
    assert [name for name, *_ in split.samples] == ["a"]
    assert split.notes == (
        "first",
        "images without an object to train on, which are not trained on: 2 (b, d)",
        "images of less than 32 pixels a side, which are not trained on: 1 (c)",
    )
    with pytest.raises(SwinsError, match="photos: needs images to train on; images without an object"):
        with_objects(Split("photos", samples[3:], ("a",)))


def test_garments_with_masks(rng):
    """The canvas's own pixels at twice its size are each mask's, four times."""
    split = from_garments(f"{DATA},size=96,scale=16-64,objects=1-5,count=2", masks=True)[0]
    _, pixels, truth = split[0]
    assert isinstance(truth.masks[0], Bitmap)
    sample = InstanceTransform(KeepRatio(0.0, (192,), 192, ((192, 192),)), MEAN, STD)(open_image(pixels), truth, rng)
    assert sample.size == (192, 192)
    np.testing.assert_array_equal(unpacked(sample.masks), truth.bitmaps().repeat(2, 1).repeat(2, 2))
    assert truth.bitmaps().sum((1, 2)).tolist() == truth.area.tolist()


def test_the_preparation_of_photographs(rng):
    prepare = KeepRatioPreprocess(40, 80, ((64, 96), (96, 64)), MEAN, STD)
    wide, high = (Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)) for size in ((30, 50), (50, 30)))
    assert prepare(wide).shape == (64, 96, 3) and prepare([high, high]).shape == (2, 96, 64, 3)
    assert prepare.scaled((30, 50)) == (40, 67)
    with pytest.raises(SwinsError, match="a batch needs images of one canvas; got 2 of several; sort them first"):
        prepare([wide, high])
    level = KeepRatioPreprocess(40, 80, ((64, 96),), MEAN, STD)(np.full((30, 50, 3), 200, np.uint8))
    expected = (200 / 255 - np.array(MEAN)) / STD
    np.testing.assert_allclose(level[:40, :67], np.broadcast_to(expected, (40, 67, 3)), rtol=1e-5)


def test_sections_check_themselves():
    assert not settings.problems(KeepRatio()) and not settings.problems(CropOrScale())
    wrong = settings.problems(CropOrScale(flip=2, short=(), long=0, canvases=((800, 1333),), crop_sides=(600, 384)))
    assert [text.partition(" must")[0] for text in wrong] == ["flip", "short", "long", "canvases", "crop_sides"]
    assert "canvases must be pairs of multiples of 32; got ((800, 1333),)" in wrong
