"""Classification: one class an image, judged by top-1. The first kind of work, and the example of one."""

import math

import keras
import numpy as np

from swins.changes import Recorded
from swins.creation import create
from swins.data import labelled
from swins.data.class_weights import class_weights, label_counts
from swins.data.layouts import find_splits
from swins.detector_configs import DETECTORS
from swins.errors import SwinsError
from swins.images import Preprocess
from swins.initial_weights import begin_as_torch
from swins.layer_depths import depths_of
from swins.models import SwinTransformer
from swins.resize import resize
from swins.results import MOST, classes_of
from swins.score import Score
from swins.segmenter_configs import SEGMENTERS
from swins.tags import look_up
from swins.task import Reading, Task, register
from swins.tasks import classification_evaluation, classification_export, classification_report
from swins.tasks.classification_settings import Augment, Classification, Data, Loss, Model

__all__ = ["CLASSIFICATION", "Augment", "Classification", "Data", "Loss", "Model"]

SCORES = (Score("top1", "top-1", percent=True), Score("top5", "top-5", percent=True))


def splits(source, recipe):
    """The Splits of a data set: (to train on, to validate on)."""
    return find_splits(source, recipe.data.held_out, recipe.seed)


def network(recipe, training):
    """The Swin of a recipe with the weights that it begins with, for the classes of a Split."""
    model, num_classes = recipe.model, len(training.classes)
    if model.num_classes not in (None, num_classes):
        raise SwinsError(
            f"model.num_classes must be the data's; got {model.num_classes} and {num_classes}; leave it out, or choose "
            "other data"
        )
    options = model.options()
    if model.name in DETECTORS:
        raise SwinsError(f"model.name must be a classifier's; got {model.name}, a detector's: RECIPE = Detection(...)")
    if model.name in SEGMENTERS:
        raise SwinsError(f"model.name must be a classifier's; got {model.name}, a segmenter's")
    if not model.weights:
        swin = create(model.name, num_classes=num_classes, **options)
        if model.start:
            begin_as_torch(swin, recipe.seed)
        return swin
    sizes = {key: options.pop(key) for key in ("image_size", "window_size") if key in options}
    swin = create(model.name, weights=model.weights, num_classes=num_classes, **options)
    return resize(swin, **sizes) if sizes else swin  # which carries bias tables over


def preparation(recipe, network, splits):
    """The Preprocess of validation images: scaled so that the centre crop is `crop` of the shorter side.

    Raises:
        SwinsError: a model of any size, statistics of another number of channels, images of other channels.
    """
    size, channels = network.variant.image_size, network.variant.in_chans
    if None in size:
        raise SwinsError("model.image_size must be given: images of a batch have one size; got any")
    if channels not in (1, 3) and (recipe.augment.rand_augment or recipe.augment.color_jitter):
        raise SwinsError(
            f"augment.rand_augment and color_jitter are for grey or RGB images; the model takes {channels} channels; "
            "leave them out: --set augment.rand_augment= --set augment.color_jitter=0"
        )
    published = look_up(recipe.model.name).weights
    mean, std = recipe.data.mean or published.mean, recipe.data.std or published.std
    if channels == 1:
        mean, std = ((sum(x) / len(x),) for x in (mean, std))
    if not len(mean) == len(std) == channels:
        raise SwinsError(
            f"data.mean and data.std need a number a channel; got {mean}, {std} and {channels} channels; set both, as "
            f"--set data.mean={list(mean[:1] * channels)}"
        )
    prepare = Preprocess(size, tuple(int(side / recipe.data.crop) for side in size), True, tuple(mean), tuple(std))
    for split in splits:
        labelled.require_channels(split, channels)
    return prepare


def training(recipe, prepare, split):
    """Augmented images and smoothed, mixed targets (b, classes), and how much each image counts, if not all alike."""
    from swins.data.augment import TrainTransform, mix, targets

    weights = class_weights(split, recipe.loss.class_weights or "", label_counts)
    transform = TrainTransform(recipe.augment, prepare.image_size, prepare.mean, prepare.std)

    def sample(image, label, rng, size):
        return transform(image, rng), label

    def batch(samples, rng):
        images, labels = zip(*samples, strict=True)
        rows = targets(np.array(labels), len(split.classes), recipe.augment.smoothing)
        images, rows = mix(np.stack(images), rows, recipe.augment, rng)
        if weights is None:
            return images, {"target": rows}
        return images, {"target": rows, "weight": rows @ np.float32(weights)}

    return Reading(sample, batch)


def validating(recipe, prepare, split):
    """Prepared images and one-hot targets."""
    from swins.data.augment import targets

    def batch(samples, rng):
        images, labels = zip(*samples, strict=True)
        return np.stack(images), {"target": targets(np.array(labels), len(split.classes))}

    def filler():
        return np.zeros((*prepare.image_size, len(prepare.mean)), "float32"), 0

    return Reading(lambda image, label, rng, size: (prepare(image), label), batch, filler)


def trunk(network):
    """Variables of all but the classifier."""
    return [variable for layer in network.layers if layer.name != "head" for variable in layer.variables]


def losses(recipe, network, truths, outputs, training=False):
    """Cross entropy."""
    entropy = keras.losses.CategoricalCrossentropy(from_logits=True)
    (logits,) = outputs.values()
    return {"cross_entropy": entropy(truths["target"], logits, sample_weight=truths.get("weight"))}


def facts(recipe, network, prepare, split):
    """The classes, and how images are prepared, which the network remembers."""
    preparing = {"image_size": prepare.image_size, "crop": recipe.data.crop, "mean": prepare.mean, "std": prepare.std}
    if isinstance(network, SwinTransformer):
        lists = {key: list(value) if isinstance(value, tuple) else value for key, value in preparing.items()}
        network.origin = {"name": recipe.model.name, "preparation": lists, "class_names": list(split.classes)}
    return {"classes": list(split.classes), "preprocess": preparing}


def owns(model):
    """Whether a model is a Swin of this package."""
    return isinstance(model, Recorded) and hasattr(model, "variant")


def output(model):
    """Logits, or features where there is no classifier."""
    return "logits" if model.variant.num_classes else "features"


def answers(outputs, facts, sizes=()):
    """The Classes of each image; facts["classes"] are the names, where they are known."""
    if "logits" not in outputs:
        raise SwinsError(
            f"classes are told of logits; this model gives {', '.join(outputs)}; take one with a classifier"
        )
    logits = outputs["logits"]
    names = facts.get("classes") or ()
    names = tuple(names) if isinstance(names, list | tuple) and len(names) == logits.shape[1] else ()
    return [classes_of(row, names) for row in np.asarray(logits)]


def record(result, truth):
    """Labels of an image, by their probability, and these."""
    return {"label": truth, "top": list(result.labels), "probabilities": [round(p, 4) for p in result.probabilities]}


def right(truths, outputs):
    """Whether the class of the largest logit is that of the largest target (b,), 1 or 0."""
    (logits,) = outputs.values()
    same = keras.ops.equal(keras.ops.argmax(logits, -1), keras.ops.argmax(truths["target"], -1))
    return keras.ops.cast(same, "float32")


def telling(name, facts):
    """Whether a score says something: top-5 of more than five classes."""
    return name != "top5" or len(facts.get("classes") or ()) > MOST or not facts.get("classes")


def guessing(facts):
    """The cross entropy of equal probabilities."""
    return math.log(len(facts["classes"])) if facts.get("classes") else None


def score(records):
    """{"top1", "top5"}: the share of images whose class is the first, or among the five."""
    return {
        "top1": float(np.mean([row["top"][0] == row["label"] for row in records])),
        "top5": float(np.mean([row["label"] in row["top"] for row in records])),
    }


CLASSIFICATION = register(
    Task(
        name="classification",
        recipe=Classification,
        scores=SCORES,
        splits=splits,
        network=network,
        preparation=preparation,
        training=training,
        validating=validating,
        losses=losses,
        depths=depths_of,
        trunk=trunk,
        measures={"top1": right},
        guessing=guessing,
        telling=telling,
        facts=facts,
        owns=owns,
        output=output,
        answers=answers,
        record=record,
        score=score,
        **classification_evaluation.FUNCTIONS,
        **classification_report.FUNCTIONS,
        **classification_export.FUNCTIONS,
    )
)
