"""What layers begin with, as the papers' code and PyTorch have it. Each draws its own: an initializer draws once."""

import contextlib
import contextvars
import math

import keras
import numpy as np
from keras import initializers

FOLLOW = contextvars.ContextVar("weights follow", default=False)


@contextlib.contextmanager
def weights_follow():
    """Within it layers begin with zeros: for those whose every weight is read from a file next."""
    token = FOLLOW.set(True)
    try:
        yield
    finally:
        FOLLOW.reset(token)


class OnHost:
    """Draws by NumPy under JAX, where XLA would compile a program for the draw of every shape."""

    def __call__(self, shape, dtype=None):
        if FOLLOW.get():
            values = np.zeros(shape, "float32")
        elif keras.backend.backend() != "jax" or not isinstance(self.seed, int):
            return super().__call__(shape, dtype)
        else:
            values = self.draw(np.random.default_rng(abs(self.seed)), tuple(shape))
        return keras.ops.convert_to_tensor(values, dtype or keras.config.floatx())


def between(low, high, rng, shape):
    """Uniform numbers, float32."""
    return np.float32(low) + np.float32(high - low) * rng.random(shape, "float32")


@keras.saving.register_keras_serializable("swins")
class Normal(OnHost, initializers.RandomNormal):
    """keras.initializers.RandomNormal."""

    def draw(self, rng, shape):
        return np.float32(self.mean) + np.float32(self.stddev) * rng.standard_normal(shape, "float32")


@keras.saving.register_keras_serializable("swins")
class Uniform(OnHost, initializers.RandomUniform):
    """keras.initializers.RandomUniform."""

    def draw(self, rng, shape):
        return between(self.minval, self.maxval, rng, shape)


@keras.saving.register_keras_serializable("swins")
class Scaled(OnHost, initializers.VarianceScaling):
    """keras.initializers.VarianceScaling of a uniform or an untruncated normal distribution."""

    def draw(self, rng, shape):
        *window, inputs, outputs = shape
        numbers = {"fan_in": inputs, "fan_out": outputs, "fan_avg": (inputs + outputs) / 2}[self.mode]
        deviation = math.sqrt(self.scale / max(1.0, math.prod(window) * numbers))
        if self.distribution == "uniform":
            bound = math.sqrt(3) * deviation
            return between(-bound, bound, rng, shape)
        return np.float32(deviation) * rng.standard_normal(shape, "float32")


def papers_normal():
    """The papers' linear layers and bias tables: normal of deviation 0.02.

    Their code truncates at 2, a hundred deviations; Keras' TruncatedNormal would at two, and narrow it by an eighth.
    """
    return Normal(stddev=0.02)


def kaiming():
    """Convolutions before a ReLU (arXiv:1502.01852): normal of variance 2 over the outputs."""
    return Scaled(2.0, "fan_out", "untruncated_normal")


def xavier():
    """Layers that say nothing else, as Keras' own: uniform of variance 2 over inputs and outputs (Glorot)."""
    return Scaled(1.0, "fan_avg", "uniform")


def torch_linear(inputs: int) -> dict:
    """Options of a Keras layer that begins as PyTorch's do: kernel and bias uniform within 1 / sqrt(inputs).

    Args:
        inputs: numbers that an output is of; of a convolution, height x width x channels of the kernel.
    """
    bound = 1 / math.sqrt(inputs)
    return {f"{part}_initializer": Uniform(-bound, bound) for part in ("kernel", "bias")}
