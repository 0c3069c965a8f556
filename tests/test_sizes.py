"""Any size: fixed sizes against timm, open ones against torchvision, and one graph for all of them."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from shared_fixtures import script
from test_models import SMALL, moved
from test_v1 import relative
from training import one_program

import swins
from swins import tags
from swins.exports import saved_models
from swins.task import Part
from swins.tasks.classification import CLASSIFICATION
from swins.weights import artefacts, checkpoint_files, load, swin_rules

ROOT = pathlib.Path(__file__).parents[1]
ANY = (None, None)
FAMILIES = (swins.SwinTransformer, swins.SwinTransformerV2, swins.SwinTransformerV2CR)
SIZES = ((32, 32), (7, 5), (45, 30), (64, 64), (32, 32))  # multiples and not, smaller than a window, and again
tensorflow_only = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="graphs are TensorFlow's")


def pictures(*size):
    return np.random.default_rng(sum(size)).standard_normal((2, *size, 3), dtype="float32")


def numpy(x):
    return keras.ops.convert_to_numpy(x)


@pytest.fixture(scope="module")
def torchvision(tmp_path_factory):
    """A folder with small torchvision Swins of moved weights, v1.pth and v2.pth, and their logits at every size."""
    folder = tmp_path_factory.mktemp("torchvision")
    script = """
import sys, json, pathlib, functools, numpy as np, torch
from torchvision.models import swin_transformer as s
folder = pathlib.Path(sys.argv[1])
sizes = json.loads(sys.argv[2])
torch.manual_seed(0)
numbers = dict(patch_size=[2, 2], embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=[4, 4], num_classes=5)
models = {
    "v1": s.SwinTransformer(**numbers),
    "v2": s.SwinTransformer(**numbers, block=s.SwinTransformerBlockV2, downsample_layer=s.PatchMergingV2),
}
with torch.inference_mode():
    for name, model in models.items():
        for key, p in model.eval().named_parameters():
            p.add_(torch.randn_like(p) * (0.2 if p.ndim == 1 else p[0].numel() ** -0.5))
            if name == "v2" and key.endswith("qkv.bias"):
                p[len(p) // 3 : -(len(p) // 3)] = 0
        torch.save(model.state_dict(), folder / f"{name}.pth")
        for size in sizes:
            x = torch.from_numpy(np.load(folder / "{}x{}.npy".format(*size))).permute(0, 3, 1, 2).contiguous()
            np.save(folder / "{}_{}x{}.npy".format(name, *size), model(x).numpy())
"""
    for size in SIZES:
        np.save(folder / f"{size[0]}x{size[1]}.npy", pictures(*size))
    subprocess.run([sys.executable, "-c", script, folder, json.dumps(SIZES)], check=True, capture_output=True)
    return folder


@pytest.mark.slow
@pytest.mark.backends
@pytest.mark.parametrize("name", [pytest.param("v1", marks=pytest.mark.slow), "v2"])
def test_an_open_size_equals_torchvision_at_every_size(name, torchvision):
    family = dict(zip(("v1", "v2"), FAMILIES, strict=False))[name]
    numbers = {**SMALL, "num_classes": 5, "size_rule": "torchvision"}
    model = family(**{**numbers, "image_size": ANY})
    found = swins.weights.checkpoint_files.read(torchvision / f"{name}.pth")
    swin_rules.assign(model, found.state)
    for h, w in SIZES if keras.backend.backend() == "tensorflow" else SIZES[1:3]:
        theirs = np.load(torchvision / f"{name}_{h}x{w}.npy")
        assert relative(numpy(one_program(model)(pictures(h, w))), theirs) <= 2e-5
        fixed = family(**{**numbers, "image_size": (h, w)})  # pad_then_roll never clips: the weights fit every size
        swin_rules.assign(fixed, found.state)
        assert relative(numpy(one_program(fixed)(pictures(h, w))), theirs) <= 2e-5
    other = family(**{**numbers, "image_size": ANY, "size_rule": "timm"})
    swin_rules.assign(other, found.state)
    theirs = np.load(torchvision / f"{name}_45x30.npy")
    apart = relative(numpy(one_program(other)(pictures(45, 30))), theirs)
    assert apart > 1e-3  # the order matters, so the test can fail


@pytest.mark.slow
@tensorflow_only
@pytest.mark.parametrize("family", FAMILIES)
def test_one_graph_gives_every_size_its_numbers_in_any_order(family, tmp_path):
    import tensorflow as tf

    model = moved(family(**{**SMALL, "image_size": ANY, "window_size": 4}, num_classes=3))
    expected = {}
    for size in SIZES:
        numbers = {**model.get_config(), "image_size": size}
        if min(size) >= 16:  # maps of at least a window: timm's rule for fixed sizes does not clip, and both agree
            fixed = family(**numbers)
            fixed.set_weights(model.get_weights())
            assert relative(numpy(model(pictures(*size))), numpy(fixed(pictures(*size)))) <= 1e-6
        y = numpy(model(pictures(*size)))
        np.testing.assert_array_equal(y, expected.setdefault(size, y))
    spec = [tf.TensorSpec((None, None, None, 3), tf.float32)]
    for compiled in (False, True):
        graph = tf.function(model, input_signature=spec, jit_compile=compiled)
        seen = {}
        for size in SIZES:
            y = graph(pictures(*size)).numpy()
            assert relative(y, expected[size]) <= 1e-5
            np.testing.assert_array_equal(y, seen.setdefault(size, y))
    for size in SIZES:
        assert relative(model.predict(pictures(*size), verbose=0), expected[size]) <= 1e-5
    model.save(tmp_path / "open.keras")
    again = keras.saving.load_model(tmp_path / "open.keras")
    np.testing.assert_array_equal(numpy(again(pictures(45, 30))), expected[45, 30])


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(FAMILIES[0], marks=pytest.mark.slow),
        pytest.param(FAMILIES[1], marks=pytest.mark.slow),
        pytest.param(FAMILIES[2], marks=[pytest.mark.slow, pytest.mark.backends]),
    ],
)
def test_an_open_size_trains(family):
    model = moved(family(**{**SMALL, "image_size": ANY, "window_size": 4}, num_classes=3, drop_path_rate=0.1))
    model.compile(keras.optimizers.AdamW(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.optimizer.build(model.trainable_variables)  # before tracing, which is then done once
    losses = [float(model.train_on_batch(pictures(*size), np.arange(2))) for size in ((32, 32), (45, 30)) * 8]
    assert np.mean(losses[-2:]) < np.mean(losses[:2])


@pytest.mark.slow
def test_converting_and_exporting_an_open_size(checkpoint, tmp_path, command, converted, monkeypatch):
    one = dataclasses.replace(CLASSIFICATION, parts=lambda model, *_: {"saved_model": Part("logits", lambda: model)})
    monkeypatch.setattr(saved_models, "task_of", lambda *_: one)  # features: test_export.py
    name = "swin_mini_patch2_window4_28.fashion_mnist"
    folder = tmp_path / "open"
    code, _, err = command(
        "convert", "-m", name, "--checkpoint", checkpoint, "-o", folder, "--image-size", "any", "--export"
    )
    assert code == 0, err
    proof = artefacts.read_certificate(folder)
    assert (proof["image_size"], proof["size_rule"]) == ([None, None], "timm")
    import tensorflow as tf

    model, saved = artefacts.load_model(folder), tf.saved_model.load(folder / "saved_model")
    assert model.variant.image_size == ANY and "any number of pixels" in (folder / "README.md").read_text()
    for size in ((28, 28), (9, 40), (64, 50), (28, 28)):
        x = pictures(*size)[..., :1]
        assert relative(saved(x).numpy(), numpy(model(x))) <= 1e-5
    native = artefacts.load_model(converted)
    x = pictures(28, 28)[..., :1]
    assert relative(numpy(model(x)), numpy(native(x))) <= 1e-6
    assert command("verify", folder)[0] == 0
    # timm pads 14 tokens after rolling, so it does not confirm another rule: a program that has it does
    other = tmp_path / "other"
    code, out, err = command(
        "convert", "-m", name, "--checkpoint", checkpoint, "-o", other, "--size-rule", "torchvision"
    )
    assert code == 0, err
    assert "pass; translation not proven: timm was not run" in out and "compared with torchvision" in out
    assert artefacts.load_model(other).variant.size_rule == "torchvision"


@pytest.mark.slow
def test_names_opened_to_any_size_keep_their_native_windows():
    for name, windows in {
        "swinv2_tiny_window16_256": ((16, 16),) * 3 + ((8, 8),),
        "swinv2_cr_tiny_384": ((12, 12),) * 4,
        "swin_s3_tiny_224": ((7, 7), (7, 7), (14, 14), (7, 7)),
    }.items():
        model = swins.create(name, image_size=ANY, num_classes=2, depths=(1, 1, 1, 1))
        assert model.variant.windows == windows
        assert model.input.shape == (None, None, None, 3)


def test_windows_of_an_opened_class_are_those_of_its_own_numbers():
    for family in FAMILIES:
        model = family(**{**SMALL, "image_size": ANY, "window_size": None})
        assert len(model.variant.windows) == 2
    pyramid = swins.backbone(swins.Variant(**{**SMALL, "window_size": 12}), image_size=ANY)
    assert pyramid.get_layer("stages_1_blocks_0").window_size == (8, 8)  # as 32 pixels clip it


@pytest.mark.slow
def test_v2_weights_without_coordinates_keep_their_scale_in_other_windows(perturbed):
    name = "swinv2_tiny_window8_256"
    numbers = {"num_classes": 2, "depths": (1, 1, 1, 1)}
    assert swins.create(name, window_size=16, **numbers).variant.pretrained == ((0, 0),) * 4
    file = perturbed(name)
    model = swins.create(name, weights=file, window_size=16, image_size=512, num_classes=2)
    assert model.variant.pretrained == ((8, 8),) * 4
    with pytest.raises(swins.SwinsError, match="query_chunk must be at least 0; got -3"):
        swins.create(name, query_chunk=-3)
    assert swins.create(name, query_chunk=None, frozen=("patch_embed",), **numbers).options["query_chunk"] == 0


def test_images_that_cannot_go_through_name_the_sizes_that_can():
    fixed, open_size = swins.SwinTransformer(**SMALL), swins.SwinTransformer(**{**SMALL, "image_size": ANY})
    with pytest.raises(swins.SwinsError, match=r"takes images of the \(32, 32\) pixels.*got \(64, 32\).*swins.resize"):
        fixed(pictures(64, 32))
    with pytest.raises(swins.SwinsError, match=r"at least one patch; got \(1, 9\) pixels; use 2 or more"):
        open_size(pictures(1, 9))
    with pytest.raises(swins.SwinsError, match="image_size must be an integer or 2 integers"):
        swins.SwinTransformer(**{**SMALL, "image_size": (None, 32)})
    with pytest.raises(swins.SwinsError, match="costs grow with the image"):
        swins.describe.describe("open", open_size.variant)


@pytest.mark.slow
def test_v2_weights_refuse_windows_they_were_not_trained_with(torchvision, tmp_path):
    model = moved(swins.SwinTransformerV2(**{**SMALL, "image_size": 64}, num_classes=5))
    model.save(tmp_path / "v2.keras")
    source = swins.weights.load.read(tmp_path / "v2.keras")
    for numbers, refused in (({"window_size": 8}, True), ({"window_size": 8, "pretrained_windows": 4}, False)):
        other = swins.SwinTransformerV2(**{**SMALL, "image_size": 64, **numbers}, num_classes=5)
        if refused:
            with pytest.raises(
                swins.SwinsError, match=r"over \[\(4, 4\), \(4, 4\)\], the model over \[\(8, 8\), \(8, 8\)\]"
            ):
                swins.weights.load.load_weights(other, source)
        else:
            swins.weights.load.load_weights(other, source)
            np.testing.assert_array_equal(other.get_weights()[0], model.get_weights()[0])


def test_the_table_of_sizes_is_within_tolerance():
    sizes = script("in1k_eval/sizes.py")
    with open(sizes.TABLE, newline="") as file:
        rows = list(sizes.csv.DictReader(file))
    assert {(r["name"], r["size"]) for r in rows} == {(n, sizes.text(s)) for n in sizes.MODELS for s in sizes.SIZES}
    assert all(float(r["open_torchvision"]) <= 2e-5 and float(r["fixed_timm"]) <= 2e-5 for r in rows)


@pytest.mark.slow
def test_v2_at_another_size_is_timms_unless_the_file_states_its_windows(tmp_path):
    """timm divides offsets by the window that a map leaves; who knows the window of the weights divides by that."""
    model = moved(swins.SwinTransformerV2(**{**SMALL, "image_size": 64}, num_classes=5, name="v2"))
    swins.register_variant("swinv2_of_tests", model.variant)
    try:
        checkpoint_files.write(swin_rules.state_dict(model), tmp_path / "timm.safetensors")
        load.export_torch(save(model, tmp_path / "v2.keras"), tmp_path / "ours.safetensors")
        sizes = {"weights": tmp_path / "timm.safetensors", "image_size": 8}
        assert swins.create("swinv2_of_tests", **sizes).variant.pretrained == ((0, 0), (0, 0))
        assert swins.create("swinv2_of_tests", **sizes, window_size=2).variant.pretrained == ((4, 4), (4, 4))
        for file in ("v2.keras", "ours.safetensors"):
            other = swins.create("swinv2_of_tests", weights=tmp_path / file, image_size=8)
            assert other.variant.pretrained == ((0, 0), (4, 4))  # the map of stage 1 has 2 tokens a side
    finally:
        for table in (tags.VARIANTS, tags.PRETRAINED):
            table.pop("swinv2_of_tests")


def save(model, path):
    """The path of a .keras file of a model."""
    model.save(path)
    return path
