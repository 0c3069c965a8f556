"""Parts that every paper of the family shares: exact GELU, MLP, patch embedding, stochastic depth.

Letters: B batch, (H, W) tokens of a feature map, C channels, P patch side in pixels.
"""

import math

import keras
from keras import layers, ops

from swins.changes import Composite
from swins.fresh_weights import papers_normal, torch_linear
from swins.map_sides import laid_out
from swins.windows import pad

NORM_EPSILON = 1e-5  # PyTorch's; the Keras default is 1e-3


def gelu(x):
    """Exact GELU, x * Phi(x), same shape.

    Written with erf on TensorFlow, whose `ops.gelu` lowers to Erfc, which ONNX has not; JAX and torch have the reverse.
    """
    if keras.backend.backend() == "tensorflow":
        return 0.5 * x * (1.0 + ops.erf(x * math.sqrt(0.5)))
    return ops.gelu(x, approximate=False)


def softmax(logits):
    """Softmax over the last axis; for one token, exactly 1 (with its zero gradient) and not Keras' warning."""
    return ops.exp(logits - logits) if logits.shape[-1] == 1 else ops.softmax(logits)


def layer_norm(name, dtype=None, gamma="ones"):
    """LayerNorm over channels with PyTorch's epsilon; gamma is the initial scale."""
    return layers.LayerNormalization(epsilon=NORM_EPSILON, gamma_initializer=gamma, name=name, dtype=dtype)


def dense(units, name, dtype=None, use_bias=True):
    """Linear layer over channels, initialised as the papers do."""
    return layers.Dense(units, use_bias=use_bias, kernel_initializer=papers_normal(), name=name, dtype=dtype)


def drop_path(rate, name, dtype=None):
    """Stochastic depth (arXiv:1603.09382): drop a residual branch (B, H, W, C) per image, scale the others up."""
    return layers.Dropout(rate, noise_shape=(None, 1, 1, 1), name=name, dtype=dtype)


def on_tokens(function, x):
    """Apply a function of (tokens, C) to x (..., C) -> (..., C').

    TensorFlow's oneDNN fuses matmul, bias and GELU only for matrices: the MLP is 1.5 to 3 times faster.
    """
    return laid_out(function(ops.reshape(x, (-1, x.shape[-1]))), x)


@keras.saving.register_keras_serializable("swins")
class Mlp(layers.Layer):
    """Two dense layers with GELU in between: (..., C) -> (..., C).

    Args:
        hidden_dim: channels between the two layers.
    """

    def __init__(self, hidden_dim, **kwargs):
        super().__init__(**kwargs)
        self.hidden_dim = hidden_dim

    def build(self, shape):
        self.fc1 = dense(self.hidden_dim, "fc1", self.dtype_policy)
        self.fc2 = dense(shape[-1], "fc2", self.dtype_policy)
        self.fc1.build((None, shape[-1]))
        self.fc2.build((None, self.hidden_dim))

    def call(self, x):
        return on_tokens(lambda tokens: self.fc2(gelu(self.fc1(tokens))), x)


@keras.saving.register_keras_serializable("swins")
class PadToPatches(layers.Layer):
    """Zeros at the bottom and right of images, up to whole patches of P pixels: (B, h, w, C) -> (B, H*P, W*P, C)."""

    def __init__(self, patch_size, **kwargs):
        super().__init__(**kwargs)
        self.patch_size = patch_size

    def call(self, images):
        return pad(images, (self.patch_size,) * 2)


@keras.saving.register_keras_serializable("swins")
class PatchEmbed(Composite):
    """Project each patch of pixels to a normalised token: (B, H*P, W*P, channels) -> (B, H, W, C).

    Args:
        dim: C, channels of a token.
        patch_size: P, pixels.
    """

    def __init__(self, dim, patch_size, **kwargs):
        super().__init__(**kwargs)
        self.dim = dim
        self.patch_size = patch_size

    def build(self, shape):
        fresh = torch_linear(self.patch_size**2 * shape[-1])
        same = {"data_format": "channels_last", "dtype": self.dtype_policy, **fresh}
        self.proj = layers.Conv2D(self.dim, self.patch_size, self.patch_size, name="proj", **same)
        self.norm = layer_norm("norm", self.dtype_policy)
        self.proj.build(shape)
        self.norm.build((None, None, None, self.dim))

    def call(self, images):
        return self.norm(self.proj(images))
