"""FPN (arXiv:1612.03144): maps of one width, each with what the coarser ones know, and coarser maps after them.

Letters: B images, (H, W) cells of a map, C channels.
"""

import keras
from keras import ops

from swins.changes import Composite
from swins.convolutions import Conv2D


def doubled(x):
    """Each cell becomes 2x2 of the same: (B, H, W, C) -> (B, 2H, 2W, C)."""
    return ops.repeat(ops.repeat(x, 2, axis=1), 2, axis=2)


def halved(x):
    """Every second cell, from the first: (B, H, W, C) -> (B, ceil(H/2), ceil(W/2), C)."""
    return x[:, ::2, ::2]


@keras.saving.register_keras_serializable("swins")
class FeaturePyramid(Composite):
    """[(B, H, W, C_l)] fine to coarse, each half as large as the one before -> as many maps of `width`, and more.

    A 1x1 convolution gives each map the width, the coarser sum is added to it, each cell as 2x2, and a 3x3 convolution
    smooths each sum. Extra maps are every second cell of the last. None has a norm or an activation.

    Args:
        width: channels of every map that it gives.
        extra_levels: how many coarser maps follow.
    """

    def __init__(self, width=256, extra_levels=1, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.extra_levels = extra_levels

    def build(self, shapes):
        options = {"data_format": "channels_last", "dtype": self.dtype_policy}  # Xavier uniform, zero bias
        levels = range(len(shapes))
        self.lateral_convs = [Conv2D(self.width, 1, name=f"lateral_convs_{i}", **options) for i in levels]
        self.fpn_convs = [Conv2D(self.width, 3, padding="same", name=f"fpn_convs_{i}", **options) for i in levels]
        for lateral, smooth, shape in zip(self.lateral_convs, self.fpn_convs, shapes, strict=True):
            lateral.build((None, None, None, shape[-1]))
            smooth.build((None, None, None, self.width))

    def call(self, maps):
        sums = [lateral(x) for lateral, x in zip(self.lateral_convs, maps, strict=True)]
        for i in reversed(range(len(sums) - 1)):
            sums[i] = sums[i] + doubled(sums[i + 1])
        outputs = [smooth(x) for smooth, x in zip(self.fpn_convs, sums, strict=True)]
        for _ in range(self.extra_levels):
            outputs.append(halved(outputs[-1]))
        return outputs
