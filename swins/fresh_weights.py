"""What layers begin with, as the papers' code and PyTorch have it."""

import math

from keras import initializers


def papers_normal():
    """The papers' linear layers and bias tables: normal of deviation 0.02.

    Their code truncates at 2, a hundred deviations; Keras' TruncatedNormal would at two, and narrow it by an eighth.
    """
    return initializers.RandomNormal(stddev=0.02)


def torch_convolution(inputs: int) -> dict:
    """Options of a Keras convolution that begins as PyTorch's do: kernel and bias uniform within 1 / sqrt(inputs).

    Args:
        inputs: numbers that an output is of, height x width x channels of the kernel.
    """
    bound = 1 / math.sqrt(inputs)
    return {f"{part}_initializer": initializers.RandomUniform(-bound, bound) for part in ("kernel", "bias")}
