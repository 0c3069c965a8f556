"""Diffusion: images of noise, of classes that are asked for; a network is trained to tell noise from image."""

import zlib
from dataclasses import asdict, replace

import numpy as np
from keras import ops

from swins.creation import create
from swins.data import labelled
from swins.data.layouts import find_splits
from swins.denoiser_configs import DENOISERS
from swins.diffusion.noise_schedule import NoiseSchedule, add_noise, loss_weights, target_of
from swins.diffusion.swin_unet import SwinUNet
from swins.errors import SwinsError
from swins.images import Preprocess
from swins.run_result import training_of
from swins.task import Reading, Task, register, shared
from swins.tasks import diffusion_evaluation, diffusion_export
from swins.tasks.diffusion_settings import Augment, Data, Diffusion, Model, Noise, Sampling, Target

__all__ = ["DIFFUSION", "Augment", "Data", "Diffusion", "Model", "Noise", "Sampling", "Target"]


def schedule_of(recipe) -> NoiseSchedule:
    """The noise of a recipe."""
    return NoiseSchedule(recipe.noise.kind, recipe.noise.steps)


def splits(source, recipe):
    """The Splits of a data set, whose classes may be renamed: (to train on, to validate on).

    Raises:
        SwinsError: names of other than as many classes.
    """
    pair, names = find_splits(source, recipe.data.held_out, recipe.seed), recipe.data.names
    if names and len(names) != len(pair[0].classes):
        raise SwinsError(
            f"data.names must be as many as the data's classes; got {len(names)} and {len(pair[0].classes)}: "
            f"{', '.join(pair[0].classes[:5])}, ...; name all, or leave them out"
        )
    return tuple(replace(split, classes=names or split.classes) for split in pair)


def require_same_noise(recipe):
    """Raise SwinsError if a recipe begins with the weights of a run of another noise schedule or target."""
    run = training_of(recipe.model.weights) if recipe.model.weights else None
    if not run or run.get("task") != "diffusion":
        return
    theirs, ours = (run["noise"], run["target"]), (asdict(recipe.noise), recipe.target.kind)
    if theirs != ours:
        (noise, target), (own, kind) = theirs, ours
        raise SwinsError(
            f"{recipe.model.weights}: was trained with {noise['kind']} noise of {noise['steps']} steps for {target}, "
            f"the recipe has {own['kind']}, {own['steps']} and {kind}; set noise.kind={noise['kind']} "
            f"noise.steps={noise['steps']} target.kind={target}, or begin with fresh weights"
        )


def network(recipe, training):
    """The denoiser of a recipe with the weights that it begins with, for the classes of a Split."""
    model, classes = recipe.model, len(training.classes)
    if model.name not in DENOISERS:
        raise SwinsError(f"model.name must be a network of diffusion, {', '.join(DENOISERS)}; got {model.name}")
    require_same_noise(recipe)
    if model.num_classes not in (None, 0, classes):
        raise SwinsError(
            f"model.num_classes must be the data's, or 0 for a model without classes; got {model.num_classes} and "
            f"{classes}; leave it out, or choose other data"
        )
    count = classes if model.num_classes is None else model.num_classes
    null = bool(count) and recipe.target.drop_class > 0
    return create(model.name, weights=model.weights or None, num_classes=count, null_class=null, **model.options())


def preparation(recipe, network, splits):
    """The Preprocess of validation images: the whole image, squashed to the network's size, its pixels from -1 to 1.

    Raises:
        SwinsError: images of other channels than the network's.
    """
    half = (0.5,) * network.in_chans
    for split in splits:
        labelled.require_channels(split, network.in_chans)
    return Preprocess(network.image_size, network.image_size, False, half, half)


def batch_of(recipe, network_classes):
    """The function of samples (image, time, noise, class, truth's weight) that makes batches of them."""
    schedule, target = schedule_of(recipe), recipe.target
    weights = loss_weights(schedule, target.kind, target.min_snr) if target.min_snr else np.ones(schedule.steps)

    def batch(samples, rng):
        images, times, noise, classes = (np.stack(part) for part in zip(*samples, strict=True))
        times = times.astype("int32")
        inputs = {"images": np.float32(add_noise(schedule, images, noise, times)), "time": times}
        if network_classes:
            inputs["classes"] = classes.astype("int32")
        wanted = np.float32(target_of(schedule, target.kind, images, noise, times))
        return inputs, {"target": wanted, "time": times, "importance": np.float32(weights[times])}

    return batch


def has_classes(recipe) -> bool:
    """Whether a recipe's network is told classes."""
    return recipe.model.num_classes != 0


def training(recipe, prepare, split):
    """Augmented images, each with noise of a time step drawn for it, and with its class or, at times, none."""
    from swins.data.augment import TrainTransform

    transform = TrainTransform(recipe.augment, prepare.image_size, prepare.mean, prepare.std)
    steps, dropped, null = recipe.noise.steps, recipe.target.drop_class, len(split.classes)

    def sample(image, label, rng, size):
        pixels = transform(image, rng)
        label = null if rng.random() < dropped else label
        return pixels, int(rng.integers(steps)), rng.standard_normal(pixels.shape, "float32"), label

    return Reading(sample, batch_of(recipe, has_classes(recipe)))


def validating(recipe, prepare, split):
    """Prepared images, each with its class, and with noise and a time step that are the same whenever it is read."""
    steps = recipe.noise.steps

    def sample(image, label, rng, size):
        pixels = prepare(image)
        rng = np.random.default_rng((recipe.seed, zlib.crc32(pixels.tobytes())))
        return pixels, int(rng.integers(steps)), rng.standard_normal(pixels.shape, "float32"), label

    def filler():
        pixels = np.zeros((*prepare.image_size, len(prepare.mean)), "float32")
        return pixels, 0, pixels, 0

    return Reading(sample, batch_of(recipe, has_classes(recipe)), filler)


def squared_errors(outputs, truths):
    """The mean squared error of each image's output: (B,)."""
    (output,) = outputs.values()
    return ops.mean(ops.square(ops.cast(output, "float32") - ops.convert_to_tensor(truths["target"])), axis=(1, 2, 3))


def losses(recipe, network, truths, outputs, training=False):
    """The squared error of what is to be given, weighed by the time step where the recipe says so."""
    errors = squared_errors(outputs, truths) * ops.convert_to_tensor(truths["importance"])
    return {"denoising": shared(ops.mean(errors * ops.convert_to_tensor(truths.get("weight", 1.0), dtype="float32")))}


def examined(outputs, truths):
    """What validation scores of a batch: each image's error, and its time step."""
    return {"error": ops.convert_to_numpy(squared_errors(outputs, truths)), "time": truths["time"]}


def facts(recipe, network, prepare, split):
    """The classes, how images are prepared, and all that a sampler needs: the noise, what the network gives, how."""
    return {
        "classes": list(split.classes) if network.numbers.num_classes else [],
        "preprocess": {"image_size": prepare.image_size, "mean": prepare.mean, "std": prepare.std},
        "noise": asdict(recipe.noise),
        "target": recipe.target.kind,
        "sampling": asdict(recipe.sampling),
        "data": {"held_out": recipe.data.held_out, "seed": recipe.seed},
    }


DIFFUSION = register(
    Task(
        name="diffusion",
        recipe=Diffusion,
        splits=splits,
        network=network,
        preparation=preparation,
        training=training,
        validating=validating,
        losses=losses,
        examined=examined,
        facts=facts,
        owns=lambda model: isinstance(model, SwinUNet),
        **diffusion_evaluation.FUNCTIONS,
        **diffusion_export.FUNCTIONS,
    )
)
