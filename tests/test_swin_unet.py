"""SwinUNet: its numbers, its parts, files, and what it refuses."""

import dataclasses
import json
import re

import keras
import numpy as np
import pytest
from keras import ops
from test_models import moved
from training import COMPILED

import swins
from swins import changes
from swins.denoiser_configs import DENOISERS
from swins.diffusion import conditioning
from swins.errors import SwinsError
from swins.swin_unet_numbers import SwinUNetVariant

ROW = "swin_unet_patch4_window7_224"
MINI = "swin_unet_mini_patch2_window7_28"
TINY = {"image_size": 16, "patch_size": 2, "in_chans": 2, "embed_dim": 8, "depths": (2, 1), "num_heads": (1, 2)}
TINY |= {"window_size": 4, "num_classes": 3, "time_dim": 6, "mid_depth": 1}


def made(**numbers):
    """A small SwinUNet."""
    return swins.SwinUNet(**{**TINY, **numbers})


def batch(model, count=2, seed=0):
    """Noisy images of a model's size, times and classes."""
    rng, numbers = np.random.default_rng(seed), model.numbers
    size = [side or 16 for side in model.image_size]
    inputs = {"images": rng.normal(size=(count, *size, model.in_chans)).astype("float32")}
    inputs["time"] = np.arange(count, dtype="int32") * 3
    if numbers.num_classes:
        inputs["classes"] = np.arange(count, dtype="int32") % numbers.num_classes
    return inputs


# numbers


def block_parameters(dim, heads, window=7):
    """Two norms, attention with its table of positions, an MLP of four times the channels."""
    attention = 4 * dim * dim + 4 * dim + (2 * window - 1) ** 2 * heads
    return 4 * dim + attention + 8 * dim * dim + 5 * dim


@pytest.mark.slow
def test_parameters_are_the_references_and_ours_by_arithmetic():
    """52,999,457 with its merging; the papers', which normalises four cells together, has 6C more a merging of C."""
    model = swins.create(ROW)
    parts = {"stages|patch": 28_487_418, "middle": 14_183_856, "output": 35_353, "time_emb": 131_712, "class": 916}
    parts |= {"decoder_2": 7_385_718, "decoder_1": 1_851_180, "decoder_0": 923_304}
    sizes = {path: int(np.prod(v.shape)) for path, v in changes.variables(model).items()}
    counts = {part: sum(size for path, size in sizes.items() if re.match(part, path)) for part in parts}
    assert counts == parts and sum(counts.values()) == model.count_params() == 52_999_457
    assert counts["middle"] == 2 * block_parameters(768, 24)
    rows = zip((384, 192, 96), (2, 2, 6), (3, 6, 12), strict=True)  # heads and depths in the encoder's order
    for level, (dim, depth, heads) in zip((2, 1, 0), rows, strict=True):
        joined = 2 * 2 * dim + 2 * dim * 4 * dim + 9 * 2 * dim * dim + dim
        assert counts[f"decoder_{level}"] == depth * block_parameters(dim, heads) + joined
    ours = SwinUNetVariant(**{**dataclasses.asdict(model.numbers), "merging": "swin", "null_class": True})
    count = swins.SwinUNet(**dataclasses.asdict(ours)).count_params()
    assert count == 52_999_457 + 6 * (96 + 192 + 384) + 32


def test_ours_by_arithmetic():
    model, dim, condition = swins.create(MINI), 64, 48
    blocks = 4 * block_parameters(dim, 4) + 4 * block_parameters(2 * dim, 8)
    norms = 4 * 6 * (dim + 2 * dim) * (condition + 1)
    embeddings = 11 * condition + condition * 4 * condition + 4 * condition + 4 * condition * condition + condition
    encoder = 4 * dim + dim + 2 * dim + 8 * dim + 8 * dim * dim
    decoder = 4 * dim + 8 * dim * dim + 9 * 2 * dim * dim + dim
    up = 2 * dim + 2 * dim * dim + 2 * (dim * dim // 2 + dim // 2)
    end = 2 * dim // 2 + 9 * dim // 2 + 1
    assert model.count_params() == blocks + norms + embeddings + encoder + decoder + up + end
    assert 4 * model.count_params() < 5.8e6  # bytes: the file is to have at most 6 MB


@pytest.mark.parametrize("name", DENOISERS)
def test_rows_are_variants_by_name(name):
    row = DENOISERS[name]
    assert name in swins.list_variants("swin_unet*")
    assert SwinUNetVariant(**json.loads(json.dumps(dataclasses.asdict(row)))) == row
    assert row.stride == ((224, 224) if "224" in name else (row.image_size[0],) * 2)


def test_decoders_have_depths_and_heads_of_the_same_maps_or_in_the_encoders_order():
    row = DENOISERS["swin_unet_patch2_window4_32"]
    same = [(plan.dim, len(plan.drop_path), plan.num_heads) for plan in row.decoder]
    other = SwinUNetVariant(**{**dataclasses.asdict(row), "decoder_order": "encoder"}).decoder
    assert same == [(192, 2, 6), (96, 2, 3)]
    assert [(plan.dim, len(plan.drop_path), plan.num_heads) for plan in other] == [(192, 2, 3), (96, 2, 6)]
    reference = DENOISERS[ROW].decoder
    rates = np.linspace(0, 0.2, 12)
    for plan, part in zip(reference, (slice(0, 2), slice(2, 4), slice(4, 10)), strict=True):
        np.testing.assert_allclose(plan.drop_path, rates[part], atol=1e-12)
    assert DENOISERS[ROW].middle.drop_path == (0.0, 0.0)


# parts


@pytest.mark.backends
@pytest.mark.parametrize("dim", [6, 7])
def test_times_are_waves(dim):
    times = np.array([0, 1, 999])
    angles = times[:, None] * np.array([10000.0 ** (-i / 3) for i in range(3)])
    wanted = np.concatenate([np.sin(angles), np.cos(angles), np.zeros((3, dim - 6))], axis=1)
    np.testing.assert_allclose(ops.convert_to_numpy(conditioning.sinusoid(times, dim)), wanted, atol=1e-4)


@pytest.mark.backends
@pytest.mark.parametrize("paper", ["v1", "v2"])
def test_adaptive_norms_are_norms_with_other_numbers(paper):
    """A block whose condition is the same for all is the paper's, with other numbers in norms and last layers."""
    rng = np.random.default_rng(0)
    options = {"num_heads": 2, "window_size": (2, 2), "shift_size": (1, 1)}
    ours = {"v1": conditioning.AdaptiveBlock, "v2": conditioning.AdaptiveBlockV2}[paper](**options)
    plain = {"v1": conditioning.v1, "v2": conditioning.v2}[paper].Block(**options)
    x = rng.normal(size=(2, 4, 4, 8)).astype("float32")
    condition = np.tile(rng.normal(size=(1, 5)).astype("float32"), (2, 1))
    np.testing.assert_allclose(ops.convert_to_numpy(ours([x, condition])), x, atol=1e-6)  # fresh: the identity
    plain(x)
    for weight in ours.trainable_weights:
        weight.assign(weight + 0.2 * rng.normal(size=weight.shape))
    values = {path: ops.convert_to_numpy(v) for path, v in changes.variables(ours).items()}
    silu = condition[0] / (1 + np.exp(-condition[0]))
    numbers = silu @ values["modulation/kernel"] + values["modulation/bias"]
    parts = [*np.split(numbers, ours.NUMBERS)]
    scales, shifts = (parts[0], parts[3 if paper == "v1" else 2]), (parts[1], parts[4 if paper == "v1" else 3])
    for norm_name, scale, shift in zip(("norm1", "norm2"), scales, shifts, strict=True):
        values[f"{norm_name}/beta"] = values[f"{norm_name}/beta"] * (1 + scale) + shift
        values[f"{norm_name}/gamma"] = values[f"{norm_name}/gamma"] * (1 + scale)
    if paper == "v1":
        for last, gate in (("attn/proj", parts[2]), ("mlp/fc2", parts[5])):
            values |= {f"{last}/{part}": values[f"{last}/{part}"] * gate for part in ("kernel", "bias")}
    for path, variable in changes.variables(plain).items():
        variable.assign(values[path])
    got, wanted = ops.convert_to_numpy(ours([x, condition])), ops.convert_to_numpy(plain(x))
    np.testing.assert_allclose(got, wanted, atol=1e-5)


LIKE_THE_REFERENCE = {"merging": "convolution", "skips": "inputs", "decoder_order": "encoder"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param({}, marks=pytest.mark.backends, id="adaptive"),
        pytest.param({"conditioning": "additive", **LIKE_THE_REFERENCE}, marks=pytest.mark.backends, id="additive"),
        pytest.param({"paper": "v2", "patch_size": 4, "image_size": (32, 64), "in_chans": 3}, id="v2"),
        pytest.param({"num_classes": 0, "paper": "v2", "conditioning": "additive"}, id="unconditional"),
    ],
)
def test_every_weight_matters_and_every_input(numbers):
    """Each weight gets a gradient, and each input changes the output, of its own image alone."""
    model = moved(made(drop_path_rate=0.2, **numbers))
    inputs = batch(model)
    output = outputs(model, inputs)
    assert output.shape == inputs["images"].shape and output.dtype == np.float32 and np.isfinite(output).all()
    for name in inputs:
        other = {key: value.copy() for key, value in inputs.items()}
        other[name][0] += 1
        wrong = np.abs(outputs(model, other) - output).max((1, 2, 3))
        assert wrong[0] > 1e-4 and wrong[1] < 1e-5, name
    for path, gradient in gradients(model, inputs).items():
        largest = np.abs(gradient).max()
        # of keys' biases softmax makes nothing, and of rows of classes that are not in the batch there is none
        assert np.isfinite(largest) and largest > 0, path


def outputs(model, inputs):
    """A model's outputs as NumPy; JAX compiles the whole, which is quicker than part by part."""
    return model.predict_on_batch(inputs) if keras.backend.backend() == "jax" else ops.convert_to_numpy(model(inputs))


def gradients(model, inputs):
    """{path: gradient} of the sum of squares of an output, in training, under any backend."""
    optimizer, paths = keras.optimizers.SGD(1.0), changes.variables(model)
    before = {path: ops.convert_to_numpy(v).copy() for path, v in paths.items()}
    model.compile(optimizer, loss="mse", run_eagerly=keras.backend.backend() == "tensorflow", jit_compile=COMPILED)
    model.train_on_batch(inputs, np.zeros(inputs["images"].shape, "float32"))
    trainable = {id(v) for v in model.trainable_variables}
    return {path: before[path] - ops.convert_to_numpy(v) for path, v in paths.items() if id(v) in trainable}


@pytest.mark.slow
@pytest.mark.parametrize("numbers", [{}, {"paper": "v2"}], ids=["v1", "v2"])
def test_remat_and_chunks_compute_the_same(numbers):
    model = moved(made(**numbers))
    other = changes.copy(model, remat=True, query_chunk=5)
    inputs = batch(model)
    np.testing.assert_allclose(model(inputs), other(inputs), atol=1e-5)
    theirs = gradients(other, inputs)
    for path, gradient in gradients(model, inputs).items():
        np.testing.assert_allclose(theirs[path], gradient, atol=1e-5, err_msg=path)


@pytest.mark.slow
def test_classes_are_k_and_one_for_none():
    model = moved(made())
    inputs = batch(model)
    outputs = [np.array(model({**inputs, "classes": np.full(2, k)})) for k in range(4)]
    assert model.numbers.null == 3 and all(np.abs(outputs[0] - other).max() > 1e-4 for other in outputs[1:])
    assert made(null_class=False).numbers.null is None and made(num_classes=0).numbers.null is None


@pytest.mark.slow
def test_open_sizes_are_those_that_windows_tile():
    model = moved(made())
    opened = changes.copy(model, image_size=(None, None))
    inputs = batch(model)
    np.testing.assert_allclose(opened(inputs), model(inputs), atol=1e-5)
    assert opened({**inputs, "images": np.zeros((2, 32, 48, 2), "float32")}).shape == (2, 32, 48, 2)
    with pytest.raises(SwinsError, match=r"multiples of 16 pixels; got \(24, 16\); the nearest are 16/32 by 16"):
        opened({**inputs, "images": np.zeros((2, 24, 16, 2), "float32")})


@pytest.mark.slow
def test_a_file_gives_the_same_network(tmp_path):
    model = moved(made(frozen=["patch_embed"], conditioning="additive", paper="v2", pretrained_windows=2))
    model.save(tmp_path / "model.keras")
    other = keras.saving.load_model(tmp_path / "model.keras")
    assert other.get_config() == model.get_config() and not other.get_layer("patch_embed").trainable
    np.testing.assert_array_equal(model(batch(model)), other(batch(model)))


@pytest.mark.slow
def test_mixed_precision_gives_float32_near_the_same():
    model = moved(made())
    half = changes.copy(model, dtype="mixed_bfloat16")
    got, wanted = half(batch(model)), model(batch(model))
    assert keras.backend.standardize_dtype(got.dtype) == "float32"
    assert np.abs(np.array(got) - wanted).mean() < 0.05 * np.abs(wanted).mean()


# create


@pytest.fixture
def registered(monkeypatch):
    """A function that makes TINY, with other numbers, a variant of this name while a test runs."""

    def register(name, **numbers):
        monkeypatch.setitem(DENOISERS, name, None)
        del DENOISERS[name]
        swins.register_variant(name, SwinUNetVariant(**{**TINY, **numbers}))
        return name

    return register


@pytest.mark.slow
def test_create_takes_another_ones_weights_and_makes_classes_fresh(tmp_path, registered):
    name = registered("swin_unet_of_a_test", depths=(1, 1), mid_depth=0)
    model = moved(swins.create(name))
    model.save(tmp_path / "model.keras")
    same = swins.create(name, weights=tmp_path / "model.keras")
    np.testing.assert_array_equal(same(batch(same)), model(batch(model)))
    with pytest.warns(UserWarning, match="has 3 classes, the model 5: fresh are class_embedding"):
        other = swins.create(name, weights=tmp_path / "model.keras", num_classes=5)
    values = changes.values(other)
    assert values.pop("class_embedding/embeddings").shape == (6, 6)
    assert all((changes.values(model)[path] == value).all() for path, value in values.items())
    other = registered("swin_unet_of_another_test", depths=(1, 1), mid_depth=0, embed_dim=16, time_dim=8)
    with pytest.raises(SwinsError, match=r"and the model differ\n(  .*\n){7}  and \d+ more: name the variant"):
        swins.create(other, weights=tmp_path / "model.keras")


@pytest.mark.slow
@pytest.mark.parametrize("conditions", ["adaptive", "additive"])
def test_an_encoder_takes_a_swins_weights(tmp_path, registered, conditions):
    swin = moved(swins.SwinTransformer(**{k: TINY[k] for k in list(TINY)[:7]}, num_classes=5))
    swin.save(tmp_path / "swin.keras")
    name = registered("swin_unet_of_a_test", conditioning=conditions)
    model = swins.create(name, weights=tmp_path / "swin.keras")
    ours, theirs = changes.values(model), changes.values(swin)
    stem = "patch_embed/proj/kernel"
    np.testing.assert_array_equal(ours[stem][:, :, :2], theirs.pop(stem))
    assert ours[stem].shape[2] == (2 if conditions == "adaptive" else 6)
    for path, value in theirs.items():
        if path.startswith(("patch_embed", "stages_")):
            np.testing.assert_array_equal(ours[path], value)


# bad input


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"image_size": 28}, r"multiples of 16 pixels; got \(28, 28\); the nearest are 16 or 32"),
        ({"image_size": (32, 10)}, r"the nearest are 32 by 16"),
        ({"image_size": 8}, r"nearest are 16"),
        ({"patch_size": 3, "image_size": 24}, "patch_size must be a power of 2 that divides embed_dim"),
        ({"embed_dim": 9, "num_heads": (1, 2)}, "patch_size must be a power of 2"),
        ({"num_heads": (3, 2)}, "num_heads must divide"),
        ({"conditioning": "adaptiv"}, "unknown conditioning 'adaptiv': the closest are adaptive"),
        ({"paper": "v3"}, "unknown paper 'v3'"),
        ({"null_class": 1}, "null_class must be True or False; got 1"),
        ({"pretrained_windows": 8}, r'pretrained_windows are of paper="v2"'),
        ({"time_dim": 1}, "time_dim at least 2"),
        ({"num_classes": -1}, "num_classes must be at least 0"),
        ({"drop_path_rate": 1.0}, "drop rates must be in"),
        ({"clases": 3}, "unknown option of a SwinUNet 'clases': the closest are"),
        ({"depths": (1, 1, 1), "num_heads": (1, 2, 8), "image_size": 32, "decoder_order": "encoder"}, None),
        ({"depths": (1, 1, 1), "num_heads": (8, 16, 32), "image_size": 32, "decoder_order": "encoder"}, "mirrored"),
    ],
)
def test_numbers_that_cannot_work_are_refused(numbers, words):
    if words is None:
        assert made(**numbers)
        return
    with pytest.raises(SwinsError, match=words):
        made(**numbers)


def test_inputs_that_cannot_go_through_are_refused():
    model = made(name="unet")
    inputs = batch(model)
    for other, words in [
        (inputs["images"], "unet takes {images, time, classes} by these names; got"),
        ({k: inputs[k] for k in ("images", "time")}, r"got \['images', 'time'\]"),
        ({**inputs, "images": np.zeros((2, 16, 16, 3), "float32")}, "images of 2 channels; got 3"),
        ({**inputs, "images": np.zeros((2, 32, 16, 2), "float32")}, "16x16 pixels it was built for; got 32x16"),
    ]:
        with pytest.raises(SwinsError, match=words):
            model(other)


def test_create_refuses(tmp_path, registered):
    name = registered("swin_unet_of_a_test", depths=(1, 1), mid_depth=0)
    made(depths=(1, 1), mid_depth=0, embed_dim=16).save(tmp_path / "other.keras")
    swins.SwinTransformer(image_size=16, patch_size=2, embed_dim=16, depths=(1,), num_heads=(1,), in_chans=2).save(
        tmp_path / "swin.keras"
    )
    for options, words in [
        ({"weights": "pretrained"}, "nothing is published for swin_unet_of_a_test; weights must be a path"),
        ({"weights_key": "model"}, "weights_key chooses among"),
        ({"weights": tmp_path / "other.keras", "weights_key": "model"}, "holds one model"),
        ({"weights": tmp_path / "other.keras"}, "and the model differ"),
        ({"weights": tmp_path / "swin.keras"}, "and the model differ"),
        ({"weights": tmp_path / "swin.keras", "merging": "convolution"}, 'pass merging="swin"'),
        ({"image_size": 30}, "the nearest are 16 or 32"),
        ({"embed_dims": 30}, "unknown option of a SwinUNet 'embed_dims'"),
    ]:
        with pytest.raises(SwinsError, match=words):
            swins.create(name, **options)
    with pytest.raises(SwinsError, match="swin_unet_mini_patch2_window7_28 is a network of diffusion"):
        swins.backbone(MINI)
    with pytest.raises(SwinsError, match="unknown variant 'swin_unet_mini_patch2_window7_32'"):
        swins.create("swin_unet_mini_patch2_window7_32")
