"""How time and class reach a network: embeddings, what is added to maps, and norms that they set.

Letters: B images, (H, W) cells of a map, C channels, D channels of the condition, K classes.
"""

import math

import keras
import numpy as np
from keras import layers, ops

from swins import v1, v2
from swins.changes import Composite
from swins.fresh_weights import Normal, xavier
from swins.layers import dense, gelu

LONGEST = 10000.0  # times over which the slowest wave turns by one radian


def sinusoid(time, dim: int):
    """Sines, then cosines, of a time at falling frequencies: (B,) -> (B, dim) float32; of an odd dim the last is 0."""
    half = dim // 2
    frequencies = np.exp(-math.log(LONGEST) * np.arange(half) / half)
    angles = ops.cast(time, "float32")[:, None] * ops.convert_to_tensor(frequencies, dtype="float32")
    waves = ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=1)
    return ops.pad(waves, ((0, 0), (0, dim % 2))) if dim % 2 else waves


def linear(units, name, dtype, **options):
    """A linear layer of embeddings, of Glorot's scale: what is small here is learnt late."""
    return layers.Dense(units, kernel_initializer=xavier(), name=name, dtype=dtype, **options)


def embedding(count, dim, name, dtype):
    """A learned vector for each of `count` classes."""
    return layers.Embedding(count, dim, Normal(stddev=1.0), name=name, dtype=dtype)


@keras.saving.register_keras_serializable("swins.diffusion")
class TimeEmbedding(Composite):
    """A time as a vector: waves, then two linear layers with GELU in between: (B,) -> (B, D) float32.

    Args:
        dim: D; four times as many lie in between.
    """

    def __init__(self, dim, **kwargs):
        super().__init__(**kwargs)
        self.dim = dim

    def build(self, shape):
        self.fc1 = linear(4 * self.dim, "fc1", "float32")
        self.fc2 = linear(self.dim, "fc2", "float32")
        self.fc1.build((None, self.dim))
        self.fc2.build((None, 4 * self.dim))

    def compute_output_shape(self, shape):
        return (shape[0], self.dim)

    def call(self, time):
        return self.fc2(gelu(self.fc1(sinusoid(time, self.dim))))


@keras.saving.register_keras_serializable("swins.diffusion")
class ClassMaps(Composite):
    """Say a class in channels beside an image: [(B, H, W, C), (B,)] -> (B, H, W, C + maps).

    Args:
        count: classes.
        dim: channels of an embedded class; 16 lie between it and the maps.
        maps: channels, each of one value.
    """

    HIDDEN = 16

    def __init__(self, count, dim, maps, **kwargs):
        super().__init__(**kwargs)
        self.count, self.dim, self.maps = count, dim, maps

    def build(self, shapes):
        self.embedding = embedding(self.count, self.dim, "embedding", "float32")
        self.fc1 = linear(self.HIDDEN, "fc1", "float32", activation="relu")
        self.fc2 = linear(self.maps, "fc2", "float32")
        self.embedding.build((None,))
        self.fc1.build((None, self.dim))
        self.fc2.build((None, self.HIDDEN))

    def compute_output_shape(self, shapes):
        return (*shapes[0][:-1], shapes[0][-1] + self.maps)

    def call(self, inputs):
        images, classes = inputs
        values = ops.cast(self.fc2(self.fc1(self.embedding(classes))), images.dtype)
        ones = ops.ones_like(images[..., :1])
        return ops.concatenate([images, ones * values[:, None, None, :]], axis=-1)


@keras.saving.register_keras_serializable("swins.diffusion")
class Added(Composite):
    """Add what two linear layers make of a condition to every cell: [(B, H, W, C), (B, D)] -> (B, H, W, C)."""

    def build(self, shapes):
        dim, condition = shapes[0][-1], shapes[1][-1]
        self.fc1 = dense(dim, "fc1", self.dtype_policy)
        self.fc2 = dense(dim, "fc2", self.dtype_policy)
        self.fc1.build((None, condition))
        self.fc2.build((None, dim))

    def compute_output_shape(self, shapes):
        return shapes[0]

    def call(self, inputs):
        x, condition = inputs
        return x + self.fc2(gelu(self.fc1(condition)))[:, None, None, :]


class Adaptive:
    """What a block of any paper becomes where a condition sets its norms: [(B, H, W, C), (B, D)] -> (B, H, W, C).

    SiLU and a linear layer, zero at first, make NUMBERS numbers a channel of the condition (arXiv:2212.09748,
    section 3.2).
    """

    NUMBERS = 4

    def build(self, shapes):
        shape, condition = shapes
        super().build(shape)
        self.modulation = layers.Dense(
            self.NUMBERS * shape[-1], kernel_initializer="zeros", name="modulation", dtype=self.dtype_policy
        )
        self.modulation.build(condition)

    def compute_output_shape(self, shapes):
        return shapes[0]

    def modulations(self, condition):
        """NUMBERS tensors (B, 1, 1, C)."""
        numbers = self.modulation(ops.silu(condition))
        return ops.split(numbers[:, None, None, :], self.NUMBERS, axis=-1)


def modulate(x, scale, shift):
    """Scale and shift normed maps, by 1 and 0 where the numbers are 0."""
    return x * (1 + scale) + shift


@keras.saving.register_keras_serializable("swins.diffusion")
class AdaptiveBlock(Adaptive, v1.Block):
    """V1's block whose norms and branches a condition scales; a fresh one is the identity.

    Args: v1.Block's.
    """

    NUMBERS = 6

    def branches(self, training):
        """Attention and MLP of normed maps; with `remat` they compute again for gradients."""
        parts = self.attend, self.mlp
        return tuple(map(keras.remat, parts)) if self.remat and training else parts

    def call(self, inputs, training=False):
        x, condition = inputs
        scale1, shift1, gate1, scale2, shift2, gate2 = self.modulations(condition)
        attention, mlp = self.branches(training)
        x = x + self.drop_path1(gate1 * attention(modulate(self.norm1(x), scale1, shift1), self.attn.position_bias()))
        return x + self.drop_path2(gate2 * mlp(modulate(self.norm2(x), scale2, shift2)))


@keras.saving.register_keras_serializable("swins.diffusion")
class AdaptiveBlockV2(Adaptive, v2.Block):
    """V2's block whose norms, which end its branches, a condition scales; a fresh one is the identity.

    Args: v2.Block's.
    """

    def branches(self, training):
        """Attention and MLP, normed; with `remat` they compute again for gradients."""
        parts = self.attention_branch, self.mlp_branch
        return tuple(map(keras.remat, parts)) if self.remat and training else parts

    def call(self, inputs, training=False):
        x, condition = inputs
        scale1, shift1, scale2, shift2 = self.modulations(condition)
        attention, mlp = self.branches(training)
        x = x + self.drop_path1(modulate(attention(x, self.attn.position_bias()), scale1, shift1))
        return x + self.drop_path2(modulate(mlp(x), scale2, shift2))
