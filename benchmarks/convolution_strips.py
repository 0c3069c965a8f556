"""3x3 convolutions of whole maps and in strips of rows under TensorFlow: CPU milliseconds on one core.

    python -P benchmarks/convolution_strips.py

What swins/convolutions.py does rests on them.
"""

import os
import time
from unittest import mock

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import numpy as np
import tensorflow as tf

from swins import convolutions

SHAPES = (((1, 128, 2048), 512), ((1, 128, 512), 512), ((1, 64, 512), 512), ((1, 32, 512), 512))
SHAPES += (((1, 19, 512), 512), ((1, 38, 256), 256), ((1, 38, 128), 128), ((1, 75, 64), 64))
SHAPES += (((4, 128, 2048), 512), ((4, 128, 512), 512))
STRIPS = (1, 2, 4)
TIMES = 5


def seconds(images, filters, strips):
    """CPU seconds of a convolution of images cut into so many strips; the first call is not counted."""
    layer = convolutions.Conv2D(filters, 3, padding="same", use_bias=False, data_format="channels_last")
    layer.build(images.shape)
    with mock.patch.object(convolutions, "strips_of", lambda shape, kernel: strips):
        graph = tf.function(layer)
        graph(images)
    begun = time.process_time()
    for _ in range(TIMES):
        graph(images).numpy()
    return (time.process_time() - begun) / TIMES


if __name__ == "__main__":
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    print("images, map, channels", *(f"{count} strips" for count in STRIPS), sep="\t")
    for (count, side, channels), filters in SHAPES:
        images = tf.constant(np.random.default_rng(0).standard_normal((count, side, side, channels), "float32"))
        row = (f"{1000 * seconds(images, filters, strips):.1f}" for strips in STRIPS)
        print(f"{count}, {side}x{side}, {channels} -> {filters}", *row, sep="\t", flush=True)
