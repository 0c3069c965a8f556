"""Segmenters' augmentation beside mmsegmentation's, and on hostile images."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
import segment_cases as cases
from instance_cases import digest
from mask_files import blocks, pairs, save
from PIL import Image

from swins import settings
from swins.data.class_masks import IGNORED, ClassMask, contents, padded_mask, scaled_mask, table_of
from swins.data.segment_augment import ScaleAndCrop, SegmentTransform, Squash, filler, segment_arrays, squashed
from swins.data.segmentation_layouts import find_segmentation_split
from swins.errors import SwinsError
from swins.images import open_image
from swins.keep_ratio import KeepRatioPreprocess, bilinear
from swins.task import Reading
from swins.tasks.detection import Data, Detection
from swins.train import input_pipeline

REFERENCE = json.loads((pathlib.Path(__file__).parent / "reference" / "segment_augment.json").read_text())
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PLAIN = {"flip": 0.0, "colour": 0.0}
KINDS = (Squash(colour=0.5), ScaleAndCrop(), ScaleAndCrop(short=48, long=96))


def truth_of(mask):
    """The ClassMask of an array (h, w) of classes and 255."""
    return ClassMask(mask, table_of({k: k for k in range(20)}), contents(mask))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_scaled_images_and_masks_are_mmsegs_to_the_bit(rng):
    rows = iter(REFERENCE["resized"])
    for seed, size in enumerate(cases.SIZES):
        for ratio in cases.RATIOS:
            kind = ScaleAndCrop(**PLAIN, short=cases.SHORT, long=cases.LONG, ratios=(ratio, ratio), most_of_one=1.0)
            image, mask = kind(*cases.noise(size, seed), rng, (500, 500))
            expected = next(rows)
            assert list(image.shape[:2]) == list(mask.shape) == expected["size"]
            assert (digest(image), digest(mask)) == (expected["image"], expected["mask"])


def compare(rows, reference, tolerance=0.02):
    """Means and deviations of [{name: number}] are the reference's, up to 5 errors and a part of a deviation."""
    for name, (mean, deviation) in reference.items():
        values = np.array([row[name] for row in rows])
        error = 7 * deviation / len(values) ** 0.5 + tolerance * max(deviation, 0.01)
        assert abs(values.mean() - mean) < error, (name, values.mean(), mean)
        assert abs(values.std() - deviation) < 0.1 * deviation + tolerance, (name, values.std(), deviation)


def test_crops_are_mmsegs_on_average(rng):
    mask, rows = cases.uneven(), []
    place = np.stack(np.indices(mask.shape), -1).astype(np.uint8)
    kind = ScaleAndCrop(**PLAIN, short=48, long=64, ratios=(1.0, 1.0))
    for _ in range(1500):
        image, part = kind(place, mask, rng, cases.CROP)
        np.testing.assert_array_equal(mask[image[..., 0], image[..., 1]], part)
        top, left = image[0, 0]
        shares = {f"share {k}": float((part == k).mean()) for k in (0, 1, 2, 255)}
        rows.append({"top": float(top), "left": float(left), **shares})
    compare(rows, REFERENCE["crops"])


def test_colours_are_mmsegs_on_average(rng):
    image, rows = cases.colours(), []
    for _ in range(1500):
        pixels = ScaleAndCrop().coloured(image, rng).reshape(-1, 3).astype(float)
        row = {f"mean {i}": pixels[:, i].mean() for i in range(3)}
        row |= {f"deviation {i}": pixels[:, i].std() for i in range(3)}
        row |= {f"pixel {i} {j}": pixels[i, j] for i in (2, 3, 9) for j in range(3)}
        rows.append({**row, "same": float((pixels == image.reshape(-1, 3)).all())})
    compare(rows, REFERENCE["distorted"], tolerance=0.05)


def test_a_window_is_a_part_of_the_whole(rng):
    for size, to in (((9, 13), (27, 20)), ((40, 31), (11, 62)), ((1, 1), (5, 4)), ((8, 6), (8, 6)), ((30, 40), (8, 9))):
        image = rng.integers(0, 256, (*size, 3), np.uint8)
        for _ in range(5):
            starts = [rng.integers(side) for side in to]
            window = tuple(slice(int(a), int(rng.integers(a, side)) + 1) for a, side in zip(starts, to, strict=True))
            np.testing.assert_array_equal(bilinear(image, to, window), bilinear(image, to)[window])


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_the_whole_image_is_squashed_as_by_pillow(channels, rng):
    image, mask = rng.integers(0, 256, (37, 51, channels), np.uint8), rng.integers(0, 9, (37, 51)).astype(np.uint8)
    pixels, scaled = Squash(flip=0.0)(image, mask, None, (24, 70))
    for i in range(channels):
        plane = Image.fromarray(image[..., i].copy()).resize((70, 24), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(pixels[..., i], plane)
    np.testing.assert_array_equal(scaled, scaled_mask(mask, (24, 70)))
    assert squashed(image, (37, 51)).shape == image.shape
    mirrored = Squash(flip=1.0)(image, mask, rng, (24, 70))
    np.testing.assert_array_equal(mirrored[0], pixels[:, ::-1])
    np.testing.assert_array_equal(mirrored[1], scaled[:, ::-1])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{type(kind).__name__}")
@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (2, 3), (70, 90)])
def test_shapes_are_static_and_masks_stay_with_their_pixels(kind, size, rng):
    """Images whose level is their class: after anything but colours, pixels of an area of one class have its level."""
    kind = dataclasses.replace(kind, colour=0.0)
    transform = SegmentTransform(kind, (32, 48), (0.0,), (1 / 255,))
    for _ in range(10):
        mask = np.full(size, 7, np.uint8)
        pixels, own = transform(open_image(mask), truth_of(mask), rng)
        assert pixels.shape == (32, 48, 1) and own.shape == (32, 48)
        assert (pixels.dtype, own.dtype) == (np.float32, np.int32)
        assert set(np.unique(own).tolist()) <= {7, IGNORED} and 7 in own
        np.testing.assert_allclose(pixels[..., 0], np.where(own == 7, 7, 0), atol=1e-3)
    halves = np.uint8([[1, 9]]).repeat(40, 0).repeat(30, 1)
    pixels, own = transform(open_image(halves), truth_of(halves), rng)
    assert (own[pixels[..., 0] > 5.5] == 9).all() and (own[(pixels[..., 0] < 4.5) & (pixels[..., 0] > 0.5)] == 1).all()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{type(kind).__name__}")
def test_the_generator_alone_decides(kind):
    image, mask = cases.noise((50, 70), 0)
    before = image.copy(), mask.copy()
    results = [kind(image, mask, np.random.default_rng(seed), (40, 40)) for seed in (5, 5, *range(9))]
    for a, b in zip(*results[:2], strict=True):
        np.testing.assert_array_equal(a, b)
    assert len({pixels.tobytes() for pixels, _ in results}) > 5
    np.testing.assert_array_equal((image, mask[..., None] + 0 * image), (before[0], before[1][..., None] + 0 * image))


def test_images_of_ignored_pixels_and_of_one_class_end(rng):
    for value in (IGNORED, 3):
        mask = np.full((30, 40), value, np.uint8)
        _, part = ScaleAndCrop(short=30, long=40)(np.zeros((30, 40, 3), np.uint8), mask, rng, (20, 20))
        assert (part == value).all()


def test_channels_and_sizes_of_images(rng):
    image, mask = cases.noise((20, 30), 1)
    transform = SegmentTransform(Squash(flip=0.0), (10, 10), (0.5,), (0.5,))
    assert transform(open_image(image), truth_of(mask), None)[0].shape == (10, 10, 1)
    assert transform(open_image(image), truth_of(mask), None, (6, 8))[1].shape == (6, 8)
    deep = SegmentTransform(ScaleAndCrop(), (16, 16), (0.5,) * 5, (0.5,) * 5)
    five = rng.integers(0, 256, (20, 30, 5), np.uint8)
    assert deep(open_image(five), truth_of(mask), rng)[0].shape == (16, 16, 5)
    with pytest.raises(SwinsError, match="must have its mask's size, 30x20; got 20x30; turn it"):
        transform(open_image(image.transpose(1, 0, 2).copy()), truth_of(mask), None)


def test_validation_keeps_proportions_as_the_preparation_does():
    """The same pixels as KeepRatioPreprocess where the whole image is scaled by 1, and its mask beside."""
    image, mask = cases.noise((60, 91), 2)
    prepare = KeepRatioPreprocess(48, 96, ((64, 96),), MEAN, STD)
    kind = ScaleAndCrop(**PLAIN, short=48, long=96, ratios=(1.0, 1.0), most_of_one=1.0)
    pixels, own = SegmentTransform(kind, (64, 96), MEAN, STD)(
        open_image(image), truth_of(mask), np.random.default_rng(0)
    )
    np.testing.assert_array_equal(pixels, prepare(image))
    np.testing.assert_array_equal(own, padded_mask(scaled_mask(mask, prepare.scaled(mask.shape)), (64, 96)))


def test_batches(rng):
    transform = SegmentTransform(ScaleAndCrop(), (8, 12), MEAN, STD)
    image, mask = cases.noise((9, 9), 0)
    images, arrays = segment_arrays([filler(transform), transform(open_image(image), truth_of(mask), rng)])
    assert images.shape == (2, 8, 12, 3) and arrays["masks"].shape == (2, 8, 12)
    assert images.dtype == np.float32 and arrays["masks"].dtype == np.int32
    assert (arrays["masks"][0] == IGNORED).all()
    with pytest.raises(SwinsError, match="one size; got 2 of several"):
        segment_arrays([filler(transform), filler(dataclasses.replace(transform, size=(8, 8)))])


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Squash(flip=1.5), "flip must be a probability"),
        (Squash(hue=91), "hue must be from 0 to 90"),
        (Squash(contrast=(1.5, 0.5)), "contrast must be a pair"),
        (ScaleAndCrop(ratios=(0.0, 1.0)), "ratios must be a pair"),
        (ScaleAndCrop(most_of_one=0.0), "most_of_one must be above 0"),
        (ScaleAndCrop(short=0), "short must be at least 1"),
        (ScaleAndCrop(tries="10"), "tries takes int"),
    ],
)
def test_settings_check_themselves(kind, text):
    assert any(text in problem for problem in settings.problems(kind))


def test_the_defaults_are_right_and_lists_become_tuples():
    assert not any(settings.problems(kind) for kind in KINDS)
    assert ScaleAndCrop(ratios=[0.5, 1]).ratios == (0.5, 1)
    still = dataclasses.replace(Squash(), hue=0, colour=1.0, brightness=0.0, contrast=(1.0, 1.0), saturation=(1.0, 1.0))
    grey = np.full((3, 3, 1), 9, np.uint8)
    np.testing.assert_array_equal(still.coloured(grey, np.random.default_rng(0)), grey)


def test_batches_are_of_seed_and_step(tmp_path):
    """Read from the beginning, or from the middle, as a run that goes on: the same; what has changed is named."""
    for name in "abcde":
        pairs(tmp_path / "images", tmp_path / "masks", [name], (0, 1, 255))
    split = find_segmentation_split(tmp_path)
    transform = SegmentTransform(ScaleAndCrop(short=12, long=16), (16, 24), MEAN, STD)
    reading = Reading(transform, lambda samples, rng: segment_arrays(samples), lambda: filler(transform))
    recipe = Detection(data=Data(batch=2, threads=1), seed=3)

    def first(count, start=0):
        unreadable = input_pipeline.Unreadable(tmp_path / "unreadable.txt", 1)
        batches = iter(input_pipeline.training_batches(split, reading, recipe, unreadable, start))
        return [next(batches) for _ in range(count)]

    whole = first(4)
    assert len({images.tobytes() for images, _ in whole}) == 4
    for (images, arrays), (others, theirs) in zip(whole[2:], first(2, 2), strict=True):
        np.testing.assert_array_equal(images, others)
        np.testing.assert_array_equal(arrays["masks"], theirs["masks"])
    assert not (tmp_path / "unreadable.txt").exists()
    save(tmp_path / "masks" / "b.png", blocks(0, 9))
    squash = SegmentTransform(Squash(flip=0.0), (8, 8), MEAN, STD)
    reading = Reading(squash, lambda samples, rng: segment_arrays(samples), lambda: filler(squash))
    unreadable = input_pipeline.Unreadable(tmp_path / "unreadable.txt", 1)
    batches, count = input_pipeline.validation_batches(split, reading, 2, unreadable, 1)
    arrays = [arrays for _, arrays, _, _ in batches]
    assert count == len(arrays) == 3 and sum(own["weight"].sum() for own in arrays) == 4
    assert "b.png\t" in (tmp_path / "unreadable.txt").read_text() and "values must be of classes; got 9" in next(
        iter(unreadable.texts.values())
    )
