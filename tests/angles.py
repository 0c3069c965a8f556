"""A kind of work in one file, for test_task.py: at what angle a bar lies, from 0 to 180 degrees."""
# ruff: noqa: RUF009 (the sections are frozen)

import pathlib
from dataclasses import dataclass, fields

import keras
import numpy as np
from keras import layers

from swins.data.labelled import Dataset
from swins.data.split import Split
from swins.images import Preprocess
from swins.recipes import AdamW, Cosine, Data, Model, Recipe
from swins.score import Score
from swins.task import Prepared, Reading, Task, register

SIDE = 16


@dataclass(frozen=True)
class AngleRecipe(Recipe):
    """A run: small, and over in a second."""

    model: Model = Model("bars", compile=keras.backend.backend() == "jax")
    data: Data = Data(batch=20, threads=1)
    optim: AdamW = AdamW(learning_rate=1e-2, per_images=0)
    schedule: Cosine = Cosine(warmup_epochs=0)
    epochs: int = 3


@dataclass(frozen=True)
class Angle:
    """A result: degrees."""

    degrees: float

    def to_json(self):
        return {"degrees": self.degrees}

    def __str__(self):
        return f"{self.degrees:.0f} degrees"

    def draw(self, image):
        from PIL import Image

        return Image.open(image).convert("RGB").rotate(-self.degrees)


def bars(count, seed):
    """(images (count, SIDE, SIDE) uint8, degrees (count,)) of bars."""
    degrees = np.random.default_rng(seed).uniform(0, 180, count)
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    across = np.abs(np.sin(np.radians(degrees))[:, None, None] * x + np.cos(np.radians(degrees))[:, None, None] * y)
    return (255 * (across < 2)).astype("uint8"), degrees


def rows(source, part):
    """Samples of a part of a data set, bars.npz of a folder."""
    with np.load(pathlib.Path(source, "bars.npz")) as arrays:
        images, degrees = arrays[f"{part}_images"], arrays[f"{part}_degrees"]
    return [(f"{part}[{i}]", image, float(angle)) for i, (image, angle) in enumerate(zip(images, degrees, strict=True))]


def splits(source, recipe):
    return tuple(Split("bars", rows(source, part), ()) for part in ("train", "val"))


def network(recipe, split):
    images = keras.Input((SIDE, SIDE, 1), name="images")
    x = layers.Dense(32, activation="relu", name="hidden")(layers.Flatten()(images))
    return keras.Model(images, {"direction": layers.Dense(2, name="direction")(x)}, name="bars")


def preparation(recipe, network, splits):
    return Preprocess((SIDE, SIDE), (SIDE, SIDE), True, (0.5,), (0.25,))


def reading(recipe, prepare, split):
    def batch(samples, rng):
        images, degrees = zip(*samples, strict=True)
        doubled = 2 * np.radians(degrees)
        return np.stack(images), {"direction": np.stack([np.cos(doubled), np.sin(doubled)], -1).astype("float32")}

    def filler():
        return np.zeros((SIDE, SIDE, 1), "float32"), 0.0

    return Reading(lambda image, degrees, rng, size: (prepare(image), degrees), batch, filler)


def losses(recipe, network, truths, outputs, training=False):
    squared = keras.losses.MeanSquaredError()
    return {"direction": squared(truths["direction"], outputs["direction"], sample_weight=truths.get("weight"))}


def answers(outputs, facts, sizes):
    x, y = np.moveaxis(np.asarray(outputs["direction"]), -1, 0)
    return [Angle(float(degrees)) for degrees in np.degrees(np.arctan2(y, x)) / 2 % 180]


def score(records):
    differences = np.array([record["degrees"] - record["truth"] for record in records])
    return {"error": float(np.mean(np.abs((differences + 90) % 180 - 90)))}


def stated(certificate):
    return Preprocess(**{k: tuple(v) if isinstance(v, list) else v for k, v in certificate["preprocess"].items()})


def facts(recipe, network, prepare, split):
    return {"preprocess": {field.name: getattr(prepare, field.name) for field in fields(Preprocess)}}


def prepare(opened, options):
    return Prepared("bars", "run", stated(opened.training or opened.certificate["training"]))


ANGLES = register(
    Task(
        name="angles",
        recipe=AngleRecipe,
        scores=(Score("error", "mean error in degrees", larger=False),),
        splits=splits,
        network=network,
        preparation=preparation,
        training=reading,
        validating=reading,
        losses=losses,
        facts=facts,
        owns=lambda model: model.name == "bars",
        answers=answers,
        record=lambda result, truth: {"degrees": result.degrees, "truth": truth},
        score=score,
        known=lambda opened: {},
        prepare=lambda opened, options: Prepared(
            "bars", "run", stated(opened.training or opened.certificate["training"])
        ),
        dataset=lambda source, opened, facts, options: Dataset("bars", 40, rows(source, "val")),
        serving=lambda model, certificate: stated(certificate["training"]),
    )
)
RECIPE = AngleRecipe()
