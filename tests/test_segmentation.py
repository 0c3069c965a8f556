"""Segmentation as a kind of work: a small UPerNet on canvases trains, is evaluated, predicts, is exported."""

import dataclasses
import functools
import json

import keras
import numpy as np
import pytest
import small_variants
from PIL import Image
from shared_fixtures import needs_tensorflow
from training import COMPILED, changed, log, one_program, quiet, train_with_a_kill

import swins
from swins.data.class_masks import IGNORED
from swins.data.garments import Garments
from swins.data.segment_augment import ScaleAndCrop, Squash
from swins.errors import SwinsError
from swins.images import open_image
from swins.keep_ratio import ScaledPreprocess
from swins.opening import Opened
from swins.recipes import AdamW, Cosine, as_json
from swins.results import Segmentation as Result
from swins.segmentation import class_maps
from swins.segmentation.pyramid_pooling import resized
from swins.segmentation.sliding import averaged, whole
from swins.segmentation.upernet import LOGITS
from swins.task import task_of
from swins.tasks import segmentation_evaluation, segmentation_export
from swins.tasks.segmentation import SEGMENTATION, Data, Loss, Model, Segmentation
from swins.train import loop

SIDE = 32
DATA = f"garments:demo/fashion_mnist,count=8,size={SIDE},objects=0-2,scale=10-24,colour=False"
RECIPE = Segmentation(
    model=Model(small_variants.UPERNET, compile=COMPILED),
    data=Data(batch=2, size=SIDE, threads=1, mean=(0.3,), std=(0.3,)),
    augment=Squash(),
    optim=AdamW(learning_rate=1e-3, per_images=0),
    schedule=Cosine(warmup_epochs=0),
    epochs=1,
)


def network(recipe=RECIPE, classes=11):
    """A fresh network of a recipe."""
    return swins.create(recipe.model.name, num_classes=classes, **recipe.model.options())


def batch_of(recipe, model, count=2):
    """(images, arrays) of the first training samples."""
    pair = SEGMENTATION.splits(DATA, recipe)
    reading = SEGMENTATION.training(recipe, SEGMENTATION.preparation(recipe, model, pair), pair[0])
    samples = [
        reading.sample(open_image(pair[0][i][1]), pair[0][i][2], np.random.default_rng(i), None) for i in range(count)
    ]
    return reading.batch(samples, np.random.default_rng(0))


def floats(values):
    return {name: float(np.sum(keras.ops.convert_to_numpy(value))) for name, value in values.items()}


def facts_of(classes=3, size=SIDE):
    """What a run of this recipe tells, as JSON gives it back."""
    prepare = segmentation_evaluation.squash((size, size), (0.3,), (0.3,))
    facts = {"classes": [f"c{i}" for i in range(classes)], "preprocess": segmentation_evaluation.as_facts(prepare)}
    return json.loads(json.dumps({**facts, "inference": "whole", "crop": [size, size]}))


@pytest.fixture(scope="module")
def tiny():
    """A network, and a batch for it."""
    model = network()
    return model, *batch_of(RECIPE, model)


@pytest.mark.parametrize(
    "sizes", [((7, 9), (28, 36), (50, 41)), ((16, 16), (64, 64), (64, 64)), ((5, 3), (5, 3), (9, 3))]
)
@pytest.mark.backends
def test_classes_are_those_of_logits_that_are_enlarged_twice(sizes, monkeypatch):
    cells, inner, size = sizes
    logits = np.random.default_rng(0).normal(0, 1, (1, *cells, 4)).astype("float32")
    twice = keras.ops.convert_to_numpy(resized(resized(logits, inner), size))[0]
    monkeypatch.setattr(class_maps, "MOST_VALUES", 7 * size[1] * 4)  # bands of seven rows
    mask = class_maps.class_map(logits[0], inner, size)
    assert mask.shape == size and mask.dtype == np.int32
    sure = np.diff(np.sort(twice, -1)[..., -2:], axis=-1)[..., 0] > 1e-4  # between two classes either is right
    assert sure.mean() > 0.99 and (mask == twice.argmax(-1))[sure].all()


@pytest.mark.backends
@pytest.mark.core
def test_what_exports_do_in_their_graph_is_what_predictors_do():
    rng, sizes = np.random.default_rng(0), np.int32([(20, 31), (45, 17)])
    logits = rng.normal(0, 1, (2, 8, 8, 3)).astype("float32")
    masks = keras.ops.convert_to_numpy(class_maps.class_maps(logits, (32, 32), sizes))
    assert masks.shape == (2, 45, 31)
    for mask, row, (height, width) in zip(masks, logits, sizes.tolist(), strict=True):
        ours = class_maps.class_map(row, (32, 32), (height, width))
        assert (mask[:height, :width] == ours).mean() > 0.998
        beside = np.ones(mask.shape, bool)
        beside[:height, :width] = False
        assert (mask[beside] == IGNORED).all()


@pytest.mark.backends
def test_losses_have_names_and_fillers_count_not(tiny):
    model, images, arrays = tiny
    assert images.shape == (2, SIDE, SIDE, 1) and arrays["masks"].dtype == np.int32
    outputs = model(images, training=True)
    losses = one_program(functools.partial(SEGMENTATION.losses, RECIPE, model))
    both = floats(losses(arrays, outputs))
    assert set(both) == {"segmentation", "auxiliary"} and 1 < both["segmentation"] < 5
    outputs = one_program(model)(images)
    arrays = {
        **arrays,
        "masks": np.where([[[False]], [[True]]], IGNORED, arrays["masks"]),
        "weight": np.float32([1, 0]),
    }
    filled = floats(losses(arrays, outputs))
    alone = {name: value[:1] for name, value in arrays.items() if name != "weight"}
    one = floats(losses(alone, {LOGITS: outputs[LOGITS][:1]}))
    assert filled["segmentation"] == pytest.approx(one["segmentation"] / 2, rel=1e-4)
    arrays["masks"] = np.full_like(arrays["masks"], IGNORED)
    assert floats(losses(arrays, outputs)) == {"segmentation": 0.0}


def test_class_weights_come_with_the_batch():
    recipe = changed(RECIPE, loss={"class_weights": (0.0,) * 10 + (1.0,)})
    model = network(recipe)
    images, arrays = batch_of(recipe, model)
    assert arrays["class_weights"].shape == (2, 11)
    arrays["masks"] = np.zeros_like(arrays["masks"])
    arrays["masks"][:, 0, 0] = 10  # the only class that counts
    outputs = model(images)
    weighted = floats(SEGMENTATION.losses(recipe, model, arrays, outputs))["segmentation"]
    arrays["masks"][:, 1:] = IGNORED
    arrays["masks"][:, 0, 1:] = IGNORED
    del arrays["class_weights"]
    assert weighted == pytest.approx(
        floats(SEGMENTATION.losses(RECIPE, model, arrays, outputs))["segmentation"], rel=1e-4
    )
    balanced = SEGMENTATION.preparation(changed(RECIPE, loss={"class_weights": "balanced"}), model, pair())
    assert len(balanced.weights) == 11 and balanced.weights[0] < 0.3


def pair():
    return SEGMENTATION.splits(DATA, RECIPE)


def test_masks_are_of_the_images_own_size():
    logits = np.zeros((2, 8, 8, 3), "float32")
    logits[..., 0], logits[0, :, 4:, 2], logits[1, 4:, :, 1] = 0.5, 1, 1
    first, second = SEGMENTATION.answers({LOGITS: logits}, facts_of(), [(20, 40), (60, 30)])
    assert first.mask.shape == (20, 40) and second.mask.shape == (60, 30)
    assert first.mask[:, 20:].min() == 2 and first.mask[:, :20].max() == 0
    assert second.mask[30:].min() == 1 and second.mask[:30].max() == 0
    assert str(second) == "c0 50.0%, c1 50.0%"


def test_a_result_draws_and_becomes_json(tmp_path):
    mask = np.int32([[0] * 30 + [12] * 30] * 40)
    result = Result(mask, tuple(f"class {i}" for i in range(13)))
    plain = json.loads(json.dumps(result.to_json()))
    assert [row["label"] for row in plain["classes"]] == [0, 12] and plain["classes"][1]["pixels"] == 1200
    assert plain["classes"][1]["mask"]["size"] == [40, 60]
    image = np.full((40, 60, 3), 128, "uint8")
    drawn = result.draw(image)
    assert drawn.width == 480 and drawn.height > 320
    colours = np.int32(swins.mask_drawing.class_colours(result.names))
    for x, number in ((50, 0), (400, 12)):  # 100 of 255 parts are the class's colour
        wanted = (128 * 155 + colours[number] * 100) // 255
        assert np.array(drawn)[50, x].tolist() == wanted.tolist()
    result.index_image().save(tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as saved:
        assert saved.mode == "P" and (np.array(saved) == mask).all()
    many = Result(
        np.arange(150, dtype="int32").reshape(10, 15), tuple(f"a long name of a class {i}" for i in range(150))
    )
    assert many.draw(np.zeros((10, 15), "uint8"), 640).width == 640
    assert len(np.unique(swins.mask_drawing.class_colours(many.names), axis=0)) == 150


def test_background_is_left_clear_and_the_others_have_the_colours_of_boxes():
    names = ("background", "a", "b")
    mask = np.zeros((20, 30), "int32")
    mask[:, 15:] = 2
    colours = swins.mask_drawing.class_colours(names)
    assert (colours[1:] == swins.mask_drawing.class_colours(names[1:])).all()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 1), "uint8").repeat(3, -1)
    painted = swins.mask_drawing.painted(pixels, mask, names)
    assert (painted[:, :15] == pixels[:, :15]).all() and (painted[:, 15] == colours[2]).all()
    assert (swins.mask_drawing.painted(pixels, mask, ("sky", *names[1:]))[:, :14] != pixels[:, :14]).any()


def test_a_validation_that_finds_one_class_alone_is_told_of():
    def record(truth, predicted):
        return {"truth": truth, "predicted": predicted, "pixels": [5] * len(truth)}

    facts = {"classes": ["background", "a", "b"]}
    (line,) = SEGMENTATION.remarks([record([0, 1], [0, 0]), record([2], [0])], facts)
    assert line.startswith("all pixels of the validation images are called background, of 3 classes that are there")
    for fine in (record([0, 1], [0, 1]), record([0], [0])):
        assert not SEGMENTATION.remarks([fine], facts)


def opened(model, **training):
    return Opened(
        "a", model, SEGMENTATION, {"name": "a", "source": {"file": "a.pth"}, "class_names": ["a"]}, training or None
    )


def test_protocols_say_how_images_are_prepared(tiny):
    model = tiny[0]
    published = SEGMENTATION.prepare(opened(model), {})
    assert published.protocol == "mmseg" and published.preparation.scaled((512, 683)) == (512, 683)
    assert published.preparation.scaled((300, 1500)) == (410, 2048)
    run = {"preprocess": facts_of()["preprocess"]}
    own = SEGMENTATION.prepare(opened(model, **run), {})
    assert own.protocol == "hf" and own.preparation.image_size == (SIDE, SIDE)
    assert own.preparation.interpolation == "bilinear" and own.facts["inference"] == "whole"
    kept = SEGMENTATION.prepare(opened(model, **run), {"protocol": "mmseg", "inference": "slide"})
    assert isinstance(kept.preparation, ScaledPreprocess) and kept.protocol == "mmseg slide"
    assert kept.preparation(np.zeros((50, 100), "uint8")).shape == (32, 64, 1)
    with pytest.raises(SwinsError, match="unknown protocol"):
        SEGMENTATION.prepare(opened(model), {"protocol": "coco"})
    with pytest.raises(SwinsError, match="unknown inference"):
        SEGMENTATION.prepare(opened(model), {"inference": "all"})
    fixed = network(changed(RECIPE, model={"image_size": SIDE}))
    with pytest.raises(SwinsError, match="need a model of any size"):
        SEGMENTATION.prepare(opened(fixed, **run), {"protocol": "mmseg"})


@pytest.mark.slow
def test_windows_and_averages_give_logits_of_pixels(tiny, monkeypatch):
    few = functools.partial(averaged, ratios=(1.0,))
    monkeypatch.setattr(segmentation_evaluation, "averaged", few)
    model, images, _ = tiny
    images = np.concatenate([images, images[:, :, ::-1]], 2)  # twice as wide
    facts = {**facts_of(11), "inference": "slide"}
    logits = SEGMENTATION.answering(model, facts).predict_on_batch(images)[LOGITS]
    assert logits.shape == (2, SIDE, 2 * SIDE, 11)
    mean = keras.ops.convert_to_numpy(few(model, images))
    several = SEGMENTATION.answering(model, {**facts, "inference": "averaged"}).predict_on_batch(images)[LOGITS]
    np.testing.assert_allclose(several, mean, atol=1e-5)
    plain = SEGMENTATION.answering(model, {**facts, "inference": "whole"}).predict_on_batch(images)[LOGITS]
    assert plain.shape == (2, SIDE // 2, SIDE, 11)
    ours = segmentation_export.answering(model)(images)
    expected = keras.ops.convert_to_numpy(whole(model, images)).argmax(-1)
    assert (keras.ops.convert_to_numpy(ours["masks"]) == expected).mean() > 0.999


def test_settings_are_what_a_run_that_goes_on_reads_back():
    for recipe in (RECIPE, Segmentation(loss=Loss(class_weights=(1.0, 2.0)), data=Data(void=(7,), classes=("a", "b")))):
        assert json.loads(json.dumps(as_json(recipe))) == as_json(recipe)
        assert dataclasses.asdict(recipe.data.values)["void"] == recipe.data.void


@pytest.mark.slow
def test_what_cannot_be_is_refused():
    with pytest.raises(SwinsError, match=r"model\.name must be a segmenter's; got ssd64"):
        SEGMENTATION.network(changed(RECIPE, model={"name": "ssd64_swin_mini_b", "image_size": 64}), pair()[0])
    with pytest.raises(SwinsError, match=r"data\.size and data\.validation must be the model's image_size"):
        SEGMENTATION.network(changed(RECIPE, model={"image_size": 64}), pair()[0])
    with pytest.raises(SwinsError, match=r"optim\.layer_decay is of classifiers"):
        Segmentation(optim=AdamW(layer_decay=0.5))
    with pytest.raises(SwinsError, match=r"loss\.class_weights must be"):
        Segmentation(loss=Loss(class_weights="inverse"))
    with pytest.raises(SwinsError, match=r"num_classes must be the data's; got 5 and 11"):
        SEGMENTATION.network(changed(RECIPE, model={"num_classes": 5}), pair()[0])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of images and masks, as CamVid's: 6 canvases to train on, 3 to validate, of several sizes."""
    folder = tmp_path_factory.mktemp("data") / "mine"
    for part, count in (("train", 6), ("val", 3)):
        garments = Garments(
            "demo/fashion_mnist", part, count=count, size=SIDE, objects=(1, 1), scale=(16, 30), colour=False
        )
        for kind in ("images", "masks"):
            (folder / kind / part).mkdir(parents=True)
        for i in range(count):
            canvas, size = garments[i], (SIDE + 8 * i, SIDE)
            for kind, pixels in (("images", canvas.image), ("masks", canvas.semantic)):
                Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST).save(folder / kind / part / f"{i}.png")
    names = ("background", *(name.replace("/", " or ") for name in garments.classes))
    (folder / "classes.txt").write_text("\n".join(names))
    return folder


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """The folder of a finished run; tests must not change it."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    loop.train(RECIPE, data, folder, say=quiet)
    return folder


@pytest.mark.slow
@pytest.mark.backends
def test_a_run_is_evaluated_and_predicts(run, data, command, tmp_path):
    (row,), result = log(run), json.loads((run / "result.json").read_text())
    assert float(row["loss"]) > 0 and {"val_mIoU", "val_mAcc", "val_aAcc"} <= set(row)
    assert result["task"] == "segmentation" and result["classes"][0] == "background"
    assert task_of(keras.saving.load_model(run / "model.keras")) is SEGMENTATION
    code, out, err = command("eval", run, "--data", data, "--quiet", "--batch", 2, "--predictions", tmp_path / "p.csv")
    assert code == 0, err
    assert json.loads(out)["mIoU"] == pytest.approx(result["mIoU"], abs=1e-5)
    assert (tmp_path / "p_classes.csv").read_text().startswith("label,name,pixels,IoU,Acc\n0,background,")
    code, out, err = command("eval", run, "--data", data, "--quiet", "--protocol", "mmseg", "--inference", "slide")
    assert code == 0 and json.loads(out)["protocol"] == "mmseg slide", err  # images of three sizes, one at a time
    pictures = sorted((data / "images" / "val").glob("*.png"))
    code, out, err = command("predict", *pictures, "-m", run, "-o", tmp_path / "d", "--json", tmp_path / "r.json")
    assert code == 0 and "%" in out, err
    first, *_, last = json.loads((tmp_path / "r.json").read_text())
    assert first["size"] == [SIDE, SIDE] and last["size"] == [SIDE, SIDE + 16]
    with Image.open(tmp_path / "d" / "2_mask.png") as mask, Image.open(tmp_path / "d" / "2.png") as drawn:
        assert mask.mode == "P" and mask.size == (SIDE + 16, SIDE) and drawn.width == 480
        assert (np.array(mask) == swins.load(run)(pictures[2]).mask).all()


@pytest.mark.slow
def test_killed_on_its_way_it_ends_as_if_it_had_not_been(run, data, tmp_path, monkeypatch):
    train_with_a_kill(RECIPE, data, tmp_path / "run", monkeypatch, step=2)
    for ours, theirs in zip(log(tmp_path / "run"), log(run), strict=True):
        assert float(ours["loss"]) == pytest.approx(float(theirs["loss"]), rel=1e-4)
        assert float(ours["val_loss"]) == pytest.approx(float(theirs["val_loss"]), rel=1e-3)


@pytest.mark.slow
@needs_tensorflow
def test_exports_give_the_predictors_masks(run, data, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments in ((run, "--deploy", "-o", "out"), ("out", "--to", "onnx", "litert", "openvino")):
        code, _, err = command("export", *arguments)
        assert code == 0, err
    certificate = json.loads((tmp_path / "out" / "certificate.json").read_text())
    assert certificate["exports"]["saved_model_deploy"]["call"] <= 1e-5
    proof = certificate["exports"]["saved_model"]
    assert proof["output"] == "logits, masks" and proof["pixels_from_pillow"] <= 1e-6
    assert set(certificate["targets"]) == {"model.onnx", "model.tflite", "model.xml"}
    assert "$" not in (tmp_path / "out" / "README.md").read_text()
    pictures = sorted(map(str, (data / "images" / "val").glob("*.png")))
    for ours, theirs in zip(swins.load(run)(pictures), swins.load("out/saved_model")(pictures), strict=True):
        assert (ours.mask == theirs.mask).mean() > 0.999
    import tensorflow as tf

    files = [tf.io.read_file(path) for path in pictures]
    masks = tf.saved_model.load("out/saved_model").signatures["serving_bytes"](image_bytes=tf.stack(files))["masks"]
    for mask, result in zip(masks.numpy(), swins.load(run)(pictures), strict=True):
        height, width = result.mask.shape
        assert (mask[:height, :width] == result.mask).mean() > 0.99 and (mask[height:] == IGNORED).all()
    code, out, err = command("verify", "out")
    assert code == 0 and "model.onnx" in out, err


@pytest.mark.slow
def test_other_classes_begin_with_fresh_classifiers_that_are_named(run):
    recipe = changed(RECIPE, model={"weights": str(run)})
    few = dataclasses.replace(pair()[0], classes=("a", "b", "c"))
    with pytest.warns(UserWarning, match="fresh are auxiliary_conv_seg, conv_seg"):
        assert SEGMENTATION.network(recipe, few).numbers.num_classes == 3


@pytest.mark.slow
def test_mixed_precision_keeps_losses_in_float32():
    recipe = changed(RECIPE, model={"dtype": "mixed_bfloat16"}, augment={"flip": 0.5})
    model = network(recipe)
    images, arrays = batch_of(recipe, model)
    losses = SEGMENTATION.losses(recipe, model, arrays, model(images, training=True))
    assert all(keras.backend.standardize_dtype(value.dtype) == "float32" for value in losses.values())
    assert np.isfinite(list(floats(losses).values())).all()


def test_crops_keep_the_loop_in_one_shape(tiny):
    recipe = dataclasses.replace(RECIPE, augment=ScaleAndCrop(short=SIDE, long=4 * SIDE))
    images, arrays = batch_of(recipe, tiny[0])
    assert images.shape == (2, SIDE, SIDE, 1) and arrays["masks"].shape == (2, SIDE, SIDE)
