"""Files of masks: every kind that holds numbers, and what is said of others."""

import numpy as np
import pytest
from mask_files import blocks, save
from PIL import Image

from swins.data.class_masks import (
    ClassMask,
    ColouredMaskError,
    contents,
    of_colours,
    padded_mask,
    scaled_mask,
    stored_values,
    table_of,
)
from swins.errors import SwinsError

MASK = blocks(0, 1, 2, 255)


def class_mask(path, table=None):
    values = stored_values(path)
    return ClassMask(path, table_of({0: 0, 1: 1, 2: 2}) if table is None else table, contents(values))


def test_kinds_of_files(tmp_path):
    kinds = {
        "grey.png": Image.fromarray(MASK),
        "deep.png": Image.fromarray(MASK.astype(np.uint16)),
        "whole.tif": Image.fromarray(MASK.astype(np.int32)),
        "grey.bmp": Image.fromarray(MASK),
        "rgb.png": Image.fromarray(np.repeat(MASK[..., None], 3, -1)),
        "rgba.png": Image.fromarray(np.dstack([MASK] * 3 + [np.full_like(MASK, 99)])),
        "with_alpha.png": Image.fromarray(np.dstack([MASK, MASK // 2])),
    }
    palette = Image.fromarray(MASK)
    palette.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    for name, picture in {**kinds, "palette.png": palette}.items():
        picture.save(tmp_path / name)
        np.testing.assert_array_equal(stored_values(tmp_path / name), MASK, err_msg=name)
    Image.fromarray(MASK == 1).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(stored_values(tmp_path / "bits.png"), MASK == 1)
    many = np.arange(192, dtype=np.uint16).reshape(12, 16) * 300
    np.testing.assert_array_equal(stored_values(save(tmp_path / "many.png", many)), many)


def test_files_that_are_none(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    with pytest.raises(ColouredMaskError, match=r"class numbers; got colours \(RGB\); write each pixel's class"):
        stored_values(save(tmp_path / "a.png", colours))
    Image.fromarray(MASK).save(tmp_path / "a.jpg")
    (tmp_path / "b.png").write_bytes(b"no image")
    save(tmp_path / "c.tif", MASK.astype(np.float32))
    save(tmp_path / "d.tif", MASK.astype(np.int32) - 1)
    for name, text in (
        ("a.jpg", "JPEG changes class numbers; save it as PNG"),
        ("b.png", "not a readable mask"),
        ("c.tif", "integers from 0 to 65535; got F"),
        ("d.tif", "integers from 0 to 65535; got I"),
        ("none.png", "no regular file"),
    ):
        with pytest.raises(SwinsError, match=text):
            stored_values(tmp_path / name)


def test_colours_become_numbers(tmp_path):
    colours = np.random.default_rng(1).permutation(256)[:9].reshape(3, 3)
    mask = blocks(2, 0, 1)
    pixels = colours[mask].astype(np.uint8)
    pixels[0, 0] = 77
    np.testing.assert_array_equal(of_colours(pixels, colours)[1:], mask[1:])
    assert of_colours(pixels, colours)[0, 0] == 255
    with pytest.raises(SwinsError, match="pixels must be"):
        of_colours(mask, colours)


def test_what_a_mask_tells(tmp_path):
    mask = class_mask(save(tmp_path / "a.png", MASK))
    assert mask.size == (12, 16) and mask.fitted((12, 16)) is mask
    np.testing.assert_array_equal(mask.pixels(), MASK)
    assert mask.pixels().dtype == np.uint8 and mask.counts(4).tolist() == [48, 48, 48, 0]
    assert mask.unknown().tolist() == [] and set(mask.to_json()) == {"size", "digest"}
    with pytest.raises(SwinsError, match="its mask's size, 16x12; got 12x16; turn it as it is shown"):
        mask.fitted((16, 12))
    with pytest.raises(SwinsError, match="got 8x6; mend it"):
        mask.fitted((6, 8))
    other = mask.renumbered(np.array([2, -1, 0]))
    assert other.unknown().tolist() == [1] and other.counts(3).tolist() == [48, 0, 48]
    assert other.renumbered(np.array([0, 1, 1])).counts(3).tolist() == [48, 48, 0]
    with pytest.raises(SwinsError, match=r"values must be of classes; got 1$"):
        other.pixels()
    assert len({mask.digest(), other.digest(), class_mask(save(tmp_path / "b.png", MASK[:, ::-1])).digest()}) == 3
    assert mask.digest() == class_mask(save(tmp_path / "c.png", MASK.astype(np.uint16))).digest()
    save(tmp_path / "a.png", MASK[:4])
    with pytest.raises(SwinsError, match="was a mask of 16x12, and is 16x4 now"):
        mask.pixels()


def test_sizes_of_masks():
    mask = np.arange(6, dtype=np.uint8).reshape(2, 3)
    np.testing.assert_array_equal(scaled_mask(mask, (4, 6)), mask.repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(scaled_mask(mask, (1, 1)), [[0]])
    np.testing.assert_array_equal(padded_mask(mask, (3, 4)), [[0, 1, 2, 255], [3, 4, 5, 255], [255] * 4])
