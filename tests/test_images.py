"""Preprocessing against timm's own transform, on real photographs and on pictures made here."""

import io
import json
import pathlib
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from shared_fixtures import needs_tensorflow, script

import swins
from swins.images import Preprocess, find_images, scaled_size

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
    with pytest.raises(swins.SwinsError, match=r"a\.jpg: not a readable image \(cannot identify image file\)$"):
        swins.preprocess(NAMES[0])(tmp_path / "a.jpg")


def encoded(image, kind, **options):
    """Bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png16(pixels, colour_type):
    """A 16-bit PNG of pixels (H, W, C) uint16, which Pillow writes for grey alone."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_deeper_pixels_are_refused_whichever_way_they_come(tmp_path):
    deep = np.linspace(0, 65535, 28 * 28).astype("uint16").reshape(28, 28)
    Image.fromarray(deep).save(tmp_path / "a.png")
    Image.fromarray(deep.astype("float32")).save(tmp_path / "f.tiff")
    np.save(tmp_path / "a.npy", deep)
    for name in (NAMES[0], "swin_mini_patch2_window4_28"):
        prepare = swins.preprocess(name)
        for image in (
            tmp_path / "a.png",
            tmp_path / "f.tiff",
            tmp_path / "a.npy",
            (tmp_path / "a.png").read_bytes(),
            (tmp_path / "a.npy").read_bytes(),
            Image.open(tmp_path / "a.png"),
            Image.fromarray(deep),
            Image.fromarray(deep.astype("int32")),
            Image.fromarray(deep.astype("float32") / 65535),
            deep,
            deep.astype("float32"),
        ):
            with pytest.raises(swins.SwinsError, match=r"not 8-bit; scale them|must be uint8"):
                prepare(image)


def test_other_modes_become_grey_or_rgb_or_are_refused():
    pixels = np.arange(28 * 28 * 3, dtype="uint8").reshape(28, 28, 3)
    grey, rgb = swins.preprocess("swin_mini_patch2_window4_28"), swins.preprocess(NAMES[0])
    for mode in ("1", "L", "LA", "P", "PA", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"):
        image = Image.fromarray(pixels).convert("L" if mode in ("LA", "PA") else "RGB").convert(mode)
        assert grey(image).shape == (28, 28, 1) and rgb(image).shape == (224, 224, 3), mode
    for prepare, mode in ((grey, "LAB"), (grey, "La"), (rgb, "La")):
        with pytest.raises(swins.SwinsError, match=r"must become . channel.*save it as 8-bit RGB"):
            prepare(Image.new(mode, (28, 28)))
    broken = Image.open(io.BytesIO(encoded(Image.fromarray(pixels), "BMP")[:200]))
    with pytest.raises(swins.SwinsError, match="the PIL image: not a readable image"):
        rgb(broken)


def test_16_bits_that_pillow_makes_8_as_it_reads_are_taken_as_timm_does(rng):
    pixels = rng.integers(0, 65536, (28, 28, 3)).astype("uint16")
    prepare = swins.preprocess(NAMES[0])
    np.testing.assert_array_equal(prepare(png16(pixels, 2)), prepare((pixels >> 8).astype("uint8")))


def test_transparency_is_dropped_and_exif_ignored(rng):
    prepare = swins.preprocess(NAMES[0])
    pixels = rng.integers(0, 256, (240, 320, 4), "uint8")
    np.testing.assert_array_equal(prepare(Image.fromarray(pixels)), prepare(pixels[..., :3].copy()))
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    turned = encoded(Image.fromarray(pixels[..., :3].copy()), "PNG", exif=exif)
    np.testing.assert_array_equal(prepare(turned), prepare(pixels[..., :3].copy()))


def test_models_of_other_channels(tmp_path, rng):
    for count in (2, 4, 5):
        prepare = Preprocess((20, 30), (20, 30), True, (0.5,) * count, (0.25,) * count)
        pixels = rng.integers(0, 256, (40, 60, count), "uint8")
        np.save(tmp_path / "a.npy", pixels)
        found = prepare([tmp_path / "a.npy", pixels, (tmp_path / "a.npy").read_bytes()])
        assert found.shape == (3, 20, 30, count)
        grey = Preprocess((20, 30), (20, 30), True, (0.5,), (0.25,))
        for image in found:  # each channel by itself: nothing is multiplied by a transparency
            for i in range(count):
                np.testing.assert_array_equal(image[..., i : i + 1], grey(pixels[..., i].copy()))
        if count == 4:
            for kind in ("PNG", "TIFF"):
                np.testing.assert_array_equal(prepare(encoded(Image.fromarray(pixels), kind)), found[0])
        if count == 2:
            np.testing.assert_array_equal(prepare(encoded(Image.fromarray(pixels, "LA"), "PNG")), found[0])
        for wrong in (pixels[..., 0].copy(), np.zeros((9, 9, 3), "uint8"), np.zeros((9, 9, 6), "uint8")):
            with pytest.raises(swins.SwinsError, match=f"the model has {count} channels"):
                prepare(wrong)
    with pytest.raises(swins.SwinsError, match=r"\(H, W\[, 1, 3 or 4\]\); got uint8 \(9, 9, 2\)"):
        swins.preprocess(NAMES[0])(np.zeros((9, 9, 2), "uint8"))


def test_a_name_means_the_variant_whatever_folder_is_called_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    facts = {"image_size": [28, 28], "crop": 1.0, "mean": [0.1], "std": [0.2]}
    result = {"recipe": {"model.name": NAMES[0]}, "preprocess": facts, "classes": ["a", "b"]}
    for name in (NAMES[0], f"{NAMES[0]}.ms_in1k"):
        pathlib.Path(name).mkdir()
        pathlib.Path(name, "model.keras").touch()
        pathlib.Path(name, "result.json").write_text(json.dumps(result))
        assert swins.preprocess(name).image_size == (224, 224) and len(swins.class_names(name)) == 1000
        for path in (f"./{name}", tmp_path / name, f"{tmp_path}/{name}/model.keras"):
            assert swins.preprocess(path).mean == (0.1,) and swins.class_names(path) == ["a", "b"]


def test_images_are_found_behind_links_and_not_in_hidden_folders(tmp_path):
    for folder in ("data", "more", "data/.ipynb_checkpoints"):
        (tmp_path / folder).mkdir()
        Image.new("L", (2, 2)).save(tmp_path / folder / "a.png")
    (tmp_path / "data" / "link").symlink_to(tmp_path / "more")
    (tmp_path / "data" / "loop").symlink_to(tmp_path)
    assert [str(p.relative_to(tmp_path)) for p in find_images(tmp_path / "data")] == ["data/a.png", "data/link/a.png"]


@needs_tensorflow
def test_bytes_are_decoded_in_tensorflow_as_pillow_does(rng):
    import tensorflow as tf

    from swins.exports.saved_model_writer import decode_rgb

    decode = tf.function(decode_rgb, input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
    noise = Image.fromarray(rng.integers(0, 256, (53, 61, 3), "uint8"))
    rgba = noise.convert("RGBA")
    rgba.putalpha(noise.convert("L"))
    files = {f"{mode}.png": encoded(noise.convert(mode), "PNG") for mode in ("1", "L", "P", "RGB")}
    files |= {f"subsampling {s}": encoded(noise, "JPEG", subsampling=s) for s in (0, 1, 2)}
    files |= {
        "progressive": encoded(noise, "JPEG", progressive=True, quality=40),
        "grey": encoded(noise.convert("L"), "JPEG"),
        "CMYK": encoded(noise.convert("CMYK"), "JPEG"),
        "RGB in JPEG": encoded(noise, "JPEG", keep_rgb=True),
        "RGBA": encoded(rgba, "PNG"),
        "LA": encoded(noise.convert("L").convert("LA"), "PNG"),
        "4 bits": encoded(noise.quantize(16), "PNG", bits=4),
        "palette with transparency": encoded(noise.quantize(16), "PNG", transparency=3),
        "16-bit RGB": png16(rng.integers(0, 65536, (9, 11, 3)), 2),
        "16-bit RGBA": png16(rng.integers(0, 65536, (9, 11, 4)), 6),
        "WebP": encoded(noise, "WEBP"),
        "BMP": encoded(noise, "BMP"),
    }
    for name, data in files.items():
        wanted = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        np.testing.assert_array_equal(decode(data).numpy(), wanted, err_msg=name)
    grey = np.asarray(noise.convert("L"))
    refused = {
        "16-bit grey": encoded(Image.fromarray(grey.astype("uint16") * 257), "PNG"),
        "GIF": encoded(noise, "GIF"),
        "BMP with a palette": encoded(noise.convert("P"), "BMP"),
        "nothing": b"",
        "text": b"no image",
    }
    for name, data in refused.items():
        with pytest.raises(tf.errors.InvalidArgumentError, match="image_bytes must be JPEG, PNG, WebP or 24-bit BMP"):
            decode(data)
            pytest.fail(name)
