"""Preparation as a Keras layer: Pillow's numbers in every backend, in tf.data, grain, models and what they remember."""

import dataclasses
import pickle

import keras
import numpy as np
import pytest
from shared_fixtures import needs_tensorflow
from training import NAME

import swins
from swins.errors import SwinsError
from swins.images import Preprocess
from swins.pillow_resampling import centre, scaled_size

RULES = (
    ((24, 24), True, (21, 21), "bicubic"),
    ((32, 20), True, (28, 18), "bilinear"),
    ((30, 20), False, (30, 20), "bicubic"),
    ((24, 24), True, (21, 21), "bilinear"),
)
SIZES = ((40, 90), (300, 3), (1, 1), (90, 95), (150, 30))  # the second and the last are scaled along the height first


def of_pillow(pixels, resize, keep_ratio, size, interpolation):
    from PIL import Image

    scaled = scaled_size(pixels.shape[:2], resize, keep_ratio)
    image = Image.fromarray(pixels).resize(scaled[::-1], Image.Resampling[interpolation.upper()])
    top, left = (round((side - cut) / 2) for side, cut in zip(scaled, size, strict=True))
    return np.asarray(image.crop((left, top, left + size[1], top + size[0])))


def drawn(rng, size, channels=3):
    """Random pixels, half of them black or white, whose weighted sums leave 0..255."""
    pixels = rng.integers(0, 256, (*size, channels), "uint8")
    return np.where(rng.random(pixels.shape) < 0.5, np.uint8(255) * (pixels > 127), pixels).astype("uint8")


def prepare_of(channels=3, rule=RULES[0]):
    resize, keep_ratio, size, interpolation = rule
    return Preprocess(size, resize, keep_ratio, (0.4,) * channels, (0.2,) * channels, interpolation)


@pytest.mark.backends
def test_pixels_are_pillows_to_the_bit(rng):
    for size, rule in zip(SIZES, (*RULES, *RULES), strict=False):
        pixels = drawn(rng, size)
        found = centre(keras.ops.convert_to_tensor(pixels), *rule)
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(found), of_pillow(pixels, *rule))


@pytest.mark.slow
@needs_tensorflow
@pytest.mark.parametrize("rule", RULES)
def test_so_are_they_in_a_graph_that_does_not_know_the_size(rng, rule):
    import tensorflow as tf

    graph = tf.function(lambda x: centre(x, *rule), input_signature=[tf.TensorSpec((None, None, 3), "uint8")])
    for size in (*SIZES, *rng.integers(1, 100, (20, 2))):
        pixels = drawn(rng, size)
        np.testing.assert_array_equal(graph(pixels), of_pillow(pixels, *rule))


@pytest.mark.backends
@pytest.mark.core
def test_a_tensor_gives_what_files_give(rng):
    batch = drawn(rng, (2, 40, 30), 4)
    for channels in (1, 3):
        prepare = prepare_of(channels)
        for seen in (4, 3, 1):
            pixels = batch[..., :seen]
            expected = prepare(pixels)
            assert expected.shape == (2, 21, 21, channels)
            np.testing.assert_allclose(
                keras.ops.convert_to_numpy(prepare(keras.ops.convert_to_tensor(pixels))), expected, atol=1e-6
            )
            assert tuple(prepare(keras.Input(pixels.shape[1:], dtype="uint8")).shape) == (None, 21, 21, channels)
    one = prepare(keras.ops.convert_to_tensor(batch[0, ..., :3]))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(one), prepare(batch[0, ..., :3]), atol=1e-6)


@pytest.mark.backends
def test_other_pixels_are_refused(rng):
    prepare, tensor = prepare_of(), keras.ops.convert_to_tensor
    pixels = drawn(rng, (8, 9))
    for wrong, words in (
        (tensor(pixels / np.float32(255)), "must be uint8, from 0 to 255; got float32; round and cast levels"),
        (tensor(pixels.astype("int32")), "must be uint8, from 0 to 255; got int32"),
        (tensor(pixels[..., :2]), "for a model of 3 channels must have 1 or 3 or 4, the last axis; got 2"),
        (tensor(pixels[:0]), "none of them 0"),
        (tensor(pixels[..., 0]), r"must be \(height, width, channels\)"),
        (tensor(pixels)[None, None], r"must be \(height, width, channels\)"),
        (pixels[None] / 255, "must be uint8"),
        (pixels[None][:0], "at least one; got none"),
        (pixels[None, :, :0], "must be uint8"),
    ):
        with pytest.raises(SwinsError, match=words):
            prepare(wrong)
    four = prepare_of(4)
    assert tuple(four(tensor(drawn(rng, (8, 9), 4))).shape) == (21, 21, 4)
    with pytest.raises(SwinsError, match="a model of 4 channels must have 4"):
        four(tensor(pixels))
    with pytest.raises(SwinsError, match="unknown interpolation 'lanczos': known: bicubic, bilinear"):
        prepare_of(rule=(*RULES[0][:3], "lanczos"))


@pytest.mark.slow
@pytest.mark.backends
def test_data_pipelines_under_every_backend(rng):
    grain = pytest.importorskip("grain")
    prepare, photos = prepare_of(), [drawn(rng, size) for size in SIZES[:3]]
    expected = prepare(photos)
    source = grain.MapDataset.source(photos).map(prepare).batch(3)
    np.testing.assert_array_equal(source[0], expected)
    tf = pytest.importorskip("tensorflow") if keras.backend.backend() != "torch" else None
    if tf is None:
        return  # TensorFlow and PyTorch in one process are not this package's
    data = tf.data.Dataset.from_generator(
        lambda: iter(photos), output_signature=tf.TensorSpec((None, None, 3), "uint8")
    )
    (batch,) = data.map(prepare).batch(3)
    np.testing.assert_allclose(batch.numpy(), expected, atol=1e-6)
    unknown = tf.data.Dataset.from_generator(lambda: iter(photos), output_signature=tf.TensorSpec((None,) * 3, "uint8"))
    np.testing.assert_allclose(next(iter(unknown.map(prepare).batch(3))).numpy(), expected, atol=1e-6)
    with pytest.raises(Exception, match="expand_animations=False"):  # which TensorFlow wraps
        tf.data.Dataset.from_tensors(b"").map(tf.io.decode_image).map(prepare)


@pytest.mark.backends
def test_it_is_compared_copied_and_saved(tmp_path):
    prepare = prepare_of()
    alike = pickle.loads(pickle.dumps(prepare))
    assert alike == prepare and hash(alike) == hash(prepare) and alike != prepare_of(1) and prepare != 1
    assert dataclasses.replace(prepare, mean=(0, 0, 0)).mean == (0, 0, 0) and dataclasses.asdict(prepare)["keep_ratio"]
    model = keras.Sequential([keras.Input((None, None, 3), dtype="uint8"), prepare])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras").layers[-1]
    assert again == prepare and repr(again).startswith("Preprocess(image_size=(21, 21), resize=(24, 24)")


@pytest.mark.slow
@pytest.mark.backends
@pytest.mark.core
def test_one_model_from_pixels_to_probabilities(checkpoint, tmp_path, rng):
    predictor, model = swins.load(checkpoint), swins.load(checkpoint, raw=True)
    pixels = drawn(rng, (2, 50, 33), 3)
    best = [result.probabilities[0] for result in predictor(list(pixels))]
    found = model.predict(pixels, verbose=0)
    np.testing.assert_allclose(found.max(1), best, atol=1e-5)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    model.save(tmp_path / "raw.keras")
    again = keras.saving.load_model(tmp_path / "raw.keras")
    np.testing.assert_allclose(again.predict(pixels, verbose=0), found, atol=1e-6)
    assert again.preparation == predictor.preparation and again.class_names == model.class_names
    with pytest.raises(SwinsError, match="must be uint8, from 0 to 255; got float32"):
        model.predict(np.zeros((1, 9, 9, 1), "float32"), verbose=0)


@pytest.mark.slow
@needs_tensorflow
def test_an_exported_model_and_a_saved_model_prepare_alike(checkpoint, tmp_path, photos):
    import tensorflow as tf

    from swins.exports.saved_model_writer import save

    model = swins.load(checkpoint, raw=True)
    pixels = np.asarray(tf.io.decode_png(photos[0].read_bytes(), channels=1))[None]
    expected = model.predict(pixels, verbose=0)
    model.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(str(tmp_path / "exported"))
    np.testing.assert_allclose(exported.serve(pixels), expected, atol=1e-6)
    save(model.classifier, model.preparation, tmp_path / "saved", "logits")
    saved = tf.saved_model.load(str(tmp_path / "saved"))
    logits = saved.signatures["serving_bytes"](image_bytes=tf.constant([photos[0].read_bytes()]))["logits"]
    wanted = model.classifier(swins.preprocess(model.classifier)([photos[0]]))
    np.testing.assert_allclose(logits, wanted, atol=1e-5)


@pytest.mark.slow
def test_models_remember_their_preparation(checkpoint, converted, small_run, tmp_path):
    tagged = swins.create(NAME, weights=checkpoint, num_classes=3)
    published = swins.preprocess(NAME)
    assert swins.preprocess(tagged) == published and tagged.origin == {"name": NAME}
    tagged.origin |= {"preparation": {"image_size": [28, 28], "crop": 0.7, "mean": [0.4], "std": [0.2]}}
    tagged.origin |= {"class_names": ["a", "b", "c"]}
    tagged.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert swins.preprocess(again) == swins.preprocess(tmp_path / "model.keras") == swins.preprocess(tagged)
    assert swins.preprocess(tagged).resize == (40, 40) and again.get_config()["origin"] == tagged.get_config()["origin"]
    assert swins.preprocess(swins.resize(tagged, image_size=56)).resize == (80, 80)
    assert swins.select_classes(tagged, [2, 0]).origin["class_names"] == ["c", "a"]
    assert swins.load(tmp_path / "model.keras", raw=True).class_names == ("a", "b", "c")
    once_more = swins.create(NAME.partition(".")[0], weights=tmp_path / "model.keras")
    assert swins.preprocess(once_more) == swins.preprocess(tagged) and once_more.origin["class_names"] == [
        "a",
        "b",
        "c",
    ]
    assert swins.preprocess(converted) == published
    assert swins.preprocess(swins.create(NAME, image_size=56, in_chans=1)).image_size == (56, 56)
    assert swins.preprocess(small_run) == swins.preprocess(small_run / "model.keras") != published
    for other in (tmp_path / "none", tmp_path / "none.keras"):
        with pytest.raises(SwinsError, match="variant"):
            swins.preprocess(other)
    with pytest.raises(SwinsError, match="a classifier of this package or a path; got Sequential"):
        swins.preprocess(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]))
