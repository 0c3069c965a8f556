"""The reverse of patch merging, for detectors and diffusion."""

import keras
from keras import ops

from swins.changes import Composite
from swins.errors import SwinsError
from swins.layers import dense, layer_norm, on_tokens


@keras.saving.register_keras_serializable("swins")
class PatchExpanding(Composite):
    """The reverse of patch merging: LayerNorm, a linear layer, and its channels spread over 2x2 cells.

    (B, H, W, C) -> (B, 2H, 2W, C/2)
    """

    def build(self, shape):
        dim = shape[-1]
        if dim % 2:
            raise SwinsError(f"patch expanding halves the channels, so they must be even; got {dim}")
        self.norm = layer_norm("norm", self.dtype_policy)
        self.norm.build(shape)
        self.expansion = dense(2 * dim, "expansion", self.dtype_policy, use_bias=False)
        self.expansion.build((None, dim))

    def compute_output_shape(self, shape):
        return (shape[0], *(side and 2 * side for side in shape[1:3]), shape[3] // 2)

    def call(self, x):
        return ops.nn.depth_to_space(on_tokens(self.expansion, self.norm(x)), 2, data_format="channels_last")
