"""Detection: boxes, classes and scores of objects, judged by COCO's average precision."""

import numpy as np

from swins.creation import create
from swins.data.box_augment import BoxTransform, pad, with_most
from swins.data.coco_scores import require_evaluator
from swins.data.decoded import cached
from swins.data.detection_layouts import find_detection_splits
from swins.detection.ssd import SSD
from swins.detection.ssd_loss import ssd_loss
from swins.errors import SwinsError
from swins.images import Preprocess, size_of
from swins.task import Reading, Task, register, shared
from swins.tasks import detection_evaluation, detection_export
from swins.tasks.detection_settings import Data, Detection, Loss, Model, Selection

__all__ = ["DETECTION", "Data", "Detection", "Loss", "Model", "Selection"]


def splits(source, recipe):
    """The Splits of a data set: (to train on, to validate on)."""
    data = recipe.data
    require_evaluator()
    training, validation = find_detection_splits(source, data.held_out, recipe.seed)
    return cached(with_most(training, data.objects), data.cache), validation


def class_count(model, training) -> int:
    """How many classes a Split has. Raises SwinsError if a recipe's Model states another number."""
    count = len(training.classes)
    if model.num_classes not in (None, count):
        raise SwinsError(
            f"model.num_classes must be the data's; got {model.num_classes} and {count}; leave it out, or choose other "
            "data"
        )
    return count


def network(recipe, training):
    """The detector of a recipe with the weights that it begins with, for the classes of a Split."""
    model, num_classes = recipe.model, class_count(recipe.model, training)
    network = create(model.name, weights=model.weights or None, num_classes=num_classes, **model.options())
    if not isinstance(network, SSD):
        raise SwinsError(f"model.name must be a detector's; got {model.name}, a {type(network).__name__}: swins list")
    return network


def preparation(recipe, network, splits):
    """The Preprocess of validation images: the whole image, squashed to the network's size."""
    size = network.image_size
    return Preprocess(size, size, False, *channel_levels(recipe.data, network.input.shape[-1]))


def channel_levels(data, channels: int) -> tuple:
    """mean and std of a recipe's Data, a number a channel; those of RGB also for grey.

    Raises:
        SwinsError: for other channels than the model's.
    """
    mean, std = data.mean, data.std
    if channels == 1 and len(mean) == 3:
        mean, std = ((sum(x) / len(x),) for x in (mean, std))
    if not len(mean) == len(std) == channels:
        raise SwinsError(
            f"data.mean and data.std need a number a channel; got {mean}, {std} and {channels} channels; set both, as "
            f"--set data.mean={list(mean[:1] * channels)}"
        )
    return tuple(mean), tuple(std)


def arrays_of(samples, most):
    """Samples (image, relative boxes, labels) -> (images, {"boxes", "labels", "valid"}), with places for `most`."""
    images, boxes, labels = zip(*samples, strict=True)
    padded = [pad(*pair, most) for pair in zip(boxes, labels, strict=True)]
    return np.stack(images), dict(
        zip(("boxes", "labels", "valid"), map(np.stack, zip(*padded, strict=True)), strict=True)
    )


def training(recipe, prepare, split):
    """Augmented images, and their objects but crowds as relative boxes."""
    transform = BoxTransform(recipe.augment, prepare.image_size, prepare.mean, prepare.std)
    return Reading(transform, lambda samples, rng: arrays_of(samples, recipe.data.objects))


def validating(recipe, prepare, split):
    """Prepared images, and their objects but crowds as relative boxes."""

    def sample(image, truth, rng, size):
        (height, width), truth = size_of(image), truth.training()  # which is fitted to the image
        return prepare(image), truth.boxes / np.float32([width, height, width, height]), truth.labels

    def filler():
        image = np.zeros((*prepare.image_size, len(prepare.mean)), "float32")
        return image, np.zeros((0, 4), "float32"), np.zeros(0, "int64")

    return Reading(sample, lambda samples, rng: arrays_of(samples, recipe.data.objects), filler)


def losses(recipe, network, truths, outputs, training=False):
    """The boxes' loss and the classes'."""
    parts = ssd_loss(network.priors, outputs, truths, recipe.loss.rule)
    return {name: shared(value) for name, value in parts.items()}


def facts(recipe, network, prepare, split):
    """Classes and their ids, how images are prepared, and how boxes are made of what the network gives."""
    preparing = {"image_size": prepare.image_size, "mean": prepare.mean, "std": prepare.std}
    return {
        "classes": list(split.classes),
        "category_ids": list(split.category_ids),
        "preprocess": preparing,
        **detection_evaluation.decoding(network, recipe.selection),
    }


DETECTION = register(
    Task(
        name="detection",
        recipe=Detection,
        splits=splits,
        network=network,
        preparation=preparation,
        training=training,
        validating=validating,
        losses=losses,
        facts=facts,
        owns=lambda model: isinstance(model, SSD),
        **detection_evaluation.FUNCTIONS,
        **detection_export.FUNCTIONS,
    )
)
