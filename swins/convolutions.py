"""Convolutions of maps, which TensorFlow computes on CPUs in strips of rows where that is faster.

TensorFlow's oneDNN leaves the weights of a convolution as they lie if there is one image, and takes twice as long as
for an image of two (seen with ONEDNN_VERBOSE=1: `wei:f32::blocked:cdba`, of two `Acdb32a`). Strips of an image with the
rows beside them are several images, whose results are the same numbers. CPU seconds of 3x3 kernels on one core, whole
and in strips (TensorFlow 2.21, AVX-512; benchmarks/convolution_strips.py):

    images, map, channels        whole    2 strips    4 strips
    1, 128x128, 2048 -> 512       4.49        1.99        1.81
    1, 128x128, 512 -> 512        0.76        0.42        0.42
    1, 64x64, 512 -> 512          0.20        0.11        0.11
    1, 32x32, 512 -> 512          0.07        0.03        0.03
    4, 128x128, 2048 -> 512       7.19        7.20        7.35
    4, 128x128, 512 -> 512        1.76        1.87        1.85
"""

import functools

import keras
from keras import layers, ops

LEAST_ROWS, ROWS = 16, 32  # of a map that is cut; of a strip of a large one


@functools.cache
def on_tensorflows_cpu() -> bool:
    """Whether TensorFlow computes, and on CPUs alone."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.config.list_physical_devices("GPU")


def strips_of(shape: tuple) -> int:
    """How many strips of rows a map (B, H, W, C) is cut into; 1 where it is faster whole, or where a size is open.

    >>> strips_of((1, 128, 128, 512)), strips_of((1, 64, 64, 8)), strips_of((4, 128, 128, 512)), strips_of((None,) * 4)
    (4, 2, 1, 1)
    """
    images, rows, *_ = shape
    if None in shape or images > 1 or rows < LEAST_ROWS:
        return 1
    return next(count for count in range(max(rows // ROWS, 2), 0, -1) if rows % count == 0)


@keras.saving.register_keras_serializable("swins")
class Conv2D(layers.Conv2D):
    """Keras' Conv2D, with its results, in strips of rows where TensorFlow is faster so."""

    def convolution_op(self, inputs, kernel):
        """The convolution without bias: (B, H, W, C) -> (B, H, W, filters)."""
        sides = kernel.shape[:2]
        plain = self.strides == (1, 1) and self.dilation_rate == (1, 1) and self.groups == 1
        plain = plain and self.padding == "same" and self.data_format == "channels_last"
        plain = plain and all(side % 2 for side in sides) and max(sides) > 1
        count = strips_of(tuple(inputs.shape)) if plain and on_tensorflows_cpu() else 1
        if count == 1:
            return super().convolution_op(inputs, kernel)
        _, rows, columns, _ = inputs.shape
        above, left = (side // 2 for side in sides)
        padded = ops.pad(inputs, ((0, 0), (above, above), (left, left), (0, 0)))
        height = rows // count
        strips = [padded[:, i * height : (i + 1) * height + 2 * above] for i in range(count)]
        results = ops.conv(ops.concatenate(strips, 0), kernel, 1, "valid", data_format="channels_last")
        return ops.reshape(results, (1, rows, columns, self.filters))
