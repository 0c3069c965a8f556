"""Validation while a network trains: its losses, and the scores that an evaluation gives too."""

from dataclasses import dataclass

import keras
import numpy as np

from swins import devices
from swins.evaluate.records import predict
from swins.train.trainee import Examined


@dataclass(frozen=True)
class Validation:
    """What came of it: the mean of all losses together, {name: score}, images that could be read, and others."""

    loss: float
    scores: dict
    images: int
    unreadable: int


def examiner(trainee, facts, share, count):
    """What a Trainee is validated with: (images, {name: array}) -> (outputs that answers are made of, sum of losses).

    Made once a run, for what it compiles.

    Args:
        trainee: a Trainee; facts: of the model; share: which samples are this process'; count: of devices.
    """
    if trainee.task.decide:
        return in_one_graph(trainee, facts, share, count)
    run = devices.SharedPredict(trainee.network) if share.count > 1 else None

    def examine(images, arrays):
        outputs = run(images) if run else predict(trainee, images, size_of(images), count > 1)
        outputs = floats(outputs)
        losses = trainee.losses_of(arrays, outputs).values()
        named = trainee.task.examined(trainee.task.named(trainee.network, outputs), arrays)
        return named, sum(float(keras.ops.convert_to_numpy(value)) for value in losses)

    return examine


def in_one_graph(trainee, facts, share, count):
    """The same of a network whose answers and losses need more than its outputs, which are too large to keep."""
    model = Examined(trainee, facts)
    model.jit_compile = trainee.jit_compile
    run = devices.SharedPredict(model) if share.count > 1 else None
    replicas = count if keras.backend.backend() == "tensorflow" else 1  # each gives its share of a batch's loss

    def examine(images, arrays):
        inputs = {"images": images, "truths": arrays}
        result = run(inputs) if run else predict(model, inputs, size_of(images), count > 1)
        return floats(result["outputs"]), replicas * sum(float(np.mean(v)) for v in result["losses"].values())

    return examine


def size_of(images) -> int:
    """How many samples a batch has, whatever arrays its images are."""
    return len(keras.tree.flatten(images)[0])


def floats(outputs):
    """Arrays of floating-point numbers as float32, the others as they are."""
    return keras.tree.map_structure(lambda y: y if y.dtype.kind in "iub" else np.asarray(y, "float32"), outputs)


def validate(task, batches, facts, share, examine, heed=lambda: None) -> tuple[float, list]:
    """Run validation batches -> (mean loss over images, records of the images of all processes).

    Args:
        task: the Task.
        batches: of (images, {name: array}, truths, sizes), as `validation_batches` gives them.
        facts: of the model, for its answers.
        share: which samples are this process'; examine: what `examiner` gives.
        heed: called after each batch.
    """
    loss, weight, records = 0.0, 0.0, []
    for images, arrays, truths, sizes in batches:
        outputs, losses = examine(images, arrays)
        loss += losses * size_of(images)
        weight += float(arrays["weight"].sum())
        results = task.answers(outputs, facts, sizes)
        pairs = zip(results, truths, strict=True)
        records += [task.record(result, truth) for result, truth in pairs if truth is not None]
        heed()
    parts = devices.told_to_all(share, [loss, weight, records])
    loss, weight = (sum(part[i] for part in parts) for i in (0, 1))
    return loss / max(weight, 1.0), [record for part in parts for record in part[2]]
