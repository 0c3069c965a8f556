"""Parts and models of V2 against timm's, from arrays made by reference/make.py: no torch needed, any backend."""

import keras
import numpy as np
import pytest
from keras import ops
from test_v1 import EAGERLY, TOLERANCE, assign, relative
from test_v1 import load as load_arrays
from training import one_program

import swins
from swins import v2
from swins.weights import swin_rules

pytestmark = pytest.mark.backends
BLOCKS = ("plain", "padded_shifted", "pretrained", "clipped", "one_wide")
MODELS = {"mini": ((28, 28), (0, 0)), "pretrained": ((20, 32), (3, 2))}


def block_like(arrays, state, **changes):
    numbers = {
        "window_size": tuple(map(int, arrays["window"])),
        "shift_size": tuple(map(int, arrays["shift"])),
        "pretrained_window": (int(arrays["pretrained"]),) * 2,
    }
    block = v2.Block(num_heads=2, name="block", **{**numbers, **changes})
    block.build(arrays["x"].shape)
    assign(block, state, swin_rules.K, swin_rules.T, swin_rules.V2)
    return block


@pytest.mark.core
@pytest.mark.parametrize("name", BLOCKS)
def test_block_equals_timms(name):
    arrays, state = load_arrays(f"v2_block_{name}")
    block = block_like(arrays, state)
    np.testing.assert_allclose(block.attn.coordinates, arrays["coordinates"].reshape(-1, 2), atol=1e-6)
    assert relative(one_program(block)(arrays["x"]), arrays["y"]) <= TOLERANCE


def test_a_wrong_pretrained_window_is_noticed():
    arrays, state = load_arrays("v2_block_pretrained")
    assert relative(block_like(arrays, state, pretrained_window=(0, 0))(arrays["x"]), arrays["y"]) > 1e-3


def test_scores_are_of_the_unnormalised_input():
    arrays, state = load_arrays("v2_block_padded_shifted")
    scores = ops.convert_to_numpy(block_like(arrays, state).scores(ops.convert_to_tensor(arrays["x"])))
    assert scores.shape == (2, 9, 2, 16, 16) and scores.dtype == np.float32
    np.testing.assert_allclose(scores.sum(-1), 1, atol=1e-5)


def test_the_scale_of_logits_is_clamped():
    attention = v2.Attention(2, (2, 2))
    attention.build((None, 4, 8))
    attention.logit_scale.assign(np.full((2, 1, 1), 50.0))
    x = ops.ones((1, 2, 4, 4))
    q, k, _ = attention.cosine(x, x, x)
    cosines = ops.convert_to_numpy(ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))))
    np.testing.assert_allclose(cosines, 100.0, rtol=1e-5)


@pytest.mark.core
def test_zero_vectors_give_zeros_and_finite_gradients():
    x = keras.Variable(np.zeros((2, 3), "float32"))
    np.testing.assert_array_equal(ops.convert_to_numpy(v2.unit(x)), np.zeros((2, 3)))
    model = swins.SwinTransformerV2(
        image_size=20, patch_size=2, embed_dim=8, depths=(2, 1), num_heads=(1, 2), window_size=4, num_classes=3
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), **EAGERLY)
    model.train_on_batch(np.zeros((2, 20, 20, 3), "float32"), np.arange(2))  # padding makes zero keys
    assert all(np.isfinite(w).all() for w in model.get_weights())


@pytest.mark.core
def test_merging_equals_timms():
    arrays, state = load_arrays("v2_merging")
    merging = v2.PatchMerging(name="merging")
    merging.build(arrays["x"].shape)
    assign(merging, state, swin_rules.DOWN_K, swin_rules.DOWN_T, swin_rules.V2)
    assert relative(merging(arrays["x"]), arrays["y"]) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param("mini", marks=pytest.mark.slow), pytest.param("pretrained", marks=pytest.mark.core)]
)
def test_model_equals_timms_and_is_saved(name, tmp_path):
    arrays, state = load_arrays(f"v2_model_{name}")
    size, pretrained = MODELS[name]
    model = swins.SwinTransformerV2(
        image_size=size,
        patch_size=2,
        window_size=4,
        depths=(2, 2),
        num_heads=(2, 4),
        embed_dim=16,
        num_classes=7,
        pretrained_windows=pretrained,
    )
    swin_rules.assign(model, state)
    assert relative(model(arrays["x"]), arrays["y"]) <= TOLERANCE
    back = swin_rules.state_dict(model)
    assert set(back) == set(state) and all(np.array_equal(back[k], state[k]) for k in back)
    for made in (model, swins.backbone(model)):
        made.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        for ours, theirs in zip(
            again.predict(arrays["x"], verbose=0), made.predict(arrays["x"], verbose=0), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)


def test_a_fresh_block_is_the_identity():
    block = v2.Block(num_heads=1, window_size=(2, 2), shift_size=(0, 0))
    x = np.random.default_rng(0).standard_normal((1, 4, 4, 8), dtype="float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(block(x)), x)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_keeps_cosines_in_float32(policy):
    arrays, state = load_arrays("v2_model_mini")
    numbers = {"image_size": 28, "patch_size": 2, "window_size": 4, "depths": (2, 2), "num_heads": (2, 4)}
    model = swins.SwinTransformerV2(**numbers, embed_dim=16, num_classes=7, dtype=policy)
    swin_rules.assign(model, state)
    attention = model.get_layer("stages_0_blocks_0").attn
    x = ops.ones((1, 2, 16, 8), policy.removeprefix("mixed_"))
    q, k, v = (keras.backend.standardize_dtype(y.dtype) for y in attention.cosine(x, x, x))
    assert q == k == "float32" and v == policy.removeprefix("mixed_")
    assert keras.backend.standardize_dtype(attention.logit_scale.dtype) == "float32"
    assert 0 < relative(model(arrays["x"]), arrays["y"]) < 0.1
