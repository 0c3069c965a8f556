"""V2-CR's deformable block, after ChristophReich1996/Swin-Transformer-V2 and arXiv:2201.00520: each head's channels are
sampled where a small network points, then go through the plain block.

Letters: B batch, (H, W) tokens of a feature map, C channels, D channels of a head.
"""

import itertools

import keras
from keras import layers, ops

from swins import v2_cr
from swins.fresh_weights import xavier
from swins.layers import gelu
from swins.map_sides import sides

KERNEL, STRIDE, PADDING = 5, 2, 3  # of the offset network, in tokens


def steps(side):
    """0, 1, ... side - 1 as float32."""
    return ops.cast(ops.arange(side), "float32")


def last(side):
    """side - 1 as float32."""
    return ops.cast(side, "float32") - 1.0


def stretch(x, size):
    """Resize bilinearly, corners onto corners (torch's align_corners): float32 (B, h, w, C) -> (B, *size, C)."""
    rows, columns = (
        ops.relu(1.0 - ops.abs(steps(wide)[:, None] * (last(narrow) / ops.maximum(last(wide), 1.0)) - steps(narrow)))
        for wide, narrow in zip(size, sides(x), strict=True)
    )
    return ops.einsum("bhwc,ih,jw->bijc", x, rows, columns)


def sample(x, rows, columns):
    """Bilinear values of each head at its own points.

    x (B, H, W, heads, D), rows and columns (B, H, W, heads) float32, in tokens and inside -> (B, H, W, heads, D).
    """
    batch, height, width, heads, depth = ops.shape(x)
    image = ops.arange(batch)[:, None, None, None] * (height * width * heads) + ops.arange(heads)
    flat = ops.reshape(x, (-1, depth))
    top, left = ops.floor(rows), ops.floor(columns)
    down, right = rows - top, columns - left
    total = 0.0
    for i, j in itertools.product((0, 1), repeat=2):
        row = ops.minimum(ops.cast(top, "int32") + i, height - 1)
        column = ops.minimum(ops.cast(left, "int32") + j, width - 1)
        weight = (down if i else 1.0 - down) * (right if j else 1.0 - right)
        values = ops.take(flat, ops.cast(image, "int32") + (row * width + column) * heads, axis=0)
        total = total + ops.cast(weight, x.dtype)[..., None] * values
    return total


@keras.saving.register_keras_serializable("swins.deformable")
class Block(v2_cr.Block):
    """V2-CR's block on a map that is sampled at learned offsets first: (B, H, W, C) -> (B, H, W, C).

    A head's offsets are tanh of the network's output, times half the map; points stay inside. The sampled map replaces
    the input, on the main branch too. Fresh offsets are 0: the block starts as the plain one.

    Args: v2_cr.Block's.
    """

    def build(self, shape):
        super().build(shape)
        self.make_offsets(shape[-1])

    def make_offsets(self, dim):
        """The network of offsets, built for C channels."""
        same = {"data_format": "channels_last", "dtype": self.dtype_policy}
        self.offset_0 = layers.DepthwiseConv2D(
            KERNEL, STRIDE, depthwise_initializer=xavier(), name="offset_network_0", **same
        )
        self.offset_2 = layers.Conv2D(
            2 * self.num_heads, 1, kernel_initializer="zeros", name="offset_network_2", **same
        )
        self.offset_0.build((None, None, None, dim))
        self.offset_2.build((None, None, None, dim))

    def offsets(self, x):
        """Offsets of each head over half the map, from -1 to 1: (B, H, W, C) -> (B, H, W, heads, 2), (x, y)."""
        edge = (PADDING, PADDING)
        y = self.offset_2(gelu(self.offset_0(ops.pad(x, ((0, 0), edge, edge, (0, 0))))))
        y = stretch(ops.cast(y, "float32"), sides(x))
        return ops.tanh(ops.reshape(y, (*ops.shape(x)[:3], self.num_heads, 2)))

    def deform(self, x):
        """Sample each head's channels at its offsets: (B, H, W, C) -> (B, H, W, C)."""
        offsets = self.offsets(x)
        height, width = sides(x)
        rows = steps(height)[:, None, None] + offsets[..., 1] * (last(height) / 2)
        columns = steps(width)[:, None] + offsets[..., 0] * (last(width) / 2)
        inside = ops.clip(rows, 0.0, last(height)), ops.clip(columns, 0.0, last(width))
        heads = ops.reshape(x, (*ops.shape(x)[:3], self.num_heads, x.shape[-1] // self.num_heads))
        return ops.reshape(sample(heads, *inside), ops.shape(x))

    def scores(self, x):
        """Attention weights for this block's input: (B, H, W, C) -> (B, K, heads, N, N)."""
        return super().scores(self.deform(x))

    def call(self, x, training=False):
        return super().call(self.deform(x), training=training)
