"""Parts of V1 against timm's, from arrays made by reference/make.py: no torch needed, any backend."""

import math
import pathlib

import keras
import numpy as np
import pytest
from keras import ops
from training import one_program

from swins import layers, v1
from swins.weights import axes, swin_rules

pytestmark = pytest.mark.backends
REFERENCE = pathlib.Path(__file__).parent / "reference"
BLOCKS = ("plain", "shifted", "padded_shifted", "clipped")
TOLERANCE = 1e-5
EAGERLY = {"run_eagerly": keras.backend.backend() == "tensorflow"}  # where a graph would be traced for one step


def load(name):
    with np.load(REFERENCE / f"{name}.npz") as file:
        arrays = dict(file)
    state = {k.removeprefix("state/"): arrays.pop(k) for k in list(arrays) if k.startswith("state/")}
    return arrays, state


def assign(layer, state, keras_root, torch_root, paper=swin_rules.V1):
    """Fill a single layer by a paper's own rules, with the roots of its names replaced."""
    table = {r.keras_path: r for r in paper if r.torch_name.startswith(torch_root)}
    for variable in layer.weights:
        rule = table[f"{keras_root}/{variable.path.partition('/')[2]}"]
        value = state[rule.torch_name.removeprefix(f"{torch_root}.")]
        variable.assign(axes.permute(value, rule.axes))


def relative(ours, theirs):
    return np.abs(ops.convert_to_numpy(ours) - theirs).max() / np.abs(theirs).max()


def block_like(arrays, state, rate=0.0):
    window, shift = tuple(map(int, arrays["window"])), tuple(map(int, arrays["shift"]))
    block = v1.Block(2, window, shift, drop_path=rate, name="block")
    block.build(arrays["x"].shape)
    assign(block, state, swin_rules.K, swin_rules.T)
    return block


@pytest.mark.core
def test_attention_equals_timms():
    arrays, state = load("attention")
    attention = v1.Attention(4, (3, 5), name="attn")
    attention.build(arrays["x"].shape)
    assign(attention, state, f"{swin_rules.K}/attn", f"{swin_rules.T}.attn")
    np.testing.assert_array_equal(attention.relative_index, arrays["index"])
    assert relative(attention(arrays["x"], attention.position_bias()), arrays["y"]) <= TOLERANCE


@pytest.mark.core
@pytest.mark.parametrize("name", BLOCKS)
def test_block_equals_timms(name):
    arrays, state = load(f"block_{name}")
    block = block_like(arrays, state)
    assert relative(one_program(block)(arrays["x"]), arrays["y"]) <= TOLERANCE
    _, mask, _ = block.cut(ops.convert_to_tensor(arrays["x"]))
    np.testing.assert_array_equal(np.zeros(0) if mask is None else ops.convert_to_numpy(mask), arrays["mask"])


def test_the_block_test_notices_a_missing_shift():
    arrays, state = load("block_shifted")
    block = block_like({**arrays, "shift": (0, 0)}, state)
    assert relative(block(arrays["x"]), arrays["y"]) > 1e-2


def test_scores_are_what_the_block_attends_with():
    arrays, state = load("block_padded_shifted")
    block = block_like(arrays, state)
    x = ops.convert_to_tensor(arrays["x"])
    scores = ops.convert_to_numpy(block.scores(x))
    assert scores.shape == (2, 9, 2, 16, 16)  # 9x11 tokens are padded to 12x12, windows of 4
    np.testing.assert_allclose(scores.sum(-1), 1, atol=1e-6)
    # a token of another region of the rolled map gets nothing
    mask = ops.convert_to_numpy(block.cut(x)[1])[None, :, None]
    assert scores[np.broadcast_to(mask < 0, scores.shape)].max() < 1e-6


@pytest.mark.core
def test_merging_equals_timms():
    arrays, state = load("merging")
    merging = v1.PatchMerging(name="merging")
    merging.build(arrays["x"].shape)
    assign(merging, state, swin_rules.DOWN_K, swin_rules.DOWN_T)
    assert relative(merging(arrays["x"]), arrays["y"]) <= TOLERANCE


@pytest.mark.core
def test_gelu_is_exact():
    x = np.linspace(-6, 6, 101, dtype="float32")
    exact = [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x.astype("float64")]
    np.testing.assert_allclose(ops.convert_to_numpy(layers.gelu(ops.convert_to_tensor(x))), exact, atol=1e-6)


@pytest.mark.core
def test_drop_path_drops_whole_branches_and_keeps_the_mean():
    layer = layers.drop_path(0.25, "drop_path")
    y = ops.convert_to_numpy(layer(ops.ones((4000, 2, 3, 4)), training=True))
    kept = y[:, 0, 0, 0]
    np.testing.assert_array_equal(y, np.broadcast_to(kept[:, None, None, None], y.shape))
    assert set(np.unique(kept).tolist()) <= {0.0, np.float32(1 / 0.75).item()}
    assert abs(kept.mean() - 1) < 0.05


def test_the_two_branches_draw_independently():
    arrays, state = load("block_plain")
    block = block_like(arrays, state, rate=0.5)
    x = ops.ones((512, 8, 8, 16))
    first, second = (
        ops.convert_to_numpy(d(x, training=True))[:, 0, 0, 0] > 0 for d in (block.drop_path1, block.drop_path2)
    )
    assert 0.3 < np.mean(first == second) < 0.7


@pytest.mark.parametrize("name", BLOCKS)
def test_every_layer_trains_saves_and_loads(name, tmp_path):
    arrays, state = load(f"block_{name}")
    inputs = keras.Input(arrays["x"].shape[1:])
    window, shift = tuple(map(int, arrays["window"])), tuple(map(int, arrays["shift"]))
    block = v1.Block(2, window, shift, drop_path=0.1, name="block")
    model = keras.Model(inputs, v1.PatchMerging(name="merging")(block(inputs)))
    assign(block, state, swin_rules.K, swin_rules.T)
    model.compile("adam", "mse", **EAGERLY)
    before = [np.array(w) for w in model.trainable_weights]
    model.train_on_batch(arrays["x"], np.zeros(model(arrays["x"]).shape, "float32"))
    assert all(np.any(a != np.asarray(b)) for a, b in zip(before, model.trainable_weights, strict=True))
    model.save(tmp_path / "block.keras")
    again = keras.saving.load_model(tmp_path / "block.keras")
    np.testing.assert_array_equal(again.predict(arrays["x"], verbose=0), model.predict(arrays["x"], verbose=0))
