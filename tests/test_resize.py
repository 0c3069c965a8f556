"""Tables and models for other sizes: against torch's bicubic and timm's set_input_size, and what must not change."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from test_models import SMALL, moved
from test_v1 import REFERENCE, TOLERANCE, relative
from test_v1 import load as load_arrays

import swins
from swins import bias_tables
from swins.weights import checkpoint_files, swin_rules

TIMM = """
import json, sys, numpy as np, timm, torch
from safetensors.torch import save_file
from make import perturb
folder, cases = sys.argv[1], json.loads(sys.argv[2])
torch.manual_seed(4)
for name, (size, window, pretrained) in cases.items():
    more = {"pretrained_window_sizes": (pretrained,) * 4} if pretrained else {}
    model = perturb(timm.create_model(name, num_classes=11, **more))
    save_file(model.state_dict(), f"{folder}/{name}.safetensors")
    model.set_input_size(img_size=size, window_size=window)
    x = torch.randn(1, 3, size, size)
    tables = {k: v.numpy() for k, v in model.state_dict().items() if k.endswith("bias_table")}
    with torch.no_grad():
        np.savez(f"{folder}/{name}.npz", x=x.permute(0, 2, 3, 1), y=model(x), **tables)
"""
PUBLISHED = {  # name: pixels and window after, window of pretraining that timm's V2 must be told
    "swin_tiny_patch4_window7_224": (384, 12, 0),
    "swinv2_tiny_window8_256": (384, 12, 8),
}
MODELS = {  # name in reference/make.py: class, before, after
    "v1": (swins.SwinTransformer, {}, {"image_size": 48, "window_size": 12}),
    "v1_clipped": (swins.SwinTransformer, {"image_size": (10, 26)}, {"image_size": (30, 20), "window_size": 7}),
    "v2": (swins.SwinTransformerV2, {}, {"image_size": 48, "window_size": 12}),
    "v2_explicit": (swins.SwinTransformerV2, {"pretrained_windows": (3, 2)}, {"image_size": 20, "window_size": 5}),
}
V1_AND_V2 = pytest.mark.parametrize("family", [swins.SwinTransformer, swins.SwinTransformerV2])


def cases():
    with np.load(REFERENCE / "tables.npz") as file:
        arrays = dict(file)
    count = len({name.partition("/")[0] for name in arrays})
    return [{key: arrays[f"{i}/{key}"] for key in ("windows", "table", "timm", "microsoft")} for i in range(count)]


def windows_of(model):
    return [layer.window_size for layer in model.layers if "_blocks_" in layer.name]


def assert_same_weights(ours, theirs):
    for a, b in zip(ours.weights, theirs.weights, strict=True):
        assert a.path == b.path
        np.testing.assert_array_equal(a, b, err_msg=a.path)


@pytest.mark.parametrize("interpolation", bias_tables.INTERPOLATIONS)
@pytest.mark.parametrize("case", cases(), ids=lambda c: "to".join("x".join(map(str, w)) for w in c["windows"]))
def test_tables_equal_torchs_and_timms(case, interpolation):
    old, new = (tuple(map(int, window)) for window in case["windows"])
    resized = bias_tables.resize_table(case["table"], old, new, interpolation)
    assert resized.dtype == np.float32
    assert relative(resized, case[interpolation]) <= 1e-6
    if old == new:
        assert resized is case["table"]


def test_the_two_interpolations_differ():
    case = cases()[0]
    assert np.abs(case["timm"] - case["microsoft"]).max() > 0.1


def test_small_matrices_by_hand():
    # centres lie a quarter before and behind each of 3 points; with a = -0.75 the kernel is 0.87890625 at 0.25,
    # 0.26171875 at 0.75, -0.10546875 at 1.25 and -0.03515625 at 1.75, and the border takes what falls outside
    half = [[1.10546875, -0.10546875, 0], [0.7734375, 0.26171875, -0.03515625], [0.2265625, 0.87890625, -0.10546875]]
    np.testing.assert_allclose(bias_tables.bicubic(3, 6), half + [row[::-1] for row in half[::-1]])
    # an offset of 1 cannot be spread; growing repeats the last
    np.testing.assert_allclose(bias_tables.geometric(3, 5), [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]])
    # shrinking crops, where offsets 1 and 2.01 were kept apart
    np.testing.assert_allclose(bias_tables.geometric(5, 3), np.eye(5)[1:4])


@pytest.mark.slow
@V1_AND_V2
def test_the_same_size_is_a_copy(family, rng):
    model = moved(family(**SMALL, num_classes=5, name="mine"))
    x = rng.standard_normal((2, 32, 32, 3), dtype="float32")
    for sizes in ({}, {"image_size": 32, "window_size": 4}):
        same = swins.resize(model, **sizes, interpolation="microsoft")
        assert same is not model and type(same) is family and same.get_config() == model.get_config()
        assert_same_weights(same, model)
        np.testing.assert_array_equal(same(x), model(x))
    same.get_layer("head").bias.assign_add(np.ones(5))
    assert not np.array_equal(same(x), model(x))  # nothing is shared


@pytest.mark.slow
@pytest.mark.backends
@pytest.mark.parametrize("name", MODELS)
def test_models_equal_timms_after_set_input_size(name, tmp_path):
    arrays, state = load_arrays(f"resized_{name}")
    family, before, after = MODELS[name]
    numbers = {"image_size": 28, "patch_size": 2, "window_size": 7, "depths": (2, 2), "num_heads": (2, 4), **before}
    model = family(**numbers, embed_dim=16, num_classes=7)
    swin_rules.assign(model, state)
    resized = swins.resize(model, **after)
    assert not set(windows_of(resized)) & set(windows_of(model))
    predicted = resized.predict(arrays["x"], verbose=0)
    assert relative(predicted, arrays["y"]) <= TOLERANCE
    np.testing.assert_array_equal(resized.get_layer("head").kernel, state["head.fc.weight"].T)
    resized.save(tmp_path / "resized.keras")
    again = keras.saving.load_model(tmp_path / "resized.keras")
    assert again.get_config() == resized.get_config()
    assert_same_weights(again, resized)
    np.testing.assert_array_equal(again.predict(arrays["x"], verbose=0), predicted)


@pytest.fixture(scope="module")
def timms(tmp_path_factory):
    """A folder with timm's perturbed weights of PUBLISHED, and inputs, outputs and tables after set_input_size."""
    folder = tmp_path_factory.mktemp("timm")
    environment = {**os.environ, "PYTHONPATH": str(REFERENCE), "HF_HUB_OFFLINE": "1"}
    arguments = ["-W", "ignore", "-c", TIMM, str(folder), json.dumps(PUBLISHED)]
    subprocess.run([sys.executable, *arguments], check=True, env=environment)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_equal_timms(name, timms):
    size, window, _ = PUBLISHED[name]
    resized = swins.resize(swins.create(name, weights=timms / f"{name}.safetensors"), size, window)
    with np.load(timms / f"{name}.npz") as file:
        theirs = dict(file)
    assert relative(resized(theirs.pop("x")), theirs.pop("y")) <= 2e-5
    assert len(theirs) == (12 if type(resized) is swins.SwinTransformer else 0)
    ours = swin_rules.state_dict(resized)
    for key, table in theirs.items():
        np.testing.assert_allclose(ours[key], table, rtol=0, atol=1e-6, err_msg=key)


def test_microsofts_tables_reach_the_model():
    model = moved(swins.SwinTransformer(**SMALL, num_classes=3))
    timm, microsoft = (swins.resize(model, 48, 6, interpolation=name) for name in ("timm", "microsoft"))
    path = "stages_1_blocks_0"
    table = np.asarray(model.get_layer(path).attn.relative_position_bias_table)
    for resized, name in ((timm, "timm"), (microsoft, "microsoft")):
        expected = bias_tables.resize_table(table, (4, 4), (6, 6), name)
        np.testing.assert_array_equal(resized.get_layer(path).attn.relative_position_bias_table, expected)
    changed = {a.path for a, b in zip(timm.weights, microsoft.weights, strict=True) if not np.array_equal(a, b)}
    assert len(changed) == 4 and all(path.endswith("bias_table") for path in changed)


def test_only_clipped_windows_change_with_the_image():
    model = moved(swins.SwinTransformer(**{**SMALL, "image_size": 12}))  # maps of 6 and 3 tokens, windows of 4 and 3
    larger = swins.resize(model, image_size=16)
    assert windows_of(larger) == [(4, 4)] * 4
    changed = {a.path for a, b in zip(model.weights, larger.weights, strict=True) if a.shape != b.shape}
    assert changed == {f"stages_1_blocks_{b}/attn/relative_position_bias_table" for b in range(2)}


@pytest.mark.slow
def test_v2_records_the_windows_its_weights_know():
    model = moved(swins.SwinTransformerV2(**{**SMALL, "image_size": 12}))
    larger = swins.resize(model, image_size=16)
    assert larger.variant.pretrained == ((0, 0), (3, 3))  # stage 0 keeps its window
    assert swins.resize(larger, window_size=3).variant.pretrained == ((4, 4), (3, 3))
    assert_same_weights(larger, model)
    # there and back: the same function
    x = np.random.default_rng(0).standard_normal((2, 12, 12, 3), dtype="float32")
    np.testing.assert_allclose(swins.resize(larger, image_size=12)(x), model(x), atol=1e-6)


@pytest.mark.slow
def test_policy_frozen_layers_and_name_are_kept():
    model = moved(swins.SwinTransformer(**SMALL, num_classes=3, dtype="mixed_bfloat16", frozen=("patch_embed",)))
    larger = swins.resize(model, image_size=48, window_size=6)
    assert (larger.name, larger.policy) == (model.name, "mixed_bfloat16")
    assert swins.resize(model, name="other").name == "other"
    frozen = {w.path for w in larger.weights} - {w.path for w in larger.trainable_weights}
    assert frozen == {w.path for w in larger.get_layer("patch_embed").weights}
    half = swins.resize(moved(swins.SwinTransformer(**SMALL, dtype="bfloat16")), window_size=6)
    assert keras.backend.standardize_dtype(half.get_layer("stages_0_blocks_0").weights[-1].dtype) == "bfloat16"


def test_what_cannot_work_is_refused():
    model = swins.SwinTransformer(**SMALL)
    for wrong, text in (
        (lambda: swins.resize(swins.backbone(model), 48), "only a Swin of this package is resized; got <Functional"),
        (lambda: swins.resize("swin_tiny_patch4_window7_224", 48), "got 'swin_tiny_patch4_window7_224'"),
        (lambda: swins.resize(model, 1), "image_size must hold at least one patch; got .* choose 2 or more"),
        (lambda: swins.resize(model, "large"), "image_size must be an integer or 2 integers; got 'large'"),
        (lambda: swins.resize(model, window_size=0), "must be at least 1"),
        (lambda: swins.resize(model, window_size=(4, 4, 4)), "window_size"),
        (lambda: swins.resize(model, interpolation="bicubic"), "unknown interpolation 'bicubic': .*timm"),
    ):
        with pytest.raises(swins.SwinsError, match=text):
            wrong()


def test_a_window_clipped_on_one_axis_is_remembered_as_it_was():
    clipped = swins.SwinTransformerV2(**{**SMALL, "image_size": (32, 12)})
    assert swins.resize(clipped, 64).variant.pretrained == ((0, 0), (4, 3))
    known = swins.SwinTransformerV2(**{**SMALL, "image_size": (32, 12)}, pretrained_windows=4)
    assert swins.resize(known, 64).variant.pretrained == ((4, 4), (4, 4))


def test_a_resized_model_goes_back_to_torch(tmp_path):
    resized = swins.resize(moved(swins.SwinTransformer(**SMALL)), image_size=48, window_size=6)
    checkpoint_files.write(swin_rules.state_dict(resized), tmp_path / "resized.safetensors")
    again = swins.SwinTransformer(**resized.get_config())
    swin_rules.assign(again, checkpoint_files.read(tmp_path / "resized.safetensors").state)
    assert_same_weights(again, resized)
