"""ResNets beside torchvision's: maps, weights both ways, what training does, and what files are refused."""

import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops
from test_v1 import relative

import swins
from swins.convert import conversion
from swins.describe import describe
from swins.errors import SwinsError
from swins.layer_depths import depths_of
from swins.model_configs import VARIANTS
from swins.resnet_plan import plan_resnet, resnet_costs
from swins.tags import PRETRAINED, look_up
from swins.weights import artefacts, checkpoint_files, identify, load, networks

SCRIPT = pathlib.Path(__file__).parent / "reference" / "resnets.py"
SIZES = ((97, 130), (224, 224), (300, 300))
ANY, B = (None, None), {"strides": (1, 2, 1, 2), "stages": 3}  # R-SSD's backbone B
SMALL, TINY = "resnet_small_test", "resnet_tiny_test"
BLOCK_EACH = {"depths": (1, 1, 1, 1), "num_classes": 5, "image_size": 64}


def pictures(size, count=1):
    return np.random.default_rng(size).standard_normal((count, *size, 3), dtype="float32")


def run(model, images):
    """Outputs of a model by name, as arrays; on JAX compiled, which there is quicker."""
    outputs = model.predict(images, verbose=0) if keras.backend.backend() == "jax" else model(images, training=False)
    return {name: ops.convert_to_numpy(y) for name, y in outputs.items()}


def maps_of(model, images):
    """A model's logits and pyramid for images, as arrays."""
    return run(keras.Model(model.input, {"logits": model.output, **model.pyramid}), images)


@pytest.fixture(autouse=True)
def small_variants(monkeypatch):
    """A block a stage: as torchvision can have it, and narrower."""
    small = swins.VariantResNet(**BLOCK_EACH)
    for name, variant in {SMALL: small, TINY: swins.VariantResNet(**BLOCK_EACH, width=8)}.items():
        monkeypatch.setitem(VARIANTS, name, variant)
        monkeypatch.setitem(PRETRAINED, name, ())


def of_torchvision(folder, network):
    """A folder of torchvision's ResNets, and what these give -> (folder, {name: array})."""
    command = [sys.executable, "-W", "ignore", SCRIPT, folder, json.dumps(SIZES), network]
    subprocess.run(command, check=True, capture_output=True)
    with np.load(folder / "outputs.npz") as file:
        return folder, dict(file)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """torchvision's ResNet of a block a stage: its file, and what it gives."""
    folder, outputs = of_torchvision(tmp_path_factory.mktemp("small"), "small")
    return folder / "small.pth", outputs


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of torchvision's resnet50, and what it gives."""
    return of_torchvision(tmp_path_factory.mktemp("resnet50"), "resnet50")


@pytest.fixture(scope="module")
def resnet50(whole):
    """torchvision's resnet50 here, for images of any size; tests must not change it."""
    return swins.create("resnet50", weights=whole[0] / "resnet50.pth", image_size=ANY)


@pytest.fixture
def tiny_state():
    """The tensors of a narrow ResNet, every one moved, under torchvision's names."""
    rng = np.random.default_rng(1)
    state = networks.state_dict(swins.create(TINY))
    return {name: value + rng.uniform(0.1, 0.5, value.shape).astype("float32") for name, value in state.items()}


def compare(ours, theirs, label, size):
    """Outputs by name beside those of a label, at 1e-5."""
    for name, y in ours.items():
        y_theirs = theirs[f"{label}/{size[0]}x{size[1]}/{name}"]
        assert y.shape == y_theirs.shape and relative(y, y_theirs) <= 1e-5, (label, size, name)


@pytest.mark.slow
def test_logits_and_maps_are_torchvisions(resnet50, whole):
    for size in SIZES:
        assert list(resnet50.pyramid) == ["P2", "P3", "P4", "P5"]
        compare(maps_of(resnet50, pictures(size)), whole[1], "resnet50", size)
    assert relative(maps_of(resnet50, pictures(SIZES[0]))["logits"], whole[1]["timm/logits"]) <= 1e-5


@pytest.mark.slow
def test_backbone_b_of_published_weights_is_torchvisions(whole, monkeypatch):
    hub = {("timm/resnet50.tv2_in1k", "model.safetensors"): whole[0] / "resnet50.safetensors"}
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *place, **_: hub[place])
    pyramid = swins.backbone("resnet50", weights="pretrained", image_size=ANY, **B)
    for size in SIZES:
        compare(pyramid(pictures(size)), whole[1], "cut", size)


@pytest.mark.slow
def test_backbone_b_is_torchvisions_with_the_same_changes(small):
    """layer3 at stride 1, no layer4: the last map at a stride stands."""
    pyramid = swins.backbone(SMALL, weights=small[0], image_size=ANY, **B)
    assert {level: y.shape[-1] for level, y in pyramid.output.items()} == {"P2": 256, "P3": 1024}
    assert not [layer.name for layer in pyramid.layers if layer.name.startswith(("layer4", "head"))]
    for size in SIZES:
        compare(pyramid(pictures(size)), small[1], "cut", size)
    variant = swins.VariantResNet(**{**BLOCK_EACH, **B, "image_size": 97})  # asks for its strides, as the options do
    other = swins.backbone(variant, weights=small[0])
    assert {level: y.shape[1:3] for level, y in other.output.items()} == {"P2": (25, 25), "P3": (13, 13)}


@pytest.mark.slow
def test_every_size_is_torchvisions(small):
    model = swins.create(SMALL, weights=small[0], image_size=ANY)
    for size in SIZES:
        compare(maps_of(model, pictures(size)), small[1], "small", size)


def step_places(name):
    """Values of a channel that a batch norm of `small` sees of two images of 97x130 pixels, by its tensor's name."""
    sizes = {"bn1": (49, 65), "layer1": (25, 33), "layer2": (13, 17), "layer3": (7, 9), "layer4": (4, 5)}
    layer, *rest = name.split(".")
    before_stride = rest[:2] == ["0", "bn1"] and layer != "layer1"
    return 2 * np.prod(sizes[f"layer{int(layer[-1]) - 1}" if before_stride else layer])


@pytest.mark.backends
def test_a_block_a_stage_is_torchvisions_in_inference_and_in_training(small):
    """Forward, and what a step leaves in the moving statistics; with the difference that `ResNet` tells of."""
    (file, theirs), size = small, SIZES[0]
    model = swins.create(SMALL, weights=file, image_size=size)
    compare(maps_of(model, pictures(size)), theirs, "small", size)
    before = networks.state_dict(model)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    loss = model.train_on_batch(pictures(size, 2), np.zeros((2, 5), "float32"))
    assert float(loss) == pytest.approx(np.mean(theirs["step/logits"] ** 2), rel=1e-4)
    checked = 0
    for name, value in networks.state_dict(model).items():
        if "running" not in name:
            np.testing.assert_array_equal(value, before[name])
            continue
        step, step_theirs = value - 0.9 * before[name], theirs[f"step/{name}"] - 0.9 * before[name]
        n = step_places(name)
        assert relative(step * n / (n - 1) if name.endswith("var") else step, step_theirs) <= 1e-4, name
        checked += 1
    assert checked == 2 * (1 + 4 * 4)


@pytest.mark.slow
@pytest.mark.backends
def test_a_training_step_by_fit(tiny_state, tmp_path):
    """Statistics move in a compiled step too, and a frozen batch norm's do not."""
    checkpoint_files.write(tiny_state, tmp_path / "tiny.safetensors")
    model = swins.create(TINY, weights=tmp_path / "tiny.safetensors", image_size=32, frozen=("bn1", "layer1_0_conv1"))
    before = networks.state_dict(model)
    model.compile(keras.optimizers.SGD(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(pictures((32, 32), 4), np.arange(4), batch_size=4, epochs=1, verbose=0)
    same = {name for name, value in networks.state_dict(model).items() if np.array_equal(value, before[name])}
    assert same == {"layer1.0.conv1.weight", *(f"bn1.{p}" for p in ("weight", "bias", "running_mean", "running_var"))}
    copy = swins.ResNet(**model.get_config())
    assert copy.get_config() == model.get_config() and not copy.get_layer("bn1").trainable


@pytest.mark.slow
def test_weights_both_ways_to_the_bit(whole, resnet50, tmp_path):
    file = checkpoint_files.read_safetensors(whole[0] / "resnet50.safetensors")
    counters = {name for name in file if name.endswith("num_batches_tracked")}
    checkpoint = checkpoint_files.read(whole[0] / "resnet50.pth")
    assert set(checkpoint.left_out) == counters and len(counters) == 53
    resnet50.save(tmp_path / "resnet50.keras")
    assert load.export_torch(tmp_path / "resnet50.keras", tmp_path / "back.safetensors") == 320 - 53
    back = checkpoint_files.read_safetensors(tmp_path / "back.safetensors")
    assert set(back) == set(file) - counters
    for name, value in back.items():
        assert value.dtype == file[name].dtype and value.tobytes() == file[name].tobytes(), name
    strict = "import sys, torchvision as t; from safetensors.torch import load_file as f; from timm import create_model"
    strict += "\nfor model in (t.models.resnet50(), create_model('resnet50')): model.load_state_dict(f(sys.argv[1]))"
    subprocess.run([sys.executable, "-W", "ignore", "-c", strict, tmp_path / "back.safetensors"], check=True)
    again = keras.saving.load_model(tmp_path / "resnet50.keras")
    x = pictures((64, 64))
    np.testing.assert_array_equal(again(x), resnet50(x))
    assert again.variant == resnet50.variant and again.get_config() == resnet50.get_config()


def test_parameters_and_costs_are_the_published_ones():
    resnet50 = swins.create("resnet50", image_size=ANY)
    count = sum(np.prod(v.shape) for v in resnet50.trainable_variables)
    trunk = sum(np.prod(v.shape) for v in resnet50.trainable_variables if not v.path.startswith("head/"))
    assert (count, trunk) == (25_557_032, 23_508_032)
    for name, parameters, gmacs in (("resnet50", 25_557_032, 4.089), ("resnet101", 44_549_160, 7.801)):
        costs = resnet_costs(look_up(name).variant)
        assert sum(cost[1] for cost in costs) == parameters
        assert sum(cost[2] for cost in costs) / 1e9 == pytest.approx(gmacs, abs=6e-4)  # torchvision's
    text = describe("resnet50", swins.VariantResNet(**{**B, "image_size": 300}))
    rows = {words[0]: words[1:6] for words in map(str.split, text.splitlines()[1:])}
    assert rows["layer3"] == ["1024", "1", "6", "P3", "38x38"] and "layer4" not in rows
    with pytest.raises(SwinsError, match="they need an image_size"):
        describe("resnet50", swins.VariantResNet(image_size=ANY))


@pytest.mark.slow
def test_fresh_weights_are_drawn_as_torchvisions(whole):
    theirs = whole[1]
    state = networks.state_dict(swins.create("resnet50"))
    for name, deviation in theirs.items():
        if name.startswith("fresh/"):
            assert state[name.removeprefix("fresh/")].std() == pytest.approx(deviation, rel=0.06), name
    for name, value in state.items():
        if "bn" in name or "downsample.1" in name:
            assert (value == name.endswith(("weight", "running_var"))).all(), name


@pytest.mark.backends
@pytest.mark.core
def test_what_is_saved_comes_back(tiny_state, tmp_path):
    checkpoint_files.write(tiny_state, tmp_path / "tiny.safetensors")
    model = swins.create(
        TINY, weights=tmp_path / "tiny.safetensors", image_size=(40, 56), strides=(1, 2, 1, 1), name="x"
    )
    state = networks.state_dict(model)
    assert set(state) == set(tiny_state) and all(state[k].tobytes() == v.tobytes() for k, v in tiny_state.items())
    model.get_layer("bn1").momentum = 0.99
    model.save(tmp_path / "model.keras")
    again, x = keras.saving.load_model(tmp_path / "model.keras"), pictures((40, 56))
    for level, y in maps_of(model, x).items():
        np.testing.assert_array_equal(maps_of(again, x)[level], y)
    assert (again.name, again.get_layer("bn1").momentum, list(again.pyramid)) == ("x", 0.99, ["P2", "P3"])
    for source in (tmp_path / "model.keras", model):
        pyramid = swins.backbone(source)
        assert {level: tuple(y.shape[1:]) for level, y in pyramid.output.items()} == {
            "P2": (10, 14, 32),
            "P3": (5, 7, 256),
        }
    file = swins.backbone(tmp_path / "model.keras", image_size=64)  # keeps the file's strides
    assert list(file.output) == ["P2", "P3"]
    with pytest.warns(UserWarning, match="has no norms of P5, so these are fresh"):
        half = swins.backbone(tmp_path / "tiny.safetensors", dtype="mixed_bfloat16", image_size=ANY, norms=("P5",))
    assert {y.dtype for y in half.output.values()} == {"bfloat16"}


@pytest.mark.backends
def test_mixed_bfloat16(small):
    (file, theirs), size = small, SIZES[0]
    model = swins.create(SMALL, weights=file, image_size=size, dtype="mixed_bfloat16")
    assert model.output.dtype == "float32" and model.pyramid["P5"].dtype == "bfloat16"
    assert {v.dtype for v in model.weights} == {"float32"}
    for name, y in maps_of(model, pictures(size)).items():
        assert relative(np.asarray(y, "float32"), theirs[f"small/97x130/{name}"]) <= 0.05, name
    model.compile(keras.optimizers.SGD(0.01), "mse")
    assert np.isfinite(model.train_on_batch(pictures(size, 2), np.zeros((2, 5), "float32")))
    assert np.isfinite(networks.state_dict(model)["layer4.0.bn3.running_var"]).all()


def test_other_channels_and_classes(tiny_state, tmp_path):
    checkpoint_files.write(tiny_state, tmp_path / "tiny.safetensors")
    grey = swins.create(TINY, weights=tmp_path / "tiny.safetensors", in_chans=1, num_classes=3)
    rgb = swins.create(TINY, weights=tmp_path / "tiny.safetensors", num_classes=0)
    assert grey.output.shape == (None, 3) and rgb.output.shape == (None, 256)
    x = pictures((64, 64))[..., :1]
    pooled = keras.Model(grey.input, grey.get_layer("pool").output)(x)
    assert relative(pooled, rgb(np.repeat(x, 3, -1))) <= 1e-5
    cut = swins.create(TINY, weights=tmp_path / "tiny.safetensors", stages=2)
    assert cut.output.shape == (None, 64) and list(cut.pyramid) == ["P2", "P3"]
    cut = swins.create(TINY, weights=tmp_path / "tiny.safetensors", stages=2, num_classes=5)
    assert cut.output.shape == (None, 5)
    cut.save(tmp_path / "cut.keras")
    again = swins.create(TINY, weights=tmp_path / "cut.keras")
    np.testing.assert_array_equal(again(pictures((64, 64))), cut(pictures((64, 64))))
    assert depths_of(cut)["layer2_0_bn1/gamma"] == 2 and depths_of(cut)["conv1/kernel"] == 0


def test_hostile_files_are_refused_with_all_that_is_wrong(tiny_state, tmp_path, command):
    del tiny_state["layer1.0.bn2.running_mean"]
    tiny_state["layer2.0.conv2.weight"] = tiny_state["layer2.0.conv2.weight"][:, :3]
    tiny_state["layer3.0.downsample.1.running_var"][5] = np.nan
    tiny_state["bn1.weight"] = np.ones(8, "int64")
    tiny_state["layer1.0.se.fc1.weight"] = np.zeros((4, 4), "float32")
    tiny_state["bn1.num_batches_tracked"] = np.zeros((), "int64")
    file = tmp_path / "hostile.safetensors"
    checkpoint_files.write(tiny_state, file)
    lines = (
        "  - layer1_0_bn2/moving_mean (8,): no tensor layer1.0.bn2.running_mean",
        "  ! layer2_0_conv2/kernel (3, 3, 16, 16): layer2.0.conv2.weight gives (3, 3, 3, 16)",
        "  ! layer3_0_downsample_1/moving_variance: layer3.0.downsample.1.running_var has 1 values NaN or infinite",
        "  ! bn1/gamma: bn1.weight holds int64, not floating-point numbers",
        "  + layer1.0.se.fc1.weight (4, 4): not used by the model",
    )
    with pytest.raises(SwinsError) as error:
        swins.create(TINY, weights=file)
    assert str(error.value).splitlines()[0] == f"{TINY}: hostile.safetensors and the model differ"
    assert set(str(error.value).splitlines()[1:]) == set(lines)
    code, out, _ = command("inspect", file)
    assert code == 1 and all(line.strip() in out for line in lines) and "1 num_batches_tracked" in out


def test_a_swins_file_for_a_resnet_and_the_other_way(checkpoint, tiny_state, tmp_path, converted):
    resnet = tmp_path / "tiny.safetensors"
    checkpoint_files.write({f"module.backbone.{name}": value for name, value in tiny_state.items()}, resnet)
    assert checkpoint_files.read(resnet).wrappers == ("module.", "backbone.")
    swin = "swin_mini_patch2_window4_28"
    for call in (
        lambda: swins.create("resnet50", weights=checkpoint),
        lambda: swins.create("resnet50", weights=converted / "model.keras"),
        lambda: swins.backbone("resnet50", weights=checkpoint),
        lambda: swins.backbone(swins.VariantResNet(), weights=checkpoint),
        lambda: conversion.convert("resnet50", checkpoint, tmp_path / "out"),
    ):
        with pytest.raises(SwinsError, match=rf"this checkpoint fits {swin}; .*\n.* is a ResNet, .* holds a Swin \("):
            call()
    with pytest.raises(
        SwinsError, match=rf"this checkpoint fits {TINY}; .*\n.*{swin} is a Swin, .* holds a ResNet \(torch"
    ):
        swins.create(swin, weights=resnet)
    with pytest.raises(SwinsError, match="merged maps are of a Swin"):
        swins.backbone(TINY, merged=True)
    for function in (swins.attention_maps, swins.attention_rollout):
        with pytest.raises(SwinsError, match="attention is a Swin's"):
            function(swins.create(TINY), pictures((64, 64)))


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"strides": (1, 2, 3, 2)}, "strides must be 1 or 2"),
        ({"strides": (1, 2)}, "strides must have one value or 4; got 2"),
        ({"stages": 5, "width": 0}, "stages must be at most 4.*|.*at least 1; got"),
        ({"depths": (3, 0, 1, 1)}, "depths, width and in_chans at least 1"),
        ({"num_classes": -1}, "num_classes must be at least 0"),
        ({"width": 6.5}, "width must be an integer"),
        ({"image_size": 0}, "at least one pixel"),
        ({"window_size": 7}, "unknown model option 'window_size'"),
        ({"drop_path_rate": 0.1}, "unknown model option 'drop_path_rate'"),
    ],
)
def test_numbers_that_make_no_model_name_the_rule(numbers, words):
    with pytest.raises(SwinsError, match=words):
        swins.create("resnet50", **numbers)


def test_images_of_another_size_are_refused():
    model = swins.create(TINY)
    with pytest.raises(SwinsError, match=r"takes images of the \(64, 64\) pixels it was built for; got \(60, 64\)"):
        model(np.zeros((1, 60, 64, 3), "float32"))
    plans = plan_resnet(swins.VariantResNet(strides=(2, 1, 2, 1)))
    assert [plan.level for plan in plans] == ["P3", "P3", "P4", "P4"]


def test_a_file_is_inspected(small, command):
    code, text, err = command("inspect", small[0])
    assert code == 0, err
    assert "dialect   torchvision or timm ResNet" in text and "left out  17 num_batches_tracked" in text
    assert "block bottleneck, in chans 3, width 64, kernel 64 64, depths 1 1 1 1, num classes 5" in text
    assert f"fits      {SMALL}" in text and "loads     everything" in text and "size rule" not in text


@pytest.mark.slow
def test_a_file_is_certified_and_verified(small, command, tmp_path, monkeypatch):
    file, out = small[0], tmp_path / "out"
    code, text, err = command("convert", "--checkpoint", file, "-o", out)
    assert code == 0, err
    assert f"{SMALL}: pass, " in text and "compared with torchvision 0." in text and "size rule" not in text
    proof = artefacts.read_certificate(out)
    assert list(proof["blocks"]) == ["maxpool", "layer1_0", "layer2_0", "layer3_0", "layer4_0"]
    assert proof["parameters"]["keras"] == proof["parameters"]["torch"] and proof["source"]["left_out"] == {}
    for arguments in ((), ("--checkpoint", file)):
        code, text, err = command("verify", out, *arguments)
        assert code == 0 and "pass" in text, err
    code, text, err = command("convert", "--to-torch", out, "-o", tmp_path / "back.safetensors")
    assert code == 0, err
    assert identify.the_variant(checkpoint_files.read(tmp_path / "back.safetensors")) == SMALL
    code, _, err = command("export", out)
    assert code == 1 and "classifiers that are exported are Swins" in err
    monkeypatch.setattr("swins.resnet.NORM_EPSILON", 1e-2)  # a wrong network fails
    with pytest.raises(SwinsError, match=r"must agree .* the first to differ is maxpool"):
        conversion.convert(SMALL, file, tmp_path / "wrong")


def test_names_are_listed_and_of_no_preparation(command):
    code, out, _ = command("list", "resnet*")
    assert code == 0 and out.split()[:2] == ["resnet50", "resnet101"]
    code, out, _ = command("list", "--pretrained", "resnet50*")
    assert out.split() == ["resnet50.tv2_in1k", "resnet50.tv_in1k"]
    with pytest.raises(SwinsError, match=r"bicubic resizing here; those of resnet50\.tv2_in1k are bilinear ones"):
        swins.preprocess("resnet50")
    assert swins.class_names("resnet50")[207] == "golden retriever"
