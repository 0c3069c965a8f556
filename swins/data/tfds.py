"""tensorflow-datasets, prepared as array_record files, whose samples can be read in any order."""

import os

from swins.data.class_folders import VALIDATION
from swins.data.split import Split
from swins.errors import SwinsError, first_line, missing_package


class Stored:
    """Samples of a data set that tensorflow-datasets prepared for random access."""

    def __init__(self, source):
        self.source = source

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        return sample_of(index, self.source[index])


def sample_of(index, row):
    """(name, image, label) of a row of tensorflow-datasets."""
    return os.fsdecode(row["file_name"]) if "file_name" in row else str(index), row["image"], int(row["label"])


def from_tfds(name):
    """tensorflow-datasets, prepared as array_record files, whose samples can be read in any order."""
    try:
        import tensorflow_datasets as tfds
    except ModuleNotFoundError as error:
        raise missing_package("tfds:...", "tensorflow-datasets", "datasets") from error
    remedy = f"prepare it: tfds build {name} --file_format=array_record"
    try:
        builder = tfds.builder(name, file_format="array_record")
        decoders = {"image": tfds.decode.SkipDecoding()}
        held = next((s for s in VALIDATION if s in builder.info.splits), None)
        if "train" not in builder.info.splits or held is None:
            raise SwinsError(f"tfds:{name}: needs a split train and one of {', '.join(VALIDATION)}; {remedy}")
        classes = tuple(builder.info.features["label"].names)
        parts = [builder.as_data_source(split, decoders=decoders) for split in ("train", held)]
    except (
        tfds.core.DatasetNotFoundError,
        AssertionError,
        ValueError,
        OSError,
        NotImplementedError,
        KeyError,
    ) as error:
        if isinstance(error, SwinsError):
            raise
        raise SwinsError(f"tfds:{name}: {first_line(error)}; {remedy}") from error
    return tuple(Split(name, Stored(part), classes) for part in parts)
