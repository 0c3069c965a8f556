"""Convolutions of maps, which TensorFlow computes on CPUs in strips of rows where that is faster.

TensorFlow's oneDNN leaves the weights of a convolution as they lie if there is one image, and takes twice as long as
for an image of two (seen with ONEDNN_VERBOSE=1: `wei:f32::blocked:cdba`, of two `Acdb32a`). Strips of an image with the
rows beside them are several images, whose results are the same numbers. With many channels shorter strips are faster
whatever the number of images. CPU seconds of 3x3 kernels on one core, whole and in strips (TensorFlow 2.21, AVX-512):

    images, map, channels        whole    2 strips    4 strips
    1, 128x128, 2048 -> 512       4.90        2.45        2.01
    1, 128x128, 512 -> 512        0.77        0.51        0.48
    1, 64x64, 512 -> 512          0.19        0.12        0.12
    1, 32x32, 512 -> 512          0.07        0.03        0.04
    4, 128x128, 2048 -> 512       9.93       10.10        8.36
    4, 128x128, 512 -> 512        1.91                    2.01
"""

import functools

import keras
from keras import layers, ops

LEAST_ROWS, ROWS, MANY_CHANNELS = 16, 32, 1024  # of a map that is cut; of a strip; from which images need not be one


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
    images, rows, _, channels = shape
    if None in shape or rows < LEAST_ROWS or (images > 1 and channels < MANY_CHANNELS):
        return 1
    most = max(rows // ROWS, 2 if images == 1 else 1)
    return next(count for count in range(most, 0, -1) if rows % count == 0)


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
        images, rows, columns, channels = inputs.shape
        above, left = (side // 2 for side in sides)
        padded = ops.pad(inputs, ((0, 0), (above, above), (left, left), (0, 0)))
        height = rows // count
        strips = [padded[:, i * height : (i + 1) * height + 2 * above] for i in range(count)]
        strips = ops.reshape(ops.stack(strips, 1), (images * count, height + 2 * above, columns + 2 * left, channels))
        results = ops.conv(strips, kernel, 1, "valid", data_format="channels_last")
        return ops.reshape(results, (images, rows, columns, self.filters))
