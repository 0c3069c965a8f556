"""Layers of deployed models: the numbers of the family's blocks and mergings from less work.

What differs: position networks are computed once, into tables; a table has the shift mask in it, for the four kinds of
window that it tells apart; the query's scale lies in its projection; one gather rolls, pads and cuts a map, another
puts it back; between them tokens are the rows of a matrix, so that oneDNN adds a residual branch while it multiplies;
nothing that only training needs is left.

Letters: B batch, (H, W) tokens of a feature map, C channels, T = B * H * W, (M, M') window sides, N = M * M',
K windows of an image, D channels of a head.
"""

import functools
import math

import keras
import numpy as np
from keras import layers, ops

from swins import deformable, v1, v2, windows
from swins.changes import Composite
from swins.layers import NORM_EPSILON, gelu, on_tokens, softmax
from swins.map_sides import sides
from swins.renamed import Renamed
from swins.sequential import by_queries
from swins.size_rules import SIZE_RULES

KINDS = (2, 2)  # a map of so many windows has each kind once: neither, rightmost, lowest, both


def numbers(tensor):
    """Values of a tensor or variable, float32 numpy."""
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


@functools.lru_cache
def layout(size, window, shift, size_rule):
    """`places` of a known size as numpy vectors, which blocks alike share."""
    return tuple(ops.convert_to_numpy(x).astype("int32") for x in places(size, window, shift, size_rule))


def places(size, window, shift, size_rule):
    """Where tokens go, as vectors of integers.

    Returns:
        order (K*N): which token lies at a place of a window, counted from 1; 0 where padding does.
        back (H*W): at which place, counted from 0, a token lies.
        kinds (K): 2 for windows of the lowest row + 1 for those of the rightmost column, along axes that are shifted.
    """
    (h, w), (m, n), rule = size, window, SIZE_RULES[size_rule]
    tokens = ops.reshape(ops.arange(1, h * w + 1), (1, h, w, 1))
    shift = windows.shift_for(rule, size, window, shift)
    rolled, restore = getattr(windows, rule.order)(tokens, window, shift)
    rows, columns = (side // m for side, m in zip(sides(rolled), window, strict=True))
    ordered = ops.reshape(ops.arange(rows * columns * m * n), (-1, m * n, 1))
    back = restore(windows.reverse(ordered, window, sides(rolled)))
    lowest, rightmost = (
        ops.cast(ops.logical_and(ops.arange(count) == count - 1, s > 0), "int32")
        for count, s in zip((rows, columns), shift, strict=True)
    )
    kinds = 2 * lowest[:, None] + rightmost[None, :]
    return tuple(ops.reshape(x, (-1,)) for x in (windows.partition(rolled, window), back, kinds))


@keras.saving.register_keras_serializable("swins.deploy")
class Norm(layers.Layer):
    """LayerNorm over channels, (..., C) -> (..., C), float32 inside, in operations that other runtimes fuse.

    OpenVINO does so for matrices, and for axes given as a list.
    """

    def build(self, shape):
        self.gamma = self.add_weight((shape[-1],), "ones", name="gamma")
        self.beta = self.add_weight((shape[-1],), "zeros", name="beta")

    def compute_output_shape(self, shape):
        return shape

    def call(self, x):
        return self.normalize(x) if len(x.shape) == 2 else on_tokens(self.normalize, x)

    def normalize(self, x):
        y = ops.cast(x, "float32")
        y = y - ops.mean(y, axis=[-1], keepdims=True)
        y = y / ops.sqrt(ops.mean(y * y, axis=[-1], keepdims=True) + NORM_EPSILON)
        return ops.cast(y * ops.cast(self.gamma, y.dtype) + ops.cast(self.beta, y.dtype), x.dtype)

    def take_over(self, norm):
        self.gamma.assign(numbers(norm.gamma))
        self.beta.assign(numbers(norm.beta))


@keras.saving.register_keras_serializable("swins.deploy")
class FusedNorm(Norm):
    """LayerNorm over channels, (..., C) -> (..., C), as one operation of the backend."""

    def call(self, x):
        if keras.backend.backend() == "tensorflow":
            return self.onednn(x)
        return ops.layer_normalization(x, self.gamma, self.beta, axis=-1, epsilon=NORM_EPSILON)

    def onednn(self, x):
        """The form that TensorFlow's optimiser makes oneDNN's operation of.

        That is a batch norm, of a matrix, whose channels are the tokens. The placeholders' defaults are all they ever
        hold; without them the optimiser would fold the number of tokens, and reshapes into each other, before it
        looks for this pattern.
        """
        import tensorflow as tf

        matrix, dim, nothing = x, x.shape[-1], tf.constant([], "float32")
        if len(x.shape) > 2:
            matrix = tf.reshape(x, (-1, dim))
            matrix = tf.raw_ops.PlaceholderWithDefault(input=matrix, shape=(None, dim))
        tokens = tf.raw_ops.PlaceholderWithDefault(input=tf.shape(matrix)[0], shape=())
        y, *_ = tf.raw_ops.FusedBatchNormV3(
            x=tf.reshape(matrix, (1, tokens, dim, 1)),
            scale=tf.ones((tokens,)),
            offset=tf.zeros((tokens,)),
            mean=nothing,
            variance=nothing,
            epsilon=NORM_EPSILON,
            data_format="NCHW",
            is_training=True,
        )
        y = self.beta + tf.reshape(y, tf.shape(matrix)) * self.gamma
        return tf.reshape(y, tf.shape(x)) if len(x.shape) > 2 else y


NORMS = {"portable": Norm, "fused": FusedNorm}


@keras.saving.register_keras_serializable("swins.deploy")
class Linear(layers.Dense):
    """A linear layer, (T, C) -> (T, C'); on PyTorch in one operation, of which Keras makes two."""

    def call(self, x):
        if keras.backend.backend() != "torch" or not self.use_bias:
            return super().call(x)
        return ops.convert_to_tensor(self.bias).addmm(x, ops.convert_to_tensor(self.kernel))


class Part(Composite):
    """A layer of a deployed model, which makes its own parts.

    Args:
        norm_form: "fused" or "portable": what it normalises with (NORMS).
    """

    def __init__(self, norm_form, **kwargs):
        super().__init__(**kwargs)
        self.norm_form = norm_form

    def make_norm(self, name, dim):
        layer = NORMS[self.norm_form](name=name, dtype=self.dtype_policy)
        layer.build((None, dim))
        return layer

    def make_dense(self, units, name, dim, use_bias=True):
        layer = Linear(units, use_bias=use_bias, name=name, dtype=self.dtype_policy)
        layer.build((None, dim))
        return layer


def average(k, v, q, bias):
    """Values, averaged with the attention weights: q (B', h, n, D), k (B', h, D, N), v (B', h, N, D) -> (B', h, n, D).

    bias is broadcast to (B', h, n, N).
    """
    if keras.backend.backend() == "torch" and q.dtype == v.dtype:  # which has attention fused
        q, k, v = (ops.transpose(x, axes) for x, axes in ((q, (0, 2, 1, 3)), (k, (0, 3, 1, 2)), (v, (0, 2, 1, 3))))
        return ops.transpose(ops.dot_product_attention(q, k, v, bias=bias, scale=1.0), (0, 2, 1, 3))
    weights = softmax(ops.matmul(q, k) + bias)
    return ops.matmul(ops.cast(weights, v.dtype), v)


@keras.saving.register_keras_serializable("swins.deploy")
class Block(Renamed, Part):
    """V1's block: (B, H, W, C) -> (B, H, W, C).

    Args:
        num_heads, window_size, shift_size, size_rule, query_chunk: those of v1.Block.
        hidden_dim: channels inside the MLP.
        norm_form: Part's, by name.
    """

    SIMILARITY = None  # type of the logits; None for the layer's own
    compute_output_shape = v1.Block.compute_output_shape

    def __init__(self, num_heads, window_size, shift_size, hidden_dim, size_rule, query_chunk=0, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.window_size = tuple(window_size)
        self.shift_size = tuple(shift_size)
        self.hidden_dim = hidden_dim
        self.size_rule = size_rule
        self.query_chunk = query_chunk

    def build(self, shape):
        dim, area = shape[-1], math.prod(self.window_size)
        self.q, self.k, self.v, self.proj = (self.make_dense(dim, name, dim) for name in ("q", "k", "v", "proj"))
        self.fc1 = self.make_dense(self.hidden_dim, "fc1", dim)
        self.fc2 = self.make_dense(dim, "fc2", self.hidden_dim)
        self.norm1, self.norm2 = (self.make_norm(name, dim) for name in ("norm1", "norm2"))
        self.table = self.add_weight(
            (math.prod(KINDS) if any(self.shift_size) else 1, self.num_heads, area, area),
            "zeros",
            self.SIMILARITY or self.compute_dtype,
            autocast=False,
            name="table",
        )
        self.cutting = self.window_size, self.shift_size, self.size_rule
        self.layout = layout(tuple(shape[1:3]), *self.cutting) if None not in shape[1:3] else None

    def take_over(self, block):
        """Take over what a block of the model computes with."""
        attn, shift = block.attn, self.shift_size
        kernels, biases = (np.split(x, 3, axis=-1) for x in self.projections(attn))
        for part, kernel, bias in zip((self.q, self.k, self.v), kernels, biases, strict=True):
            part.kernel.assign(kernel)
            part.bias.assign(bias)
        for mine, its in ((self.proj, attn.proj), (self.fc1, block.mlp.fc1), (self.fc2, block.mlp.fc2)):
            mine.kernel.assign(numbers(its.kernel))
            mine.bias.assign(numbers(its.bias))
        self.norm1.take_over(block.norm1)
        self.norm2.take_over(block.norm2)
        table = numbers(attn.position_bias())[None]
        if any(shift):
            size = [count * m for count, m in zip(KINDS, self.window_size, strict=True)]
            masked = SIZE_RULES[self.size_rule].masked
            table = table + numbers(windows.shift_mask(size, self.window_size, shift, masked))[:, None]
        self.table.assign(table)

    def projections(self, attn):
        """Kernel (C, 3C) and bias (3C) of queries, scaled, keys and values."""
        kernel, bias = numbers(attn.qkv.kernel), numbers(attn.qkv.bias)
        scale = np.repeat([1 / math.sqrt(kernel.shape[0] // self.num_heads), 1, 1], kernel.shape[0]).astype("float32")
        return kernel * scale, bias * scale

    def cut(self, tokens, area, order):
        """Windows one after the other: (T, C) -> (B*K*N, C)."""
        maps = ops.reshape(tokens, (-1, area, tokens.shape[-1]))
        if isinstance(order, np.ndarray) and order.all():
            if (np.diff(order) == 1).all():
                return tokens
            maps = ops.take(maps, order - 1, axis=1)
        else:
            maps = ops.take(ops.pad(maps, ((0, 0), (1, 0), (0, 0))), order, axis=1)
        return ops.reshape(maps, (-1, tokens.shape[-1]))

    def compared(self, q, k):
        """Queries and keys whose dot products are the logits; keeps (B*K, N, heads, D)."""
        return q, k

    def attend(self, x, kinds):
        """Attention inside windows: (B*K*N, C) -> (B*K*N, C)."""
        shape = (-1, math.prod(self.window_size), self.num_heads, x.shape[-1] // self.num_heads)
        q, k, v = (ops.reshape(part(x), shape) for part in (self.q, self.k, self.v))
        q, k = self.compared(q, k)
        q, k, v = (ops.transpose(y, axes) for y, axes in ((q, (0, 2, 1, 3)), (k, (0, 2, 3, 1)), (v, (0, 2, 1, 3))))
        masked = any(self.shift_size)
        if masked:  # windows beside heads: a rank that runtimes know attention by
            count = ops.shape(kinds)[0] * self.num_heads
            q, k, v = (ops.reshape(y, (-1, count, *y.shape[2:])) for y in (q, k, v))

        def averaged(k, v, q, table):
            bias = ops.reshape(ops.take(table, kinds, axis=0), (1, count, *table.shape[2:])) if masked else table
            return average(k, v, q, bias)

        y = by_queries(averaged, self.query_chunk, q, k, v, ops.convert_to_tensor(self.table))
        y = ops.transpose(ops.reshape(y, (-1, self.num_heads, *y.shape[2:])), (0, 2, 1, 3))
        return ops.reshape(y, (-1, x.shape[-1]))

    def restore(self, x, back, count, tokens):
        """Undo `cut`: (B*K*N, C) -> (T, C), the shape of tokens."""
        if not (isinstance(back, np.ndarray) and len(back) == count and (np.diff(back) == 1).all()):
            x = ops.take(ops.reshape(x, (-1, count, x.shape[-1])), back, axis=1)
        return ops.reshape(x, ops.shape(tokens))

    def in_windows(self, tokens, size):
        """Attention without its norm and projection: (T, C) -> (T, C)."""
        order, back, kinds = self.layout or places(size, *self.cutting)
        y = self.attend(self.cut(tokens, size[0] * size[1], order), kinds)
        return self.restore(y, back, ops.shape(order)[0], tokens)

    def mlp(self, tokens):
        return self.fc2(gelu(self.fc1(tokens)))

    def branches(self, tokens, size):
        """Two residual lines: (T, C) -> (T, C)."""
        tokens = tokens + self.proj(self.in_windows(self.norm1(tokens), size))
        return tokens + self.mlp(self.norm2(tokens))

    def call(self, x):
        y = self.branches(ops.reshape(x, (-1, x.shape[-1])), sides(x))
        return ops.reshape(y, ops.shape(x))


@keras.saving.register_keras_serializable("swins.deploy")
class BlockV2(Block):
    """The block of V2 and V2-CR: (B, H, W, C) -> (B, H, W, C).

    Args: Block's.
    """

    SIMILARITY = "float32"

    def build(self, shape):
        super().build(shape)
        self.scale = self.add_weight((self.num_heads, 1), "ones", "float32", autocast=False, name="scale")

    def take_over(self, block):
        super().take_over(block)
        self.scale.assign(np.exp(np.minimum(numbers(block.attn.logit_scale).reshape(-1, 1), v2.LARGEST_SCALE)))

    def projections(self, attn):
        kernel = numbers(attn.qkv.kernel)
        if attn.qkv.use_bias:
            return kernel, numbers(attn.qkv.bias)
        query, value = numbers(attn.q_bias), numbers(attn.v_bias)
        return kernel, np.concatenate([query, np.zeros_like(query), value])

    def compared(self, q, k):
        return v2.unit(q) * self.scale, v2.unit(k)

    def branches(self, tokens, size):
        tokens = tokens + self.norm1(self.proj(self.in_windows(tokens, size)))
        return tokens + self.norm2(self.mlp(tokens))


@keras.saving.register_keras_serializable("swins.deploy")
class DeformableBlock(BlockV2):
    """V2-CR's block on a map that is sampled at learned offsets first: (B, H, W, C) -> (B, H, W, C).

    Args: Block's.
    """

    deform, offsets, make_offsets = (getattr(deformable.Block, n) for n in ("deform", "offsets", "make_offsets"))

    def build(self, shape):
        super().build(shape)
        self.make_offsets(shape[-1])

    def take_over(self, block):
        super().take_over(block)
        for mine, its in ((self.offset_0, block.offset_0), (self.offset_2, block.offset_2)):
            mine.set_weights(its.get_weights())

    def call(self, x):
        return super().call(self.deform(x))


@keras.saving.register_keras_serializable("swins.deploy")
class PatchMerging(Part):
    """V1's merging: (B, H, W, C) -> (B, ceil(H/2), ceil(W/2), 2C)."""

    compute_output_shape = v1.PatchMerging.compute_output_shape

    def build(self, shape):
        dim = 4 * shape[-1]
        self.norm = self.make_norm("norm", dim)
        self.reduction = self.make_dense(dim // 2, "reduction", dim, use_bias=False)

    def take_over(self, merging):
        self.norm.take_over(merging.norm)
        self.reduction.kernel.assign(numbers(merging.reduction.kernel))

    def merge(self, x):
        """(B, H, W, 4C) -> (T, 2C)."""
        return self.reduction(ops.reshape(self.norm(x), (-1, x.shape[-1])))

    def call(self, x):
        x = windows.neighbours(x)
        y = self.merge(x)
        return ops.reshape(y, (*ops.shape(x)[:3], y.shape[-1]))


@keras.saving.register_keras_serializable("swins.deploy")
class PatchMergingV2(PatchMerging):
    """V2's merging, normalised last: (B, H, W, C) -> (B, ceil(H/2), ceil(W/2), 2C)."""

    def build(self, shape):
        dim = 4 * shape[-1]
        self.reduction = self.make_dense(dim // 2, "reduction", dim, use_bias=False)
        self.norm = self.make_norm("norm", dim // 2)

    def merge(self, x):
        return self.norm(self.reduction(ops.reshape(x, (-1, x.shape[-1]))))
