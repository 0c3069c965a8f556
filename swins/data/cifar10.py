"""CIFAR-10's binary version. Its pickles are never opened."""

import numpy as np

from swins.data.split import Arrays, Split
from swins.errors import SwinsError

TRAIN_BATCHES, TEST_BATCH = "data_batch_*.bin", "test_batch.bin"
CIFAR_BYTES = 1 + 3 * 32 * 32  # of a record
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def from_cifar(folder, files):
    """Files of CIFAR-10's binary version, as one Split. Its pickles are never opened."""
    records = np.concatenate([np.zeros(0, "uint8"), *(np.fromfile(path, "uint8") for path in files)])
    if not len(records) or len(records) % CIFAR_BYTES:
        raise SwinsError(f"{folder}: *_batch*.bin must hold records of {CIFAR_BYTES} bytes; got {len(records)} bytes")
    records = records.reshape(-1, CIFAR_BYTES)
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Split("cifar10", Arrays("cifar10", images, records[:, 0]), CIFAR_CLASSES)
