"""Parts of RuslanGreenhead/swin_transformer's U-shaped network that the family has not.

Letters: B images, (H, W) cells of a map, C channels.
"""

import keras
from keras import layers

from swins.changes import Composite
from swins.convolutions import Conv2D
from swins.layers import layer_norm
from swins.patch_expanding import PatchExpanding


def conv(channels, side, name, dtype, **options):
    """A convolution that keeps the map's size."""
    same = {"padding": "same", "data_format": "channels_last", "name": name, "dtype": dtype}
    return Conv2D(channels, side, **{**same, **options})


@keras.saving.register_keras_serializable("swins.diffusion")
class NormedConvMerging(Composite):
    """Halve the map, double the channels: LayerNorm of each cell, then a 2x2 convolution.

    (B, H, W, C) -> (B, H/2, W/2, 2C). The papers normalise four cells together: their merging has 6C more weights.
    """

    def build(self, shape):
        self.norm = layer_norm("norm", self.dtype_policy)
        self.norm.build(shape)
        self.reduction = conv(2 * shape[-1], 2, "reduction", self.dtype_policy, strides=2, use_bias=False)
        self.reduction.build(shape)

    def compute_output_shape(self, shape):
        return (shape[0], *(side and side // 2 for side in shape[1:3]), 2 * shape[3])

    def call(self, x):
        return self.reduction(self.norm(x))


@keras.saving.register_keras_serializable("swins.diffusion")
class DualUpsampling(Composite):
    """Double the map, halve the channels, two ways that a 1x1 convolution joins: (B, H, W, C) -> (B, 2H, 2W, C/2).

    They are patch expanding, and a 1x1 convolution enlarged bilinearly; the reference enlarges first, which gives the
    same for four times the work.
    """

    def build(self, shape):
        dim, policy = shape[-1], self.dtype_policy
        self.expand = PatchExpanding(name="expand", dtype=policy)
        self.align = conv(dim // 2, 1, "align", policy)
        self.enlarge = layers.UpSampling2D(
            2, data_format="channels_last", interpolation="bilinear", name="enlarge", dtype=policy
        )
        self.fuse = conv(dim // 2, 1, "fuse", policy)
        self.expand.build(shape)
        self.align.build(shape)
        self.enlarge.build((*shape[:-1], dim // 2))
        self.fuse.build((*shape[:-1], 2 * (dim // 2)))

    def compute_output_shape(self, shape):
        return (shape[0], *(side and 2 * side for side in shape[1:3]), shape[3] // 2)

    def call(self, x):
        return self.fuse(keras.ops.concatenate([self.expand(x), self.enlarge(self.align(x))], axis=-1))
