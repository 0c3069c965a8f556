"""Pyramid pooling (arXiv:1612.01105): what a map is on average, in the whole and in 2x2, 3x3 and 6x6 parts.

Letters: B images, (H, W) cells of a map, C channels, O parts along an axis.
"""

import keras
from keras import layers, ops

from swins.changes import Composite
from swins.convolutions import Conv2D
from swins.fresh_weights import kaiming
from swins.layers import NORM_EPSILON
from swins.segmentation.pyramid_convolution import convolved_pyramid, resizing_matrix


def pooling_matrix(length, parts: int):
    """What averages `length` cells in parts, as PyTorch's adaptive pooling: (parts, length), rows of sum 1.

    Part o has the cells from floor(o * length / parts) to ceil((o + 1) * length / parts): parts overlap where they do
    not divide the length. The length may be a tensor.
    """
    part, cell = ops.arange(parts, dtype="int32")[:, None], ops.arange(length, dtype="int32")[None]
    start = part * length // parts
    end = ((part + 1) * length + parts - 1) // parts
    inside = ops.cast(ops.logical_and(cell >= start, cell < end), "float32")
    return inside / ops.cast(end - start, "float32")


def resized(x, size):
    """A map of another size, bilinear between centres of cells and not smoothed: (B, H, W, C) -> (B, *size, C).

    As `interpolate(..., align_corners=False)` of PyTorch. Sizes may be tensors, which Keras' own operation refuses: two
    matrices take its place.
    """
    height, width = ops.shape(x)[1:3]
    y = ops.cast(x, "float32")
    if all(isinstance(side, int) for side in (height, width, *size)):
        y = ops.image.resize(y, size, "bilinear", antialias=False, data_format="channels_last")
    else:
        y = ops.einsum("oh,bhwc->bowc", resizing_matrix(height, size[0]), y)
        y = ops.einsum("pw,bowc->bopc", resizing_matrix(width, size[1]), y)
    return ops.cast(y, x.dtype)


def average_pool(x, parts: int):
    """Averages of parts of a map, float32: (B, H, W, C) -> (B, parts, parts, C)."""
    height, width = ops.shape(x)[1:3]
    rows, columns = pooling_matrix(height, parts), pooling_matrix(width, parts)
    return ops.einsum("oh,bhwc,pw->bopc", rows, ops.cast(x, "float32"), columns)


def shapes_of(shape) -> list:
    """The shapes of several maps, or of one."""
    return list(shape) if isinstance(shape[0], list | tuple) else [shape]


@keras.saving.register_keras_serializable("swins")
class ConvNorm(Composite):
    """Convolution without bias, batch norm, ReLU: (B, H, W, C) -> (B, H, W, channels).

    Of several maps, the finest first, the others are enlarged to its size, and all are laid together.

    Args:
        channels: that it gives.
        kernel: cells of its side, odd.
    """

    def __init__(self, channels, kernel, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels
        self.kernel = kernel

    def build(self, shape):
        options = {"data_format": "channels_last", "dtype": self.dtype_policy, "use_bias": False}
        self.conv = Conv2D(
            self.channels, self.kernel, padding="same", kernel_initializer=kaiming(), name="conv", **options
        )
        self.bn = layers.BatchNormalization(-1, 0.9, NORM_EPSILON, name="bn", dtype=self.dtype_policy)
        self.conv.build((None, None, None, sum(each[-1] for each in shapes_of(shape))))
        self.bn.build((None, None, None, self.channels))

    def compute_output_shape(self, shape):
        return (*shapes_of(shape)[0][:3], self.channels)

    def call(self, x, training=None):
        x = convolved_pyramid(self.conv, x) if isinstance(x, list | tuple) else self.conv(x)
        return ops.relu(self.bn(x, training=training))


@keras.saving.register_keras_serializable("swins")
class AveragePool(layers.Layer):
    """`average_pool` as a layer.

    Args:
        parts: O, along each axis.
    """

    def __init__(self, parts, **kwargs):
        super().__init__(**kwargs)
        self.parts = parts

    def compute_output_shape(self, shape):
        return (shape[0], self.parts, self.parts, shape[3])

    def call(self, x):
        return ops.cast(average_pool(x, self.parts), self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "parts": self.parts}


@keras.saving.register_keras_serializable("swins")
class ResizedAs(layers.Layer):
    """`resized` to the size of another map: [(B, h, w, C), (B, H, W, C')] -> (B, H, W, C)."""

    def compute_output_shape(self, shapes):
        (batch, _, _, channels), (_, height, width, _) = shapes
        return (batch, height, width, channels)

    def call(self, maps):
        x, other = maps
        return resized(x, ops.shape(other)[1:3])


def pyramid_pooling(x, width: int, bins: tuple, dtype):
    """A map, and beside it its averages in parts, brought to one width: (B, H, W, C) -> (B, H, W, width).

    Args:
        x: the coarsest map.
        width: channels of each average and of what is made of all.
        bins: parts along each axis of each average, such as (1, 2, 3, 6).
        dtype: a Keras dtype policy.
    """
    maps = [x]
    for i, parts in enumerate(bins):
        y = AveragePool(parts, name=f"psp_modules_{i}_pool", dtype=dtype)(x)
        y = ConvNorm(width, 1, name=f"psp_modules_{i}", dtype=dtype)(y)
        maps.append(ResizedAs(name=f"psp_modules_{i}_resized", dtype=dtype)([y, x]))
    maps = layers.Concatenate(name="psp_concat", dtype=dtype)(maps)
    return ConvNorm(width, 3, name="bottleneck", dtype=dtype)(maps)
