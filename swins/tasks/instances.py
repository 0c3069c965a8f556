"""Instances: objects' boxes, classes, scores and masks, by a Mask R-CNN or one of its kind, judged by COCO's scores."""

from dataclasses import asdict, dataclass

import numpy as np

from swins.creation import create
from swins.data.box_augment import with_most
from swins.data.coco_scores import require_evaluator
from swins.data.decoded import cached
from swins.data.instance_augment import InstanceTransform, Sample, canvas_groups, filler, instance_arrays
from swins.data.instance_augment import validating as whole_images
from swins.detection.mask_rcnn import MaskRCNN
from swins.detection.mask_rcnn_losses import RandomNumbers, mask_rcnn_losses, random_numbers
from swins.errors import SwinsError
from swins.keep_ratio import KeepRatioPreprocess
from swins.task import Reading, Task, register, shared
from swins.tasks import detection, instances_evaluation, instances_export
from swins.tasks.instances_settings import Data, Instances, Loss, Model, Selection

__all__ = ["INSTANCES", "Data", "Instances", "Loss", "Model", "Selection"]
FIXED = 0  # seed of what validation samples, of each image the same


@dataclass(frozen=True)
class InstancePreprocess(KeepRatioPreprocess):
    """How validation images are prepared, and the random numbers that the losses of a network need of each."""

    numbers: RandomNumbers


def splits(source, recipe):
    """The Splits of a data set: (to train on, to validate on), with masks unless the model has none."""
    data = recipe.data
    require_evaluator()
    training, validation = instances_evaluation.find_splits(source, data.held_out, recipe.seed, recipe.model.masks)
    return cached(with_most(training, data.objects), data.cache), validation


def network(recipe, training):
    """The network of a recipe with the weights that it begins with, for the classes of a Split.

    Raises:
        SwinsError: another kind of network, or one of a fixed size that is not every canvas's.
    """
    model, augment = recipe.model, recipe.augment
    num_classes = detection.class_count(model, training)
    network = create(model.name, weights=model.weights or None, num_classes=num_classes, **model.options())
    if not isinstance(network, MaskRCNN):
        raise SwinsError(
            f"model.name must be a Mask R-CNN's; got {model.name}, a {type(network).__name__}; see swins list, or take "
            "the recipe of its kind"
        )
    fixed = network.image_size
    if None not in fixed and any(tuple(canvas) != fixed for canvas in augment.canvases):
        raise SwinsError(
            f"augment.canvases must be the model's image_size; got {augment.canvases} and {fixed}; leave "
            "model.image_size out"
        )
    for side in (side for canvas in augment.canvases for side in canvas):
        if side % network.multiple:
            raise SwinsError(f"sides of augment.canvases must be multiples of {network.multiple}; got {side}")
    return network


def preparation(recipe, network, splits):
    """The InstancePreprocess of validation images: the whole image at its largest, on one canvas for all."""
    mean, std = detection.channel_levels(recipe.data, network.in_chans)
    whole = whole_images(recipe.augment)
    numbers = random_numbers(network, recipe.loss.rule(len(network.stds)), recipe.data.objects)
    return InstancePreprocess(whole.short[0], whole.long, whole.canvases, mean, std, numbers)


def reading(recipe, prepare, augment, groups=None, sizes=()):
    """The Reading of samples (Sample, {name: random numbers}) of an augmentation."""
    transform = InstanceTransform(augment, prepare.mean, prepare.std, recipe.model.masks, recipe.data.objects)

    def with_numbers(sample: Sample, rng):
        rng = np.random.default_rng(FIXED) if rng is None else rng
        return sample, prepare.numbers(sample.pixels.shape[:2], rng)

    def sample(image, truth, rng, canvas):
        return with_numbers(transform(image, truth, rng, canvas), rng)

    def batch(samples, rng):
        samples, numbers = zip(*samples, strict=True)
        images, arrays = instance_arrays(samples, recipe.data.objects)
        return images, {**arrays, **{name: np.stack([row[name] for row in numbers]) for name in numbers[0]}}

    return Reading(
        sample, batch, lambda: with_numbers(filler(transform, prepare.image_size), None), groups=groups, sizes=sizes
    )


def training(recipe, prepare, split):
    """Augmented images and their objects but crowds, in batches of one canvas each."""
    canvases = canvas_groups(split, recipe.augment)
    several = len(canvases.sizes) > 1
    return reading(recipe, prepare, recipe.augment, canvases.groups if several else None, canvases.sizes)


def validating(recipe, prepare, split):
    """Prepared images, and their objects but crowds."""
    return reading(recipe, prepare, whole_images(recipe.augment))


def losses(recipe, network, truths, outputs, training=False):
    """Those of proposals, and of the boxes, classes and masks of regions that are sampled."""
    rule = recipe.loss.rule(len(network.stds))
    parts = mask_rcnn_losses(network, outputs, truths, rule, training)
    return {name: shared(value) for name, value in parts.items()}


def facts(recipe, network, prepare, split):
    """Classes and their ids, how images are prepared, and what of the network's boxes is an answer."""
    return {
        "classes": list(split.classes),
        "category_ids": list(split.category_ids),
        "preprocess": instances_evaluation.as_facts(prepare),
        "selection": asdict(recipe.selection),
    }


INSTANCES = register(
    Task(
        name="instances",
        recipe=Instances,
        splits=splits,
        network=network,
        preparation=preparation,
        training=training,
        validating=validating,
        losses=losses,
        facts=facts,
        owns=lambda model: isinstance(model, MaskRCNN),
        **instances_evaluation.FUNCTIONS,
        **instances_export.FUNCTIONS,
    )
)
