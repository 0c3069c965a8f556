"""Segmentation: the class of each pixel, judged by the mean IoU of the classes."""

import dataclasses
from dataclasses import dataclass

import keras
import numpy as np

from swins.creation import create
from swins.data.class_weights import class_weights
from swins.data.decoded import cached
from swins.data.segment_augment import SegmentTransform, Squash, filler, segment_arrays
from swins.data.segmentation_layouts import find_segmentation_splits
from swins.errors import SwinsError
from swins.images import Preprocess
from swins.segmentation.segmentation_loss import segmentation_losses
from swins.segmentation.upernet import UPerNet
from swins.task import Reading, Task, register, shared
from swins.tasks import detection, segmentation_evaluation, segmentation_export
from swins.tasks.segmentation_settings import Data, Loss, Model, Segmentation, pair_of

__all__ = ["SEGMENTATION", "Data", "Loss", "Model", "Segmentation"]


@dataclass(frozen=True)
class SegmentPreparation:
    """How validation images are prepared, and by how much the pixels of each class count, None for all alike."""

    whole: Preprocess
    weights: tuple | None

    @property
    def image_size(self) -> tuple:
        """(height, width) of validation images."""
        return self.whole.image_size

    @property
    def mean(self) -> tuple:
        """Of each channel's pixels."""
        return self.whole.mean


def splits(source, recipe):
    """The Splits of a data set: (to train on, to validate on)."""
    data = recipe.data
    training, validation = find_segmentation_splits(source, data.held_out, recipe.seed, data.values)
    return cached(training, data.cache), validation


def sizes_of(data) -> tuple:
    """(height, width) of images that are trained on, and of those that are validated on."""
    return pair_of(data.size), pair_of(data.validation or data.size)


def network(recipe, training):
    """The segmenter of a recipe with the weights that it begins with, for the classes of a Split.

    Raises:
        SwinsError: another kind of network, or one of a fixed size that images are not given.
    """
    model = recipe.model
    num_classes = detection.class_count(model, training)
    network = create(model.name, weights=model.weights or None, num_classes=num_classes, **model.options())
    if not isinstance(network, UPerNet):
        raise SwinsError(
            f"model.name must be a segmenter's; got {model.name}, a {type(network).__name__}; see swins list, or take "
            "the recipe of its kind"
        )
    fixed, sizes = network.image_size, sizes_of(recipe.data)
    if None not in fixed and set(sizes) != {fixed}:
        raise SwinsError(
            f"data.size and data.validation must be the model's image_size; got {sizes} and {fixed}; leave "
            "model.image_size out, for a model of any size"
        )
    return network


def preparation(recipe, network, splits):
    """The SegmentPreparation of validation images: the whole image, squashed."""
    mean, std = detection.channel_levels(recipe.data, network.in_chans)
    whole = segmentation_evaluation.squash(sizes_of(recipe.data)[1], mean, std)
    weights = class_weights(splits[0], recipe.loss.class_weights) if recipe.loss.class_weights else None
    return SegmentPreparation(whole, weights)


def reading(prepare, augment, size) -> Reading:
    """The Reading of images and masks of a size, of an augmentation."""
    transform = SegmentTransform(augment, size, prepare.whole.mean, prepare.whole.std)

    def batch(samples, rng):
        images, arrays = segment_arrays(samples)
        if prepare.weights:
            arrays["class_weights"] = np.tile(np.float32(prepare.weights), (len(images), 1))
        return images, arrays

    return Reading(transform, batch, lambda: filler(transform))


def training(recipe, prepare, split):
    """Augmented images and masks."""
    return reading(prepare, recipe.augment, sizes_of(recipe.data)[0])


def validating(recipe, prepare, split):
    """Whole images and masks, squashed."""
    return reading(prepare, Squash(flip=0.0), prepare.image_size)


def losses(recipe, network, truths, outputs, training=False):
    """Cross entropy of the pixels, and the auxiliary head's where it trains."""
    weights, rule = truths.get("class_weights"), recipe.loss
    parts = segmentation_losses(
        outputs,
        truths["masks"],
        auxiliary_weight=rule.auxiliary_weight,
        class_weights=None if weights is None else weights[0],
        mean=rule.mean,
    )
    if "weight" in truths and (rule.mean == "valid" or weights is not None):  # fillers have no pixel that is counted
        part = keras.ops.mean(keras.ops.cast(truths["weight"], "float32"))
        parts = {name: value * part for name, value in parts.items()}
    return {name: shared(value) for name, value in parts.items()}


def facts(recipe, network, prepare, split):
    """Classes, what the values of masks mean, how images are prepared, and of what size windows are."""
    return {
        "classes": list(split.classes),
        "values": dataclasses.asdict(recipe.data.values),
        "preprocess": segmentation_evaluation.as_facts(prepare.whole),
        "crop": list(sizes_of(recipe.data)[0]),
        "inference": segmentation_evaluation.WHOLE,
    }


SEGMENTATION = register(
    Task(
        name="segmentation",
        recipe=Segmentation,
        splits=splits,
        network=network,
        preparation=preparation,
        training=training,
        validating=validating,
        losses=losses,
        facts=facts,
        owns=lambda model: isinstance(model, UPerNet),
        **segmentation_evaluation.FUNCTIONS,
        **segmentation_export.FUNCTIONS,
    )
)
