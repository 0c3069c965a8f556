"""Validation while a network trains: its losses, and the scores that an evaluation gives too."""

from dataclasses import dataclass

import keras
import numpy as np

from swins import devices
from swins.evaluate.records import predict


@dataclass(frozen=True)
class Validation:
    """What came of it: the mean of all losses together, {name: score}, images that could be read, and others."""

    loss: float
    scores: dict
    images: int
    unreadable: int


def validate(trainee, batches, facts, share, several, heed=lambda: None) -> tuple[float, list]:
    """Run a Trainee over validation batches -> (mean loss over images, records of the images of all processes).

    Args:
        trainee: a Trainee.
        batches: of (images, {name: array}, truths, sizes), as `validation_batches` gives them.
        facts: of the model, for its answers.
        share: which samples are this process'; several: whether the model is divided among devices.
        heed: called after each batch.
    """
    task, network = trainee.task, trainee.network
    run = devices.SharedPredict(network) if share.count > 1 else None
    loss, weight, records = 0.0, 0.0, []
    for images, arrays, truths, sizes in batches:
        outputs = run(images) if run else predict(trainee, images, len(images), several)
        outputs = keras.tree.map_structure(lambda y: np.asarray(y, "float32") if y.dtype.kind != "i" else y, outputs)
        losses = trainee.losses_of(arrays, outputs).values()
        loss += sum(float(keras.ops.convert_to_numpy(value)) for value in losses) * len(images)
        weight += float(arrays["weight"].sum())
        results = task.answers(task.named(network, outputs), facts, sizes)
        pairs = zip(results, truths, strict=True)
        records += [task.record(result, truth) for result, truth in pairs if truth is not None]
        heed()
    parts = devices.told_to_all(share, [loss, weight, records])
    loss, weight = (sum(part[i] for part in parts) for i in (0, 1))
    return loss / max(weight, 1.0), [record for part in parts for record in part[2]]
