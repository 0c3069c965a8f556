"""Instances as a kind of work: a small Mask R-CNN on canvases trains, is evaluated, predicts, is exported."""

import dataclasses
import io
import json

import keras
import numpy as np
import pytest
import small_variants
from PIL import Image
from shared_fixtures import ROOT, needs_tensorflow
from training import COMPILED, changed, eagerly, log, one_program, quiet, train_with_a_kill

import swins
from swins import changes, detector_checkpoints, recipes
from swins.data.garment_files import write_coco
from swins.data.garments import Garments
from swins.data.instance_augment import CropOrScale, KeepRatio
from swins.errors import SwinsError
from swins.images import open_image
from swins.keep_ratio import KeepRatioPreprocess, scaled_sides
from swins.recipes import AdamW, Cosine, as_json
from swins.task import task_of
from swins.tasks import instances_evaluation, instances_export
from swins.tasks.instances import INSTANCES, Data, Instances, Loss, Model, Selection
from swins.train import loop, optimisers
from swins.weights import rcnn_rules

SIDE, OBJECTS = 64, 4
CANVASES = ((64, 64), (64, 96))
DATA = "garments:demo/fashion_mnist,count=8,size=64,objects=0-2,scale=16-40"
RECIPE = Instances(
    model=Model(small_variants.MASK_RCNN, compile=COMPILED),
    data=Data(batch=2, objects=OBJECTS, threads=1),
    augment=KeepRatio(short=(64,), long=96, canvases=CANVASES[:1]),
    loss=Loss(candidates=20, proposals=16, anchors=16, regions=8),
    optim=AdamW(learning_rate=1e-3, per_images=0),
    schedule=Cosine(warmup_epochs=0),
    selection=Selection(min_score=0.01, boxes=8, candidates=20, proposals=20),
    epochs=1,
)
PREPARE = KeepRatioPreprocess(64, 96, CANVASES[1:], (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))


def network(recipe=RECIPE, classes=10):
    """A fresh network of a recipe."""
    model = recipe.model
    return swins.create(model.name, num_classes=classes, **model.options())


def batch_of(recipe, model, count=2):
    """(images, arrays) of the first training samples."""
    training, _ = INSTANCES.splits(DATA, recipe)
    reading = INSTANCES.training(recipe, INSTANCES.preparation(recipe, model, ()), training)
    samples = []
    for i in range(count):
        _, image, truth = training[i]
        size = None if not reading.sizes else reading.sizes[0][0]
        samples.append(reading.sample(open_image(image), truth, np.random.default_rng(i), size))
    return reading.batch(samples, np.random.default_rng(0))


def floats(values):
    return {name: float(np.sum(keras.ops.convert_to_numpy(value))) for name, value in values.items()}


@pytest.fixture(scope="module")
def tiny():
    """A network, and a batch for it."""
    model = network()
    return model, *batch_of(RECIPE, model)


def test_samples_have_static_shapes_and_the_same_numbers_again():
    model, recipe = network(), dataclasses.replace(RECIPE, augment=CropOrScale(short=(64, 48), canvases=CANVASES[1:]))
    first, second = (batch_of(recipe, model) for _ in range(2))
    assert first[0].shape == (2, 64, 96, 3) and first[0].dtype == np.float32
    anchors = 3 * sum(-(-64 // s) * -(-96 // s) for s in model.strides)
    assert {name: (array.shape, array.dtype.name) for name, array in first[1].items()} == {
        "boxes": ((2, OBJECTS, 4), "float32"),
        "labels": ((2, OBJECTS), "int64"),
        "valid": ((2, OBJECTS), "bool"),
        "sizes": ((2, 2), "int32"),
        "masks": ((2, OBJECTS, 64, 12), "uint8"),
        "anchor_numbers": ((2, anchors), "float32"),
        "region_numbers": ((2, OBJECTS + 16), "float32"),
    }
    for one, other in zip(keras.tree.flatten(first), keras.tree.flatten(second), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@pytest.mark.backends
def test_losses_have_names_and_fillers_count_not(tiny):
    model, images, arrays = tiny
    outputs = one_program(lambda images: model(images, training=False))(images)

    @one_program
    def losses(arrays, outputs):
        return INSTANCES.losses(RECIPE, model, arrays, outputs)

    whole = floats(losses(arrays, outputs))
    assert set(whole) == {"rpn_class", "rpn_box", "class", "box", "mask"}
    assert all(np.isfinite(value) for value in whole.values()) and 0.5 < whole["rpn_class"] < 1 and whole["class"] > 1
    again = floats(losses(arrays, outputs))
    assert again == whole
    weighted = floats(losses({**arrays, "weight": np.float32([1, 0])}, outputs))
    alone = {name: array[:1] for name, array in arrays.items()}
    one = keras.tree.map_structure(lambda x: x[:1], outputs)
    for name, value in floats(losses(alone, one)).items():
        assert weighted[name] == pytest.approx(value / 2, abs=1e-5)
    nothing = {**arrays, "valid": np.zeros_like(arrays["valid"])}
    empty = floats(losses(nothing, outputs))
    assert empty["rpn_box"] == empty["box"] == empty["mask"] == 0 < empty["rpn_class"] + empty["class"] < 100


@pytest.mark.slow
def test_boxes_alone_need_no_masks():
    recipe = changed(RECIPE, model={"masks": False})
    model = network(recipe)
    images, arrays = batch_of(recipe, model)
    assert "masks" not in arrays and model.numbers.masks is False
    losses = INSTANCES.losses(recipe, model, arrays, model(images))
    assert list(losses) == ["rpn_class", "rpn_box", "class", "box"]
    scores = INSTANCES.score([])
    assert list(scores)[:2] == ["AP", "mask_AP"] and scores["mask_AP"] is None


@pytest.mark.slow
@pytest.mark.backends
def test_a_cascade_has_the_losses_of_its_stages_and_its_norms_train():
    recipe = changed(RECIPE, model={"name": "cascade_mask_rcnn_swin_tiny_fpn"})
    pyramid = swins.backbone("swin_mini_patch2_window4_28", image_size=(None, None), in_chans=3, norms=True)
    model = swins.CascadeMaskRCNN(pyramid, num_classes=10, width=8, hidden=8)
    images, arrays = batch_of(recipe, model)
    assert arrays["region_numbers_2"].shape == (2, OBJECTS + 8)
    norms = [v for v in model.non_trainable_variables if "moving" in v.path]
    before = [keras.ops.convert_to_numpy(v) for v in norms]
    outputs = one_program(model)(images)
    losses = floats(
        one_program(lambda arrays, outputs: INSTANCES.losses(recipe, model, arrays, outputs))(arrays, outputs)
    )
    stages = [f"{name}_{stage}" for stage in range(3) for name in ("class", "box", "mask")]
    assert set(losses) == {"rpn_class", "rpn_box", *stages} and np.isfinite(list(losses.values())).all()
    assert norms and all(np.array_equal(a, keras.ops.convert_to_numpy(b)) for a, b in zip(before, norms, strict=True))

    @one_program
    def trained(arrays, outputs):
        with keras.StatelessScope() as scope:
            INSTANCES.losses(recipe, model, arrays, outputs, training=True)
        return [scope.get_current_value(norm) for norm in norms]

    after = trained(arrays, outputs)
    assert not any(value is None for value in after)  # each is given another value
    assert not any(np.array_equal(a, keras.ops.convert_to_numpy(b)) for a, b in zip(before, after, strict=True))


def test_images_end_where_their_padding_begins():
    images = np.zeros((3, 64, 96, 3), "float32")
    images[0, :40, :96] = images[1, :64, :50, 1] = 1
    sizes = keras.ops.convert_to_numpy(instances_evaluation.content_sizes(images))
    assert sizes.tolist() == [[40, 96], [64, 50], [1, 1]]


def outputs_of(boxes, most=3):
    """What a network decides, of one image: boxes on its canvas, whose masks are their left halves."""
    count = len(boxes)
    masks = np.zeros((1, most, 28, 28), "float32")
    masks[:, :count, :, :14] = 1
    return {
        "boxes": np.concatenate([np.float32(boxes), np.zeros((most - count, 4), "float32")])[None],
        "scores": np.linspace(0.9, 0.1, most, dtype="float32")[None],
        "labels": np.int32([[0] * count + [-1] * (most - count)]),
        "count": np.int32([count]),
        "masks": masks,
    }


def test_answers_are_in_the_images_own_pixels():
    facts = {"classes": ["bag"], "preprocess": json.loads(json.dumps(instances_evaluation.as_facts(PREPARE)))}
    size = (100, 120)  # 64x77 on its canvas
    (found,) = INSTANCES.answers(outputs_of([[0, 0, 77, 64], [7.7, 6.4, 38.5, 32]]), facts, [size])
    np.testing.assert_allclose(found.boxes, [[0, 0, 120, 100], [12, 10, 60, 50]], atol=1e-4)
    assert found.masks.shape == (2, 100, 120) and found.names == ("bag", "bag")
    left, right = found.masks[0, 2:-2, 2:60], found.masks[0, :, 60:]  # corners are round
    assert left.all() and not right.any() and abs(found.masks[1].sum() - 24 * 40) < 10
    (line, _) = found.to_coco(1, [7])
    assert line["segmentation"]["size"] == [100, 120]


def test_what_exports_do_in_their_graph_is_what_predictors_do():
    rng, facts = np.random.default_rng(0), {"classes": ["bag"], "preprocess": instances_evaluation.as_facts(PREPARE)}
    sizes = rng.integers(5, 300, (40, 2)).astype("int32")
    scaled = keras.ops.convert_to_numpy(instances_export.scaled(sizes, PREPARE))
    assert scaled.astype(int).tolist() == [list(PREPARE.scaled(tuple(map(int, size)))) for size in sizes]
    outputs, size = outputs_of([[0, 0, 77, 64], [7.7, 6.4, 38.5, 32]]), (100, 120)
    exported = instances_export.in_pixels(PREPARE, outputs, np.int32([size]))
    (found,) = INSTANCES.answers(outputs, facts, [size])
    boxes, masks = (keras.ops.convert_to_numpy(exported[name])[0, :2] for name in ("boxes", "masks"))
    np.testing.assert_allclose(boxes, found.boxes, atol=1e-4)
    assert (masks == found.masks).mean() > 0.999


@pytest.mark.slow
@pytest.mark.parametrize("size", [(480, 640), (640, 480), (427, 640), (2000, 3000), (500, 500)])
def test_photographs_for_published_weights_are_as_large_as_in_mmdetection(size):
    """Which pads to multiples of 32; a SavedModel has one canvas for all of them."""
    prepare = instances_evaluation.published(network())
    shown = prepare.scaled(size)
    assert shown == scaled_sides(size, 800, 1333)
    assert prepare(np.zeros((*size, 3), "uint8")).shape == (*(-(-side // 32) * 32 for side in shown), 3)
    served = instances_export.serving(network(), {})
    assert served.canvases == ((1344, 1344),) and served.scaled(size) == shown


def test_published_weights_of_one_size_have_that_canvas():
    pyramid = swins.backbone("swin_mini_patch2_window4_28", image_size=(64, 96), norms=True)
    model = swins.MaskRCNN(pyramid, num_classes=2, width=8, hidden=8)
    assert instances_evaluation.published(model).canvases == ((64, 96),)


@needs_tensorflow
@pytest.mark.parametrize("size", [(64, 96), (40, 31), (97, 150), (33, 200)])
@pytest.mark.parametrize("grey", [False, True])
def test_files_are_laid_on_canvases_as_images_are(size, grey):
    from swins.exports.saved_model_writer import decoder

    prepare = dataclasses.replace(PREPARE, mean=(0.3,), std=(0.2,)) if grey else PREPARE
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), "uint8")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    image, own = decoder(prepare, sized=True)(buffer.getvalue())
    assert own.numpy().tolist() == list(size)
    np.testing.assert_allclose(image.numpy(), prepare(buffer.getvalue()), atol=1e-5)


def test_settings_are_what_a_run_that_goes_on_reads_back():
    assert json.loads(json.dumps(as_json(RECIPE))) == as_json(RECIPE)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mask_rcnn_swin_tiny_1x", "mask_rcnn_swin_tiny_3x", "cascade_mask_rcnn_swin_tiny_3x"])
def test_recipes_decay_what_the_references_configurations_do(kind):
    """All but what their custom_keys name: biases decay, and a cascade's batch norms, which are called bn."""
    optim = recipes.load(ROOT / "recipes" / f"{kind}.py").optim
    network = swins.CascadeMaskRCNN if "cascade" in kind else swins.MaskRCNN
    pyramid = swins.backbone("swin_mini_patch2_window4_28", image_size=(None, None), norms=True)
    model = network(pyramid, num_classes=2, width=8, hidden=8)
    groups = optimisers.groups(model.trainable_variables, optim)
    variables = detector_checkpoints.by_path(model, changes.variables(model))
    names = rcnn_rules.table_of(variables).filled
    trained = {path: variable.path for path, variable in variables.items() if variable.path in groups}
    decays = {names[path].torch_name: groups[own].weight_decay for path, own in trained.items()}
    assert len(decays) == len(groups) == len(model.trainable_variables)
    custom_keys = "absolute_pos_embed", "relative_position_bias_table", "norm"
    assert decays == {name: 0.0 if any(key in name for key in custom_keys) else 0.05 for name in decays}
    assert decays["rpn_head.rpn_cls.bias"] and not decays["patch_embed.norm.weight"]


def test_what_cannot_be_is_refused():
    with pytest.raises(SwinsError, match=r"model\.name must be a Mask R-CNN's; got ssd64"):
        recipe = changed(RECIPE, model={"name": "ssd64_swin_mini_b"})
        INSTANCES.network(recipe, INSTANCES.splits(DATA, RECIPE)[0])
    with pytest.raises(SwinsError, match=r"loss\.regions times loss\.region_share must be at least 1; got 0"):
        Instances(loss=Loss(regions=3))
    with pytest.raises(SwinsError, match=r"optim\.layer_decay is of classifiers"):
        Instances(optim=AdamW(layer_decay=0.5))


@pytest.fixture(scope="module")
def run(canvases, tmp_path_factory):
    """The folder of a finished run; tests must not change it."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with eagerly():
        loop.train(RECIPE, canvases, folder, say=quiet)
    return folder


@pytest.fixture(scope="module")
def canvases(tmp_path_factory):
    """A folder of COCO's layout with masks: 6 canvases to train on, 3 to validate."""
    folder = tmp_path_factory.mktemp("data") / "canvases"
    for part, count in (("train", 6), ("val", 3)):
        garments = Garments("demo/fashion_mnist", part, count=count, size=SIDE, objects=(1, 2), scale=(16, 40))
        write_coco(garments, folder, tuple(range(3, 13)))
    return folder


@pytest.mark.slow
@pytest.mark.backends
def test_a_run_is_evaluated_and_predicts(run, canvases, command, tmp_path):
    (row,), result = log(run), json.loads((run / "result.json").read_text())
    assert float(row["loss"]) > 0 and {"val_AP", "val_mask_AP"} <= set(row)
    assert result["task"] == "instances" and result["category_ids"] == list(range(3, 13))
    assert task_of(keras.saving.load_model(run / "model.keras")) is INSTANCES
    code, out, err = command("eval", run, "--data", canvases, "--quiet", "--batch", 2)
    assert code == 0, err
    for name in ("AP", "mask_AP"):
        assert json.loads(out)[name] == pytest.approx(result[name], abs=1e-4)
    picture = next((canvases / "images" / "val").glob("*.png"))
    code, _, err = command("predict", picture, "-m", run, "-o", tmp_path / "d", "--json", tmp_path / "r.json")
    assert code == 0 and (tmp_path / "d" / f"{picture.stem}.png").is_file(), err
    for line in json.loads((tmp_path / "r.json").read_text()):
        assert line["segmentation"]["size"] == [SIDE, SIDE] and 3 <= line["category_id"] <= 12


@pytest.mark.slow
@needs_tensorflow
def test_canvases_of_two_sizes_share_a_graph():
    import tensorflow as tf

    from swins.train.input_pipeline import of_any_size

    model = network()
    batches = [batch_of(changed(RECIPE, augment={"canvases": (canvas,)}), model) for canvas in CANVASES]
    dataset = of_any_size([batches[0], *batches], batches)
    images, arrays = dataset.element_spec
    assert images.shape == (None, 64, None, 3) and arrays["anchor_numbers"].shape == (None, None)
    assert arrays["boxes"].shape == (None, OBJECTS, 4)

    @tf.function(autograph=False)
    def losses(images, arrays):
        return INSTANCES.losses(RECIPE, model, arrays, model(images))

    graph = losses.get_concrete_function(*dataset.element_spec)
    for batch in dataset:
        assert np.isfinite(list(floats(graph(*batch)).values())).all()


@pytest.mark.slow
def test_killed_on_its_way_it_ends_as_if_it_had_not_been(run, canvases, tmp_path, monkeypatch):
    with eagerly():
        train_with_a_kill(RECIPE, canvases, tmp_path / "run", monkeypatch, step=2)
    for ours, theirs in zip(log(tmp_path / "run"), log(run), strict=True):
        assert float(ours["loss"]) == pytest.approx(float(theirs["loss"]), rel=1e-4)
        assert float(ours["val_loss"]) == pytest.approx(float(theirs["val_loss"]), rel=1e-3)


@pytest.mark.slow
@needs_tensorflow
def test_exports_give_the_predictors_objects(run, canvases, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = command("export", run, "-o", "out", "--to", "saved_model", "onnx", "openvino")
    assert code == 0, err
    certificate = json.loads((tmp_path / "out" / "certificate.json").read_text())
    proof, files = certificate["exports"]["saved_model"], certificate["targets"]
    assert proof["output"] == "boxes, scores, labels, count, masks" and proof["pixels_from_pillow"] < 1e-5
    for name in ("model.onnx", "model.xml"):  # of any size; LiteRT has no such
        assert max(files[name]["difference"].values()) <= 1e-5
    assert "$" not in (tmp_path / "out" / "README.md").read_text()
    pictures = sorted(map(str, (canvases / "images" / "val").glob("*.png")))
    for ours, theirs in zip(swins.load(run)(pictures), swins.load("out/saved_model")(pictures), strict=True):
        assert (ours.labels == theirs.labels).all() and np.abs(ours.boxes - theirs.boxes).max(initial=0) <= 1e-3
        assert (ours.masks == theirs.masks).mean() > 0.999


@pytest.mark.slow
def test_other_classes_begin_with_fresh_heads_that_are_named(run):
    recipe = changed(RECIPE, model={"weights": str(run)})
    training, _ = INSTANCES.splits(DATA, RECIPE)
    few = dataclasses.replace(training, classes=training.classes[:3])
    with pytest.warns(UserWarning, match="heads of other shapes are fresh: .*fc_cls.*conv_logits"):
        assert INSTANCES.network(recipe, few).numbers.num_classes == 3


@pytest.mark.slow
def test_mixed_precision_keeps_losses_in_float32():
    recipe = changed(RECIPE, model={"dtype": "mixed_bfloat16"})
    model = network(recipe)
    images, arrays = batch_of(recipe, model)
    losses = INSTANCES.losses(recipe, model, arrays, model(images))
    assert all(keras.backend.standardize_dtype(value.dtype) == "float32" for value in losses.values())
    assert np.isfinite(list(floats(losses).values())).all()
