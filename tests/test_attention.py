"""Attention maps lie where they belong."""

import numpy as np
import pytest
from keras import ops
from test_v1 import load as load_arrays

import swins
from swins import attention
from swins.weights import swin_rules

pytestmark = pytest.mark.backends


@pytest.fixture(scope="module")
def model():
    _, state = load_arrays("model_mini")
    model = swins.SwinTransformer(
        image_size=28, patch_size=2, window_size=4, depths=(2, 2), num_heads=(2, 4), embed_dim=16, num_classes=7
    )
    swin_rules.assign(model, state)
    return model


@pytest.mark.core
def test_every_block_has_a_map_whose_rows_sum_to_one(model, rng):
    maps = swins.attention_maps(model, rng.standard_normal((2, 28, 28, 3), dtype="float32"))
    shapes = {name: scores.shape for name, scores in maps.items()}
    assert shapes == {
        "stage_0/block_0": (2, 16, 2, 16, 16),
        "stage_0/block_1": (2, 16, 2, 16, 16),
        "stage_1/block_0": (2, 4, 4, 16, 16),
        "stage_1/block_1": (2, 4, 4, 16, 16),
    }
    for scores in maps.values():
        np.testing.assert_allclose(scores.sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize("name", ["stage_0/block_0", "stage_0/block_1"])
@pytest.mark.parametrize("spot", [(3, 3), (5, 9), (0, 13), (13, 0), (13, 13)])
def test_what_is_looked_at_lies_on_its_own_token(model, name, spot):
    """Keys that point the way every query does, at one token: the map must peak there, shifted block or not."""
    block = attention.blocks_of(model)[name]
    dim = 16
    kernel = np.zeros((dim, 3 * dim), "float32")
    kernel[0, dim : 2 * dim] = 5.0  # keys grow with the first channel; queries are constant
    bias = np.zeros(3 * dim, "float32")
    bias[:dim] = 1.0
    saved = block.get_weights()
    try:
        block.attn.qkv.kernel.assign(kernel)
        block.attn.qkv.bias.assign(bias)
        x = np.zeros((1, 14, 14, dim), "float32")
        x[0, spot[0], spot[1], 0] = 8.0
        x[..., 1:] = np.linspace(-1, 1, dim - 1)
        block.norm1.gamma.assign(np.ones(dim))
        block.norm1.beta.assign(np.zeros(dim))
        received = ops.convert_to_numpy(attention.received(block, x))[0]
    finally:
        block.set_weights(saved)
    assert received.shape == (14, 14)
    assert np.unravel_index(received.argmax(), received.shape) == spot
