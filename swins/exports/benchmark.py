"""How fast each export of an artefact is on this machine, beside Keras, in turns."""

import contextlib
import os
import pathlib
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass

import keras
import numpy as np

from swins.convert.certificate import normal_images
from swins.errors import SwinsError, ending
from swins.exports import adopt
from swins.task import task_of
from swins.weights import artefacts

ROUNDS = 5
SECONDS = 0.5  # of a turn, at least
TIMED = pathlib.Path(__file__).with_name("timed_export.py")


@dataclass(frozen=True)
class Timing:
    """What an export took: its file or folder, and of each round the milliseconds of a batch, as Keras' of that round.

    Ratios are of times of one round, in which all had a turn, since a machine's pace changes from round to round; their
    median need not be the quotient of the medians, which lies between the lowest and the highest of them.
    """

    file: str
    rounds: tuple[float, ...]
    keras_rounds: tuple[float, ...]

    @property
    def milliseconds(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.rounds)

    @property
    def ratios(self) -> list[float]:
        """How many times as fast as model.keras it was, round by round."""
        return [theirs / own for theirs, own in zip(self.keras_rounds, self.rounds, strict=True)]

    @property
    def times_keras(self) -> float:
        """The median of the ratios."""
        return statistics.median(self.ratios)


def exports_of(folder, certificate: dict) -> list[str]:
    """What of an artefact is timed: model.keras, its SavedModels, its files for other runtimes.

    Raises:
        SwinsError: if nothing was exported, or something is missing.
    """
    names = [*certificate.get("exports", {}), *certificate.get("targets", {})]
    if not names:
        raise SwinsError(f"{folder}: has no exports to time; make some: swins export {folder} --to saved_model onnx")
    if missing := [name for name in names if not (pathlib.Path(folder) / name).exists()]:
        raise SwinsError(f"{folder}: {', '.join(missing)} of its certificate are missing; export again")
    return [artefacts.MODEL, *names]


def machine() -> str:
    """The processor, its cores, and the system."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {count} cores, {platform.system()}"


@contextlib.contextmanager
def process(path, images, seconds):
    """A process that has loaded an export and answered once -> a function: its next turn -> seconds of a call."""
    command = [sys.executable, "-P", TIMED, path, images, seconds]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [*map(str, command)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
        ) as running,
    ):

        def line():
            text = running.stdout.readline().strip()
            if not text:
                errors.seek(0)
                raise SwinsError(f"{path.name} does not run: {ending(running.wait(), errors.read())}")
            return text

        def turn():
            running.stdin.write("\n")
            running.stdin.flush()
            return float(line())

        try:
            line()
            yield turn
        finally:
            running.kill()


def benchmark(folder, batch: int = 1, rounds: int = ROUNDS, seconds: float = SECONDS) -> tuple[str, list[Timing]]:
    """Time an artefact's exports on seeded images -> (what was measured, on what; a Timing each, Keras first).

    Each has a process of its own with its runtime's own number of threads, which waits while the others work. They take
    turns, in another order each round.

    Raises:
        SwinsError: no artefact, a training run, nothing exported, a model of more than images, an export that does
            not run.
    """
    folder = pathlib.Path(folder)
    source, target = adopt.places(folder)
    if folder.exists() and source != folder:
        remedy = "" if source else f"swins export {folder} --to saved_model onnx; then: "
        raise SwinsError(f"{folder}: exports of an artefact are timed; {remedy}swins benchmark {target}")
    certificate = artefacts.read_certificate(folder)
    names, model = exports_of(folder, certificate), artefacts.read_model(folder)
    task = task_of(model, certificate.get("task"), certificate["name"])
    if isinstance(model.input, dict):
        raise SwinsError(f"{folder}: models of images alone are timed; got one of {task.name}")
    size = adopt.tested_size(model, certificate["name"], certificate.get("training"))
    images = normal_images((*size, model.input.shape[-1]), batch)
    del model
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        np.save(file := pathlib.Path(temporary, "images.npy"), images)
        turns = [stack.enter_context(process(folder / name, file, seconds)) for name in names]
        table = []
        for i in range(rounds):
            order = random.Random(i).sample(range(len(turns)), len(turns))
            row = {k: 1000 * turns[k]() for k in order}
            table.append([row[k] for k in range(len(turns))])
    columns = list(zip(*table, strict=True))
    timings = [Timing(name, own, columns[0]) for name, own in zip(names, columns, strict=True)]
    shape = "x".join(map(str, images.shape[1:]))
    turned = f"{rounds} round{'s' * (rounds > 1)} in turns"
    return f"{machine()}; batch {batch} of {shape}; {turned}; Keras on {keras.backend.backend()}", timings
