"""Tables of conversion: axes as text, rules at their places, and networks that are no Swin."""

import keras
import numpy as np
import pytest
from keras import layers

from swins.errors import SwinsError
from swins.weights import axes
from swins.weights.conversion_table import Rule, Table, assign, dense, norm, state_dict

pytestmark = pytest.mark.backends


@pytest.mark.parametrize(
    ("text", "order"), [("oi->io", (1, 0)), ("oihw->hwio", (2, 3, 1, 0)), ("cmhw -> hwcm", (2, 3, 0, 1)), ("", (0, 1))]
)
def test_axes_are_numpys_transpose_and_come_back(text, order):
    x = np.random.default_rng(0).standard_normal(tuple(range(2, 2 + len(order))))
    y = axes.permute(x, text)
    np.testing.assert_array_equal(y, x.transpose(order))
    np.testing.assert_array_equal(axes.permute(y, axes.inverse(text)), x)
    assert np.shares_memory(x, y)


def test_axes_in_parentheses_share_one():
    """Mask R-CNN's first dense layer reads a map of 2x3 pixels in PyTorch's order of channel, row, column."""
    x = np.arange(2 * 4 * 2 * 3).reshape(2, 24)
    text = "o(chw)->(hwc)o, h=2, w=3"
    y = axes.permute(x, text)
    np.testing.assert_array_equal(y, x.reshape(2, 4, 2, 3).transpose(2, 3, 1, 0).reshape(24, 2))
    assert axes.inverse(text) == "(hwc)o->o(chw), h=2, w=3"
    np.testing.assert_array_equal(axes.permute(y, axes.inverse(text)), x)


@pytest.mark.parametrize("text", ["oihw->hwio", "o(chw)->(hwc)o, h=5, w=3", "ab->ba, a=4"])
def test_an_array_that_does_not_fit_stays_as_it_is(text):
    x = np.zeros((2, 24))
    assert axes.permute(x, text) is x


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("oihw", "two orders of letters"),
        ("oi->io->oi", "two orders of letters"),
        ("oi->iO", "two orders of letters"),
        ("oi->ii", "the same on both sides"),
        ("oii->iio", "the same on both sides"),
        ("oi->iox", "the same on both sides"),
        ("o(chw)->(hwc)o, h=7", "all letters but one in parentheses"),
        ("o(ch)->(hc)o, h=7, w=7", "all letters but one in parentheses"),
        ("oi->io, o=0", "two orders of letters"),
    ],
)
def test_axes_that_cannot_be_read_are_refused_where_a_rule_is_written(text, words):
    with pytest.raises(SwinsError, match=words):
        Rule("a", "b", text)


def network():
    """A small convolutional network, with batch norms and a shortcut in its second block alone."""
    images = keras.Input((8, 8, 3))
    x = images
    for i in range(2):
        y = layers.Conv2D(4, 3, padding="same", use_bias=False, name=f"block{i}_conv")(x)
        y = layers.BatchNormalization(name=f"block{i}_norm")(y)
        x = layers.Conv2D(4, 1, use_bias=False, name=f"block{i}_shortcut")(x) + y if has_shortcut("two", i) else y
    x = layers.Dense(5, name="head")(layers.GlobalAveragePooling2D()(layers.Dropout(0.5)(x)))
    return keras.Model(images, x, name="small")


def has_shortcut(variant, i):
    return variant == "two" and i == 1


RULES = (
    Rule("block{i}_conv/kernel", "layer{i}.conv.weight", "oihw->hwio", "blocks"),
    *norm("block{i}_norm", "layer{i}.bn", "blocks"),
    Rule("block{i}_norm/moving_mean", "layer{i}.bn.running_mean", over="blocks"),
    Rule("block{i}_norm/moving_variance", "layer{i}.bn.running_var", over="blocks"),
    Rule("block{i}_shortcut/kernel", "layer{i}.shortcut.weight", "oihw->hwio", "blocks", has_shortcut),
    *dense("head", "fc"),
)
TABLE = Table(RULES, {"blocks": [{"i": 0}, {"i": 1}]}, "two")


def test_a_table_is_of_any_network(rng):
    model = network()
    for weight in model.weights:
        if not weight.path.endswith("seed_generator_state"):
            weight.assign(rng.standard_normal(weight.shape))
    state = state_dict(model, TABLE)
    assert state["layer0.conv.weight"].shape == (4, 3, 3, 3) and "layer0.shortcut.weight" not in state
    assert len(state) == len(TABLE.filled) == 13
    other = network()
    assign(other, state, TABLE)
    x = rng.standard_normal((2, 8, 8, 3), dtype="float32")
    np.testing.assert_array_equal(other.predict(x, verbose=0), model.predict(x, verbose=0))


def test_all_differences_are_listed_and_nothing_is_changed():
    model, state = network(), state_dict(network(), TABLE)
    before = [np.array(weight) for weight in model.weights]
    del state["layer0.bn.bias"]
    state["fc.weight"] = state["fc.weight"].T
    state["fc.bias"] = np.full(5, np.nan)
    state["layer1.bn.running_var"] = np.ones(4, int)
    state["rpn_head.w"] = np.zeros(3)
    with pytest.raises(SwinsError) as error:
        assign(model, state, TABLE, "resnet.pth")
    lines = str(error.value).splitlines()
    assert lines[0] == "small: resnet.pth and the model differ"
    assert set(lines[1:]) == {
        "  - block0_norm/beta (4,): no tensor layer0.bn.bias",
        "  ! head/kernel (4, 5): fc.weight gives (5, 4)",
        "  ! head/bias: fc.bias has 5 values NaN or infinite",
        "  ! block1_norm/moving_variance: layer1.bn.running_var holds int64, not floating-point numbers",
        "  + rpn_head.w (3,): not used by the model",
    }
    assert all(np.array_equal(a, b) for a, b in zip(before, model.weights, strict=True))


def test_a_table_that_cannot_be_is_refused():
    for rules, words in (
        ((Rule("a{i}", "b{i}", over="stages"),), "unknown repetition 'stages'"),
        ((Rule("a{s}", "b", over="blocks"),), "names the numbers of its repetition 'blocks', which are i; got 's'"),
        ((Rule("a", "b"), Rule("a", "c")), "one rule for each variable; a has two"),
    ):
        with pytest.raises(SwinsError, match=words):
            Table(rules, {"blocks": [{"i": 0}]}).filled  # noqa: B018
    with pytest.raises(RuntimeError, match="do not cover the model"):
        assign(network(), {}, Table(RULES[:-1], TABLE.repetitions))
