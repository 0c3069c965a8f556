"""Swin Transformer V2 (arXiv:2111.09883), as differences from V1: cosine attention, a position bias that a small
network computes from log-spaced coordinates, residual post-norm, and merging that normalises last.

Letters as in v1.py.
"""

import math

import keras
import numpy as np
from keras import initializers, ops

from swins import v1, windows
from swins.layers import dense, layer_norm, on_tokens

FINAL_NORM = layer_norm
CPB_UNITS = 512  # hidden units of the position network
START = initializers.Constant(math.log(10))  # of the scale, as its logarithm
LARGEST_SCALE = math.log(100.0)  # logits are at most 100 times a cosine (section 3.3)


def log_coordinates(window, pretrained_window):
    """Relative positions for the network, one row per row of V1's table -> ((2M-1)(2M'-1), 2) float32.

    Offsets are divided by the largest that pretraining saw, times 8, then sign(d) log2(1 + |d|) / log2(8) (equation 4).
    """
    sides = [np.arange(1 - m, m) / max((p or m) - 1, 1) for m, p in zip(window, pretrained_window, strict=True)]
    offsets = 8 * np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, 2).astype("float32")
    return (np.sign(offsets) * np.log2(np.abs(offsets) + 1) / math.log2(8)).astype("float32")


def unit(x):
    """Scale vectors (..., D) to length 1, in float32; a zero vector stays zero."""
    x = ops.cast(x, "float32")
    return x / ops.sqrt(ops.maximum(ops.sum(x * x, axis=-1, keepdims=True), 1e-24))


@keras.saving.register_keras_serializable("swins.v2")
class Attention(v1.Attention):
    """Cosine attention inside windows: (B*K, N, C) -> (B*K, N, C).

    softmax(exp(scale) cos(Q, K) + bias + shift_mask) V, equation 2; scale and cosine in float32.

    Args:
        num_heads: heads; must divide C.
        window_size: (vertical, horizontal) tokens, whose product is N.
        pretrained_window: (vertical, horizontal) tokens that the weights were trained with; 0 for this one's.
    """

    def __init__(self, num_heads, window_size, pretrained_window=(0, 0), **kwargs):
        super().__init__(num_heads, window_size, **kwargs)
        self.coordinates = log_coordinates(self.window_size, pretrained_window)

    def build(self, shape):
        dim = shape[-1]
        self.qkv = dense(3 * dim, "qkv", self.dtype_policy, use_bias=False)
        self.proj = dense(dim, "proj", self.dtype_policy)
        self.cpb_mlp_0 = dense(CPB_UNITS, "cpb_mlp_0", "float32")
        self.cpb_mlp_2 = dense(self.num_heads, "cpb_mlp_2", "float32", use_bias=False)
        for part, width in ((self.qkv, dim), (self.proj, dim), (self.cpb_mlp_0, 2), (self.cpb_mlp_2, CPB_UNITS)):
            part.build((None, width))
        self.q_bias, self.v_bias = (self.add_weight((dim,), "zeros", name=name) for name in ("q_bias", "v_bias"))
        self.logit_scale = self.add_weight((self.num_heads, 1, 1), START, "float32", name="logit_scale", autocast=False)

    def project(self, x):
        bias = ops.concatenate([self.q_bias, ops.zeros(self.q_bias.shape), self.v_bias])  # keys have none
        return self.cosine(*self.split(on_tokens(lambda tokens: self.qkv(tokens) + ops.cast(bias, tokens.dtype), x)))

    def cosine(self, q, k, v):
        """Queries and keys as unit vectors, those times the scale, float32; keeps (B*K, heads, N, D)."""
        scale = ops.exp(ops.minimum(ops.reshape(self.logit_scale, (-1, 1, 1)), LARGEST_SCALE))
        return unit(q) * scale, unit(k), v

    def position_bias(self):
        """What each head adds for a pair's relative position, from 0 to 16 -> (heads, N, N)."""
        table = self.cpb_mlp_2(ops.relu(self.cpb_mlp_0(self.coordinates)))
        return ops.transpose(16 * ops.sigmoid(ops.take(table, self.relative_index, axis=0)), (2, 0, 1))


@keras.saving.register_keras_serializable("swins.v2")
class Block(v1.Block):
    """V1's block with normalisation at the end of each branch: (B, H, W, C) -> (B, H, W, C).

    Args: V1's, and `pretrained_window`, which is Attention's.
    """

    GAMMA = "zeros"  # a fresh block is the identity

    def __init__(self, *, pretrained_window=(0, 0), **kwargs):
        super().__init__(**kwargs)
        self.pretrained_window = pretrained_window

    def make_attention(self, **options):
        return Attention(self.num_heads, self.window_size, self.pretrained_window, **options)

    def scores(self, x):
        return self.window_scores(x)

    def attention_branch(self, x, bias):
        return self.norm1(self.attend(x, bias))

    def mlp_branch(self, x):
        return self.norm2(self.mlp(x))


@keras.saving.register_keras_serializable("swins.v2")
class PatchMerging(v1.PatchMerging):
    """V1's merging, normalised last: (B, H, W, C) -> (B, ceil(H/2), ceil(W/2), 2C)."""

    def build(self, shape):
        dim = shape[-1]
        self.reduction = dense(2 * dim, "reduction", self.dtype_policy, use_bias=False)
        self.reduction.build((None, 4 * dim))
        self.norm = layer_norm("norm", self.dtype_policy)
        self.norm.build((*shape[:-1], 2 * dim))

    def call(self, x):
        return self.norm(on_tokens(self.reduction, windows.neighbours(x)))
