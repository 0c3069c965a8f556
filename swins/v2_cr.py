"""V2-CR, Swin Transformer V2 as Christoph Reich read it from arXiv:2111.09883 and timm trains it (swinv2_cr_*), as
differences from V1 and V2: V2's cosine attention and residual post-norm, V1's projections and merging, a position
network of raw log offsets, and no final norm, but norms between blocks.

Letters as in v1.py.
"""

import keras
import numpy as np
from keras import layers, ops

from swins import v1, v2
from swins.layers import dense, on_tokens

PatchMerging = v1.PatchMerging
META_DROP = 0.125  # dropout between the layers of the position network


def FINAL_NORM(name, dtype):
    """None: the norm that follows the last block does its work."""
    return layers.Identity(name=name, dtype=dtype)


def log_coordinates(window):
    """Relative positions for the network, one row per row of V1's table -> ((2M-1)(2M'-1), 2) float32.

    sign(d) ln(1 + |d|) of offsets in tokens, so that a window of another size asks for more of the same function.
    """
    sides = [np.arange(1 - m, m, dtype="float32") for m in window]
    offsets = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, 2)
    return np.sign(offsets) * np.log1p(np.abs(offsets))


@keras.saving.register_keras_serializable("swins.v2_cr")
class Attention(v1.Attention):
    """Cosine attention inside windows: (B*K, N, C) -> (B*K, N, C).

    softmax(exp(scale) cos(Q, K) + bias + shift_mask) V; scale and cosine in float32.

    Args: V1's, and
        meta_dim: hidden units of the position network.
    """

    def __init__(self, num_heads, window_size, meta_dim=384, **kwargs):
        super().__init__(num_heads, window_size, **kwargs)
        self.meta_dim = meta_dim
        self.coordinates = log_coordinates(self.window_size)

    def build(self, shape):
        dim = shape[-1]
        self.qkv = dense(3 * dim, "qkv", self.dtype_policy)
        self.proj = dense(dim, "proj", self.dtype_policy)
        self.meta_fc1 = dense(self.meta_dim, "meta_mlp_fc1", "float32")
        self.meta_drop = layers.Dropout(META_DROP, name="meta_mlp_drop", dtype="float32")
        self.meta_fc2 = dense(self.num_heads, "meta_mlp_fc2", "float32")
        for part, width in ((self.qkv, dim), (self.proj, dim), (self.meta_fc1, 2), (self.meta_fc2, self.meta_dim)):
            part.build((None, width))
        self.logit_scale = self.add_weight((self.num_heads,), v2.START, "float32", name="logit_scale", autocast=False)

    cosine = v2.Attention.cosine

    def project(self, x):
        return self.cosine(*self.split(on_tokens(self.qkv, x)))

    def position_bias(self):
        """What each head adds for a pair's relative position -> (heads, N, N)."""
        table = self.meta_fc2(self.meta_drop(ops.relu(self.meta_fc1(self.coordinates))))
        return ops.transpose(ops.take(table, self.relative_index, axis=0), (2, 0, 1))


@keras.saving.register_keras_serializable("swins.v2_cr")
class Block(v2.Block):
    """V2's block with this attention: (B, H, W, C) -> (B, H, W, C).

    Args: V1's, and `meta_dim`, which is Attention's.
    """

    def __init__(self, *, meta_dim=384, **kwargs):
        super().__init__(**kwargs)
        self.meta_dim = meta_dim

    def make_attention(self, **options):
        return Attention(self.num_heads, self.window_size, self.meta_dim, **options)
