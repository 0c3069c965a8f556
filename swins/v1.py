"""Swin Transformer (V1, and S3 whose difference is data): arXiv:2103.14030 and arXiv:2111.14725.

Letters: B batch, (H, W) tokens of a feature map, C channels, N tokens of a window, K windows of an image,
D channels of a head.
"""

import math

import keras
from keras import layers, ops

from swins import windows
from swins.changes import Composite
from swins.fresh_weights import papers_normal
from swins.layers import Mlp, dense, drop_path, layer_norm, on_tokens, softmax
from swins.map_sides import sides
from swins.renamed import Renamed
from swins.sequential import by_queries
from swins.size_rules import SIZE_RULES

FINAL_NORM = layer_norm


@keras.saving.register_keras_serializable("swins.v1")
class Attention(layers.Layer):
    """Multi-head attention inside windows, with a learned bias per relative position: (B*K, N, C) -> (B*K, N, C).

    softmax(Q K^T / sqrt(D) + bias + shift_mask) V, equation 4; the bias is `position_bias()`.

    Args:
        num_heads: heads; must divide C.
        window_size: (vertical, horizontal) tokens, whose product is N.
        query_chunk: queries whose weights exist at a time; 0 for all: slower, and less memory for large windows.
    """

    def __init__(self, num_heads, window_size, query_chunk=0, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.query_chunk = query_chunk
        self.window_size = tuple(window_size)
        self.relative_index = windows.relative_index(self.window_size)

    def build(self, shape):
        dim = shape[-1]
        self.qkv = dense(3 * dim, "qkv", self.dtype_policy)
        self.qkv.build((None, dim))
        self.proj = dense(dim, "proj", self.dtype_policy)
        self.proj.build((None, dim))
        shape = (self.relative_index.max() + 1, self.num_heads)
        table = self.add_weight(shape=shape, initializer=papers_normal(), name="relative_position_bias_table")
        self.relative_position_bias_table = table

    def project(self, x):
        """Queries and keys whose dot products are the logits, and values: (B*K, N, C) -> thrice (B*K, heads, N, D)."""
        q, k, v = self.split(on_tokens(self.qkv, x))
        return q * (1 / math.sqrt(q.shape[-1])), k, v

    def split(self, qkv):
        """Part three head-major projections: (B*K, N, 3C) -> three times (B*K, heads, N, D)."""
        _, n, channels = qkv.shape
        qkv = ops.reshape(qkv, (-1, n, 3, self.num_heads, channels // (3 * self.num_heads)))
        return ops.unstack(ops.transpose(qkv, (2, 0, 3, 1, 4)), 3)

    def position_bias(self):
        """What each head adds for a pair's relative position -> (heads, N, N)."""
        bias = ops.take(self.relative_position_bias_table, self.relative_index, axis=0)
        return ops.transpose(bias, (2, 0, 1))

    def scores(self, q, k, bias, shift_mask=None):
        """Attention weights of n queries, each row sums to 1.

        q (B*K, heads, n, D), k (B*K, heads, N, D), bias (heads, n, N), shift_mask (K, n, N) -> (B*K, heads, n, N).
        """
        logits = ops.matmul(q, ops.transpose(k, (0, 1, 3, 2)))
        if shift_mask is None:
            return softmax(logits + ops.cast(bias, logits.dtype))
        count = shift_mask.shape[0] or ops.shape(shift_mask)[0]
        per_image = ops.reshape(logits, (-1, count, *logits.shape[1:]))
        bias = ops.cast(bias + ops.cast(shift_mask, bias.dtype)[:, None], logits.dtype)
        return ops.reshape(softmax(per_image + bias), (-1, *logits.shape[1:]))

    def attend(self, q, k, v, bias, shift_mask=None):
        """Values, averaged with the attention weights: three times (B*K, heads, N, D) -> (B*K, heads, N, D)."""

        def average(k, v, q, *biases):
            return ops.matmul(ops.cast(self.scores(q, k, *biases), v.dtype), v)

        return by_queries(average, self.query_chunk, q, k, v, bias, shift_mask)

    def call(self, x, bias, shift_mask=None):
        y = ops.transpose(self.attend(*self.project(x), bias, shift_mask), (0, 2, 1, 3))
        return on_tokens(self.proj, ops.reshape(y, (-1, *x.shape[1:])))


@keras.saving.register_keras_serializable("swins.v1")
class Block(Renamed, Composite):
    """Attention in (shifted) windows, then an MLP, each on a residual branch: (B, H, W, C) -> (B, H, W, C).

    What maps that windows do not tile undergo is their rule's.

    Args:
        num_heads: heads of the attention.
        window_size: (vertical, horizontal) tokens.
        shift_size: (vertical, horizontal) tokens of the cyclic shift, (0, 0) for a plain block.
        mlp_ratio: hidden channels of the MLP over C.
        drop_path: probability of dropping each branch in training.
        size_rule: a name of SIZE_RULES.
        query_chunk: Attention's.
        remat: compute the branches again for gradients rather than keep what they computed: less memory, more time.
    """

    GAMMA = "ones"  # initial scale of both norms

    def __init__(
        self,
        num_heads,
        window_size,
        shift_size,
        mlp_ratio=4.0,
        drop_path=0.0,
        size_rule="timm",
        query_chunk=0,
        remat=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.window_size = tuple(window_size)
        self.shift_size = tuple(shift_size)
        self.mlp_ratio = mlp_ratio
        self.rate = drop_path
        self.size_rule = size_rule
        self.query_chunk = query_chunk
        self.remat = remat

    def build(self, shape):
        policy = self.dtype_policy
        self.norm1 = layer_norm("norm1", policy, self.GAMMA)
        options = {"query_chunk": self.query_chunk, "autocast": False}  # which would round a float32 bias on its way in
        self.attn = self.make_attention(name="attn", dtype=policy, **options)
        self.drop_path1 = drop_path(self.rate, "drop_path1", policy)
        self.norm2 = layer_norm("norm2", policy, self.GAMMA)
        self.mlp = Mlp(int(shape[-1] * self.mlp_ratio), name="mlp", dtype=policy)
        self.drop_path2 = drop_path(self.rate, "drop_path2", policy)
        for part in (self.norm1, self.norm2, self.mlp):
            part.build(shape)
        self.attn.build((None, math.prod(self.window_size), shape[-1]))

    def compute_output_shape(self, shape):
        return shape

    def make_attention(self, **options):
        """The paper's attention layer."""
        return Attention(self.num_heads, self.window_size, **options)

    def cut(self, x):
        """Roll, pad and cut: (B, H, W, C) -> windows (B*K, N, C), their shift mask or None, and how windows go back."""
        rule = SIZE_RULES[self.size_rule]
        shift = windows.shift_for(rule, sides(x), self.window_size, self.shift_size)
        x, restore = getattr(windows, rule.order)(x, self.window_size, shift)
        size = sides(x)
        still = all(map(windows.is_zero, shift))
        mask = None if still else windows.shift_mask(size, self.window_size, shift, rule.masked)
        cut = windows.partition(x, self.window_size)
        return cut, mask, lambda y: restore(windows.reverse(y, self.window_size, size))

    def attend(self, x, bias):
        """Attend inside windows, which are cut and put back: (B, H, W, C) -> (B, H, W, C)."""
        cut, mask, restore = self.cut(x)
        return restore(self.attn(cut, bias, shift_mask=mask))

    def scores(self, x):
        """Attention weights for this block's input: (B, H, W, C) -> (B, K, heads, N, N)."""
        return self.window_scores(self.norm1(x))

    def window_scores(self, x):
        """Attention weights for the attention branch's input: (B, H, W, C) -> (B, K, heads, N, N)."""
        cut, mask, _ = self.cut(x)
        q, k, _ = self.attn.project(cut)
        scores = self.attn.scores(q, k, self.attn.position_bias(), mask)
        return ops.reshape(scores, (ops.shape(x)[0], -1, *scores.shape[1:]))

    def attention_branch(self, x, bias):
        return self.attend(self.norm1(x), bias)

    def mlp_branch(self, x):
        return self.mlp(self.norm2(x))

    def call(self, x, training=False):
        attention, mlp = self.attention_branch, self.mlp_branch
        if self.remat and training:  # nothing random is inside: it would be drawn anew
            attention, mlp = keras.remat(attention), keras.remat(mlp)
        x = x + self.drop_path1(attention(x, self.attn.position_bias()))
        return x + self.drop_path2(mlp(x))


@keras.saving.register_keras_serializable("swins.v1")
class PatchMerging(Composite):
    """Halve the map, double the channels: LayerNorm, then a linear layer, over 2x2 neighbours.

    (B, H, W, C) -> (B, ceil(H/2), ceil(W/2), 2C)
    """

    def build(self, shape):
        dim = shape[-1]
        self.norm = layer_norm("norm", self.dtype_policy)
        self.norm.build((*shape[:-1], 4 * dim))
        self.reduction = dense(2 * dim, "reduction", self.dtype_policy, use_bias=False)
        self.reduction.build((None, 4 * dim))

    def compute_output_shape(self, shape):
        return (shape[0], *(side and (side + 1) // 2 for side in shape[1:3]), 2 * shape[3])

    def call(self, x):
        return on_tokens(self.reduction, self.norm(windows.neighbours(x)))
