"""Preprocessing against timm's own transform, on real photographs and on pictures made here."""

import io
import pathlib

import numpy as np
import pytest
from conftest import script
from PIL import Image

import swins
from swins.images import scaled_size

ROOT = pathlib.Path(__file__).parents[1]
NAMES = ("swin_tiny_patch4_window7_224", "swin_base_patch4_window12_384")


@pytest.fixture(scope="module")
def compare():
    return script("in1k_eval/preprocessing.py").compare


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Random pictures of awkward sizes and modes."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for i, (width, height) in enumerate([(300, 451), (451, 300), (224, 224), (97, 500), (601, 99), (384, 385)]):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), "uint8"))
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    rgba = Image.fromarray(rng.integers(0, 256, (240, 320, 4), "uint8"), "RGBA")
    rgba.save(folder / "alpha.png")
    rgba.convert("L").save(folder / "grey.jpg")
    rgba.convert("CMYK").save(folder / "cmyk.jpg")
    return sorted(folder.iterdir())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("protocol", ["timm", "ms"])
def test_pictures_equal_the_references(compare, pictures, name, protocol):
    mean, largest = compare(pictures, name, protocol)
    assert largest <= 1e-3, f"mean {mean}/255, largest {largest}/255"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("protocol", ["timm", "ms"])
def test_photographs_equal_the_references(compare, photos, name, protocol):
    mean, largest = compare(photos, name, protocol)
    print(f"{name} {protocol}: mean {mean:.2g}/255, largest {largest:.2g}/255")
    assert mean <= 1e-3 and largest <= 1e-3


def test_the_protocols_differ(photos):
    timm, ms = (swins.preprocess(NAMES[0], p)(photos[0]) for p in ("timm", "ms"))
    assert np.abs(timm - ms).mean() > 0.01


def test_paths_bytes_arrays_and_images_are_the_same(tmp_path, rng):
    prepare = swins.preprocess(NAMES[0])
    array = rng.integers(0, 256, (250, 320, 3), "uint8")
    image = Image.fromarray(array)
    image.save(tmp_path / "a.png")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    batch = prepare([tmp_path / "a.png", str(tmp_path / "a.png"), buffer.getvalue(), image, array])
    assert batch.shape == (5, 224, 224, 3) and batch.dtype == np.float32
    for other in batch[1:]:
        np.testing.assert_array_equal(other, batch[0])


def test_sizes_that_keep_the_aspect():
    assert scaled_size((300, 400), (248, 248), True) == (248, 330)
    assert scaled_size((400, 300), (248, 248), True) == (330, 248)
    assert scaled_size((400, 300), (384, 384), False) == (384, 384)
    assert scaled_size((100, 400), (50, 100), True) == (50, 200)


def test_grey_model_gets_one_channel():
    prepare = swins.preprocess("swin_mini_patch2_window4_28")
    image = np.arange(28 * 28, dtype="uint8").reshape(28, 28)
    np.testing.assert_allclose(prepare(image)[..., 0], (image / 255 - 0.2860) / 0.3530, atol=1e-6)


def test_no_images_at_all():
    with pytest.raises(swins.SwinsError, match="must hold at least one"):
        swins.preprocess("swin_tiny_patch4_window7_224")([])


def test_unknown_protocol_and_unreadable_image(tmp_path):
    with pytest.raises(swins.SwinsError, match="unknown protocol 'timmm': the closest are timm"):
        swins.preprocess(NAMES[0], "timmm")
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(swins.SwinsError, match=r"a\.jpg: not a readable image"):
        swins.preprocess(NAMES[0])(tmp_path / "a.jpg")
