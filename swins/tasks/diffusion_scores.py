"""Scores of a diffusion model by its samples: how far they are from real images, of what class, and whether copied."""

import time
from dataclasses import dataclass

import keras
import numpy as np

from swins.data.layouts import find_splits
from swins.diffusion.frechet_distance import frechet_distance, nearest, statistics_of
from swins.errors import SwinsError
from swins.images import open_image
from swins.opening import Opened, open_model
from swins.samples import to_pixels
from swins.score import Score
from swins.task import Evaluated
from swins.tasks.classification import CLASSIFICATION
from swins.tasks.diffusion_sampling import KNOWN, ImageSampler

COUNT, BATCH, CLOSE = 1000, 100, 1  # images by default; at a time; percentile of real distances below which is a copy
OPTIONS = ("classifier", "count", "seed", "steps", "guidance", "sampler", "eta")
SCORES = (
    Score("frechet", "Frechet distance of samples from the training images", larger=False),
    Score("frechet_real", "Frechet distance of real images that were not trained on from these", larger=False),
    Score("recognised", "samples that the classifier takes for the class that was asked for", percent=True),
    Score("recognised_least", "the same of the class with the fewest", percent=True),
    Score("recognised_real", "real images that were not trained on, of which it takes the right class", percent=True),
    Score("nearest", "median distance of a sample to the nearest training image", larger=False),
    Score("nearest_real", "the same of real images that were not trained on", larger=False),
    Score("close", "samples nearer to a training image than 99 % of real images are", larger=False, percent=True),
)


@dataclass(frozen=True)
class Extractor:
    """A classifier as a judge of images: uint8 pixels (n, H, W, C) -> pooled features (n, D), and classes (n,).

    name: what it is; prepare: its preparation of images; model: images -> (logits, features); numbers: {class of the
    data: its own}.
    """

    name: str
    prepare: object
    model: keras.Model
    numbers: dict

    def __call__(self, pixels: np.ndarray):
        features, classes = [], []
        for start in range(0, len(pixels), BATCH):
            part = np.stack([self.prepare(image) for image in pixels[start : start + BATCH]])
            filled = np.concatenate([part, np.zeros((BATCH - len(part), *part.shape[1:]), part.dtype)])
            logits, pooled = (np.asarray(y)[: len(part)] for y in self.model.predict_on_batch(filled))
            features.append(pooled)
            classes.append(logits.argmax(1))
        return np.concatenate(features), np.concatenate(classes)


def extractor_of(path, names) -> Extractor:
    """The Extractor of a classifier, by what `open_model` takes.

    Args:
        names: of the diffusion model's classes, which must be the classifier's in any order, or as many.

    Raises:
        SwinsError: no classifier, or one of other classes.
    """
    if not path:
        raise SwinsError(
            "samples are scored by a classifier that was trained apart: --classifier FILE, such as "
            "demo/fashion_mnist/swin_mini_patch2_window4_28.fashion_mnist.safetensors for Fashion-MNIST"
        )
    opened = open_model(path)
    if opened.task is not CLASSIFICATION or "pool" not in {layer.name for layer in opened.model.layers}:
        raise SwinsError(f"{path}: a Swin that classifies is needed; got a {type(opened.model).__name__}")
    theirs, count = tuple(opened.task.known(opened)["classes"]), opened.model.variant.num_classes
    if set(names) == set(theirs):
        numbers = {number: theirs.index(name) for number, name in enumerate(names)}
    elif len(names) in (0, count):
        numbers = {number: number for number in range(len(names))}
    else:
        raise SwinsError(
            f"{path}: its classes must be the diffusion model's; got {count} and {len(names)}; take one of the same "
            "data"
        )
    model = keras.Model(opened.model.input, [opened.model.output, opened.model.get_layer("pool").output])
    prepare = opened.task.prepare(opened, {}).preparation
    return Extractor(f"{opened.name} {opened.certificate['weights_sha256'][:8]}", prepare, model, numbers)


def real_images(split, prepare, most=None):
    """Pixels (n, H, W, C) uint8 of a Split's images as a diffusion model has them, and labels (n,); evenly chosen."""
    chosen = np.unique(np.linspace(0, len(split) - 1, min(most or len(split), len(split))).astype(int))
    samples = [split[int(i)] for i in chosen]
    pixels = np.stack([to_pixels(prepare(open_image(image))) for _, image, _ in samples])
    return pixels, np.array([label for _, _, label in samples])


def splits_of(opened: Opened, source):
    """The Splits that the run of an Opened had, of its data set."""
    run = opened.training or opened.certificate.get("training") or {}
    data, recipe = (
        run.get("data", {}),
        run.get("recipe", {}),
    )  # the latter of a run alone, and not of what is made of it
    held_out = data.get("held_out", recipe.get("data.held_out", 0.1))
    return find_splits(source, held_out, data.get("seed", recipe.get("seed", 0)))


def evaluate(opened: Opened, sampler: ImageSampler, prepare, source, options: dict, bar) -> Evaluated:
    """Draw samples and score them beside real images.

    Args:
        opened: the model; sampler: the same; prepare: its preparation of real images.
        source: the data set that it was trained on; what was held out there stands for real images.
        options: by the names of OPTIONS; bar: (count) -> a context with update(n), of progress.

    Raises:
        SwinsError: no classifier, or other classes than the data's.
    """
    classes, given = sampler.facts["classes"], {k: v for k, v in options.items() if k in KNOWN}
    extractor = extractor_of(options.get("classifier"), classes)
    training, validation = splits_of(opened, source)
    if classes and len(training.classes) != len(classes):
        raise SwinsError(
            f"{source}: classes must be as many as the model's; got {len(training.classes)} and {len(classes)}"
        )
    count = COUNT if options.get("count") is None else options["count"]
    begun = time.perf_counter()
    with bar(count) as done:
        state = [0]

        def progress(step, steps):
            now = count * step // steps
            done.update(now - state[0])
            state[0] = now

        samples = sampler(None, count, seed=options.get("seed") or 0, progress=progress, **given)
    seconds = time.perf_counter() - begun
    known, _ = real_images(training, prepare)
    held, held_labels = real_images(validation, prepare, count)
    (ours, taken), (others, _), (apart, held_taken) = map(extractor, (samples.images, known, held))
    reference = statistics_of(others)
    index, distances = nearest(samples.images, known)
    _, real_distances = nearest(held, known)
    asked = np.array([extractor.numbers[label] for label in samples.labels.tolist()])
    right = taken == asked if len(asked) else None
    each = [float(right[samples.labels == label].mean()) for label in np.unique(samples.labels)]
    held_asked = np.array([extractor.numbers.get(label, -1) for label in held_labels.tolist()])
    values = {
        "frechet": frechet_distance(statistics_of(ours), reference),
        "frechet_real": frechet_distance(statistics_of(apart), reference),
        "recognised": None if right is None else float(right.mean()),
        "recognised_least": min(each, default=None),
        "recognised_real": float((held_taken == held_asked).mean()) if classes else None,
        "nearest": float(np.median(distances)),
        "nearest_real": float(np.median(real_distances)),
        "close": float((distances < np.percentile(real_distances, CLOSE)).mean()),
    }
    own = {number: label for label, number in extractor.numbers.items()}
    rows = [
        [i, label, own.get(int(seen), -1), training[int(place)][0], round(float(distance), 3)]
        for i, (label, seen, place, distance) in enumerate(
            zip(samples.labels if len(asked) else [-1] * len(samples), taken, index, distances, strict=True)
        )
    ]
    notes = [f"features and classes of {extractor.name}; {len(known)} training images, {len(held)} held out"]
    notes += [f"{name}: {share:.1%} recognised" for name, share in zip(dict.fromkeys(samples.names), each, strict=True)]
    words = [sampler.facts["sampling"] | {k: v for k, v in given.items() if v is not None}]
    protocol = "{sampler} {steps} eta {eta} guidance {guidance}".format(**words[0])
    if words[0]["sampler"] == "ddpm":
        protocol = f"ddpm {sampler.facts['noise']['steps']} guidance {words[0]['guidance']}"
    header = ["label", "recognised_as", "nearest_training_image", "distance"]
    return Evaluated(
        validation.name, protocol, len(samples), values, (header, rows), len(samples) / seconds, tuple(notes)
    )
