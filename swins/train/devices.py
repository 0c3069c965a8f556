"""One device, several, or several processes: keras.distribution on JAX, tf.distribute on TensorFlow."""

import contextlib
import os

import keras

from swins.errors import SwinsError
from swins.train.data import Share


def start():
    """Join the other processes of a run, if the environment names them, and share batches among all devices.

    JAX: keras.distribution.initialize reads KERAS_DISTRIBUTION_JOB_ADDRESSES, _NUM_PROCESSES and _PROCESS_ID. Call it
    before anything is computed.

    Returns:
        (strategy, Share, devices): a context in which to make and fit the model, what this process reads, and how many
        devices a batch is divided among.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        return start_jax()
    if backend == "tensorflow":
        return start_tensorflow()
    return contextlib.nullcontext(), Share(), 1


def start_jax():
    if os.environ.get("KERAS_DISTRIBUTION_NUM_PROCESSES"):
        keras.distribution.initialize()
    import jax

    devices = len(jax.devices())
    share = Share(jax.process_index(), jax.process_count())
    if devices > 1:
        keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
    return contextlib.nullcontext(), share, devices


def start_tensorflow():
    import tensorflow as tf

    if os.environ.get("TPU_NAME"):
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(os.environ["TPU_NAME"])
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        strategy = tf.distribute.TPUStrategy(resolver)
    else:
        logical = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        if len(logical) < 2:
            return contextlib.nullcontext(), Share(), 1
        strategy = tf.distribute.MirroredStrategy([device.name for device in logical])
    return strategy.scope(), Share(), strategy.num_replicas_in_sync


def check_batch(batch, accumulate, devices):
    """Raise SwinsError unless every device gets the same number of images."""
    if batch // accumulate % devices:
        raise SwinsError(
            f"data.batch, in {accumulate} parts, is divided among {devices} devices; got {batch}; choose a multiple of "
            f"{accumulate * devices}"
        )
