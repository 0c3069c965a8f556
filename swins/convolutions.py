"""Convolutions of maps, which TensorFlow computes on CPUs in strips of rows where that is faster.

TensorFlow's oneDNN leaves the weights of a convolution as they lie if there is one image, and takes twice as long as
for an image of two (seen with ONEDNN_VERBOSE=1: `wei:f32::blocked:cdba`, of two `Acdb32a`). Strips of an image with the
rows beside them are several images, whose results are the same numbers. CPU milliseconds of 3x3 kernels on one core,
whole and in strips (TensorFlow 2.21, AVX-512; benchmarks/convolution_strips.py):

    images, map, channels        whole    2 strips    4 strips
    1, 128x128, 2048 -> 512       5399        2503        2116
    1, 128x128, 512 -> 512        1030         487         473
    1, 64x64, 512 -> 512           246         116         124
    1, 32x32, 512 -> 512            78          33          33
    1, 19x19, 512 -> 512            30          15          14
    1, 38x38, 256 -> 256            15          13          13
    1, 38x38, 128 -> 128           3.2         3.6         3.7
    1, 75x75, 64 -> 64             3.0         3.8         3.8
    4, 128x128, 2048 -> 512       7190        7200        7350
    4, 128x128, 512 -> 512        1760        1870        1850

Where the weights are few, below LEAST_WEIGHTS, so that a core's cache holds them, strips cost more than they save.
"""

import functools
import math

import keras
from keras import layers, ops

from swins.fresh_weights import xavier

LEAST_ROWS, ROWS = 16, 32  # of a map that is cut; of a strip of a large one
LEAST_WEIGHTS = 2**19  # of a kernel, 2 MiB


@functools.cache
def on_tensorflows_cpu() -> bool:
    """Whether TensorFlow computes, and on CPUs alone."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.config.list_physical_devices("GPU")


def strips_of(shape: tuple, kernel: tuple) -> int:
    """How many strips of rows a map (B, H, W, C) is cut into for a kernel (height, width, C, filters).

    1 where it is faster whole, or where a size is open.

    >>> kernel = (3, 3, 512, 512)
    >>> [strips_of(shape, kernel) for shape in ((1, 128, 128, 512), (1, 19, 19, 512), (4, 128, 128, 512))]
    [4, 2, 1]
    """
    images, rows, *_ = shape
    if None in shape or images > 1 or rows < LEAST_ROWS or max(kernel[:2]) == 1 or math.prod(kernel) < LEAST_WEIGHTS:
        return 1
    return max(rows // ROWS, 2)


@keras.saving.register_keras_serializable("swins")
class Conv2D(layers.Conv2D):
    """Keras' Conv2D, with its results, in strips of rows where TensorFlow is faster so."""

    def __init__(self, *args, kernel_initializer=None, **kwargs):
        super().__init__(*args, kernel_initializer=kernel_initializer or xavier(), **kwargs)

    def convolution_op(self, inputs, kernel):
        """The convolution without bias: (B, H, W, C) -> (B, H, W, filters)."""
        shape, tall, wide = tuple(inputs.shape), *kernel.shape[:2]
        stride, same = self.strides[0], self.padding == "same"
        cut = self.dilation_rate == (1, 1) and self.groups == 1 and self.data_format == "channels_last"
        cut = cut and (tall % 2 and wide % 2 and self.strides == (1, 1) if same else self.padding == "valid")
        count = strips_of(shape, tuple(kernel.shape)) if cut and on_tensorflows_cpu() else 1
        if count == 1:
            return super().convolution_op(inputs, kernel)
        rows, above, left = shape[1], tall // 2 * same, wide // 2 * same
        out = (rows + 2 * above - tall) // stride + 1
        height = -(-out // count)  # of a strip of the result; the last one's may end below it
        needed = (height * count - 1) * stride + tall
        padded = ops.pad(inputs, ((0, 0), (above, max(needed - rows - above, 0)), (left, left), (0, 0)))
        starts = (i * height * stride for i in range(count))
        strips = [padded[:, start : start + (height - 1) * stride + tall] for start in starts]
        results = ops.conv(ops.concatenate(strips, 0), kernel, self.strides, "valid", data_format="channels_last")
        return ops.reshape(results, (1, height * count, results.shape[2], self.filters))[:, :out]
