"""What is computed with a network for a few images, as one program where that is quicker: on JAX."""

from collections.abc import Callable

import keras


class Computation(keras.Model):
    """A network and a function of it: a tree of arrays -> a tree of arrays.

    Args:
        network: a keras.Model; its weights are shared.
        compute: (network, arrays) -> what it gives.
    """

    def __init__(self, network, compute):
        super().__init__(name=network.name)
        self.network, self.compute = network, compute
        self.built = True

    def call(self, arrays, training=None):
        return self.compute(self.network, arrays)


def one_program(model: keras.Model) -> Callable:
    """A function: a batch -> what a model gives for it in inference, as NumPy arrays.

    On JAX compiled once for each shape: XLA otherwise compiles each operation alone, which takes longer. On TensorFlow
    and PyTorch operations run as they come: to trace a detector's graph takes longer than to run it a few times.

    Args:
        model: whose way of being compiled is set: one made for this, whose layers may be another's.
    """
    model.jit_compile = keras.backend.backend() == "jax"
    model.run_eagerly = not model.jit_compile
    return model.predict_on_batch
