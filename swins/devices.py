"""One device, several, or several processes: keras.distribution on JAX, tf.distribute on TensorFlow."""

import contextlib
import json
import os
import platform
import sys
from dataclasses import dataclass

import keras
import numpy as np

from swins.errors import SwinsError
from swins.host import cores


@dataclass(frozen=True)
class Share:
    """What one of several processes reads: every count-th sample, from the index-th."""

    index: int = 0
    count: int = 1


ALONE = Share()
NOTHING, FAILED = -1, -2  # what the first process may tell instead of a number


def start(join=True):
    """Join the other processes of a run, if the environment names them, and share batches among all devices.

    JAX: keras.distribution.initialize reads KERAS_DISTRIBUTION_JOB_ADDRESSES, _NUM_PROCESSES and _PROCESS_ID. Call it
    before anything is computed.

    Args:
        join: whether other processes are joined; they are refused otherwise.

    Returns:
        (scope, Share, devices): what makes a context in which to make the model, what this process reads, and how many
        devices a batch is divided among.
    """
    backend = keras.backend.backend()
    several = os.environ.get("KERAS_DISTRIBUTION_NUM_PROCESSES") or "1"
    if not join and several != "1":
        raise SwinsError(
            f"an evaluation is one process, on all of its devices; KERAS_DISTRIBUTION_NUM_PROCESSES is {several}; "
            "unset it"
        )
    if backend != "jax" and several != "1":
        raise SwinsError(
            f"several processes are JAX's; KERAS_DISTRIBUTION_NUM_PROCESSES is {several}, the backend {backend}; set "
            "KERAS_BACKEND=jax"
        )
    if backend == "jax":
        return start_jax(join)
    if backend == "tensorflow":
        return start_tensorflow()
    return contextlib.nullcontext, ALONE, 1


def start_jax(join):
    if join and os.environ.get("KERAS_DISTRIBUTION_NUM_PROCESSES"):
        keras.distribution.initialize()
    import jax

    devices = len(jax.devices())
    share = Share(jax.process_index(), jax.process_count())
    if devices > 1:
        keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
    return contextlib.nullcontext, share, devices


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
            return contextlib.nullcontext, ALONE, 1
        strategy = tf.distribute.MirroredStrategy([device.name for device in logical])
    return strategy.scope, ALONE, strategy.num_replicas_in_sync


def accelerators() -> list[str]:
    """What the backend computes on beside the CPU, a name each, as "NVIDIA H200"."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return [device.device_kind for device in jax.local_devices() if device.platform != "cpu"]
    if backend == "torch":
        cuda = sys.modules["torch"].cuda
        return [cuda.get_device_name(i) for i in range(cuda.device_count())]
    import tensorflow as tf

    details = tf.config.experimental.get_device_details
    return [details(device).get("device_name", device.name) for device in tf.config.list_physical_devices("GPU")]


def machine() -> str:
    """What numbers were computed on: the system, its CPUs and accelerators."""
    parts = [f"{platform.system()} {platform.machine()}", f"{cores()} CPUs", *accelerators()]
    return ", ".join(parts)


def agreed(share, find):
    """What `find` gives in the first process, a number from 0 or None, in all of them; what it raises ends all."""
    if share.count == 1:
        return find()
    from jax.experimental import multihost_utils

    number = error = None
    if share.index == 0:
        try:
            number = find()
        except (SwinsError, OSError) as raised:
            error = raised
    code = NOTHING if number is None else number
    told = int(multihost_utils.broadcast_one_to_all(np.int32(FAILED if error else code)))
    if told == FAILED:
        raise error or SwinsError("the first process cannot go on, and says why")
    return None if told == NOTHING else told


def told_to_all(share, content):
    """What each of a run's processes tells, as JSON -> [content of each], the same list in all of them."""
    if share.count == 1:
        return [content]
    from jax.experimental import multihost_utils

    text = np.frombuffer(json.dumps(content).encode(), "uint8")
    lengths = np.asarray(multihost_utils.process_allgather(np.int32(len(text)))).reshape(-1)
    padded = np.zeros(lengths.max(), "uint8")
    padded[: len(text)] = text
    rows = np.asarray(multihost_utils.process_allgather(padded)).reshape(share.count, -1)
    return [json.loads(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)]


class SharedPredict:
    """A network on the devices of several processes of JAX: a process's images, or a structure of
    arrays that it takes -> arrays of outputs for these.

    Keras' own `predict` hands the outputs of all processes to each, which none of them can read.
    """

    def __init__(self, network):
        import jax
        from jax.sharding import Mesh, NamedSharding, PartitionSpec

        self.network = network
        self.shared = NamedSharding(Mesh(np.array(jax.devices()), ("batch",)), PartitionSpec("batch"))

        def run(trained, others, images):
            return network.stateless_call(trained, others, images, training=False)[0]

        self.run = jax.jit(run, out_shardings=self.shared)

    def __call__(self, images):
        import jax

        groups = (self.network.trainable_variables, self.network.non_trainable_variables)
        values = [[variable.value for variable in group] for group in groups]
        images = keras.tree.map_structure(
            lambda x: jax.make_array_from_process_local_data(self.shared, np.asarray(x)), images
        )
        outputs = self.run(*values, images)
        return keras.tree.map_structure(own_rows, outputs)


def own_rows(array):
    """The rows of a divided array that lie on this process' devices."""
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])


def check_batch(name, batch, devices, micro=1):
    """Raise SwinsError unless every device gets the same number of images of each of a batch's micro-batches."""
    if batch // micro % devices:
        raise SwinsError(
            f"{name} is divided among {devices} devices, in {micro} micro-batches; got {batch}; choose a multiple of "
            f"{micro * devices}"
        )
