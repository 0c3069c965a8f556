"""Prediction: a model, how its images are prepared and what its classes are called, together."""

import json
import pathlib
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING

import numpy as np

from swins import files, hub
from swins.archives import find_saved_model
from swins.checked_numbers import tuples
from swins.errors import SwinsError
from swins.evaluate.records import answered, predict
from swins.images import Preprocess, prepared, preprocess
from swins.keep_ratio import KeepRatioPreprocess
from swins.opening import Opened, open_model
from swins.pixel_classifier import PixelClassifier
from swins.run_result import FACTS, saved_facts
from swins.task import Prepared, Task, refuse_options, task_named

if TYPE_CHECKING:
    from swins.tasks.diffusion_sampling import ImageSampler

SAVED_MODEL = "saved_model.pb"
BATCH = 32
KINDS = Preprocess, KeepRatioPreprocess  # of preparations that a SavedModel may state


@dataclass(frozen=True)
class Predictor:
    """Photographs in, results out: `predictor("photo.jpg")`, or a list of them.

    name: of the model; task: its kind of work; preparation: of images; facts: such as the names of its classes; run: a
    function of prepared images (B, H, W, C) -> outputs.
    """

    name: str
    task: Task
    preparation: object
    facts: dict = field(repr=False)
    run: object = field(repr=False)

    def __call__(self, images, batch: int = BATCH):
        """The result of an image, or of each of a list of them.

        Args:
            images: a path, bytes, a PIL image or a uint8 array (H, W[, C]); or a list of such.
            batch: images at a time.

        Returns:
            A result of the model's kind of work, such as `swins.results.Classes`, which has `draw(image)` and
            `to_json()`; a list of them for a list.

        Raises:
            SwinsError: an image that cannot be read.
        """
        several = isinstance(images, list | tuple)
        images = list(images) if several else [images]
        results = []
        for start in range(0, len(images), batch):
            pairs = [prepared(self.preparation, image) for image in images[start : start + batch]]
            arrays, sizes = zip(*pairs, strict=True)
            results += answered(arrays, sizes, lambda images, alone: self.run(images), self.task, self.facts)
        return results if several else results[0]


def load(
    source, *, variant: str | None = None, protocol: str | None = None, raw: bool = False
) -> "Predictor | PixelClassifier | ImageSampler":
    """A Predictor of an artefact, a training run, a .keras file, a checkpoint, a SavedModel, or published weights.

    Of a diffusion model it is an ImageSampler, which makes images in place of looking at them.

    Args:
        source: a path; or a variant's name, which means its published weights, fetched through the Hugging Face Hub.
        variant: the one whose preparation holds, in place of what the source tells.
        protocol: "timm" or "ms", with a variant or for classifiers of which no run and no file tells another.
        raw: give one Keras model instead, from pixels to probabilities, which is saved and served as it is: a
            PixelClassifier. Not of a SavedModel, and of classifiers alone.

    Raises:
        SwinsError: if it is none of these, or does not tell how images are prepared.

    Example:
    >>> predictor = load("demo/fashion_mnist/swin_mini_patch2_window4_28.fashion_mnist.safetensors")
    >>> predictor(np.zeros((28, 28), "uint8")).labels[0] in range(10)
    True
    """
    if (pathlib.Path(source) / SAVED_MODEL).is_file() or str(source).partition("#")[0].endswith(".tar.gz"):
        if raw:
            raise SwinsError(
                f"{source}: raw=True takes what holds a Keras model; got a SavedModel, whose serving_bytes "
                "takes files; load the artefact, the run or the .keras file that it is of"
            )
        return of_saved_model(str(source), variant, protocol)
    opened = open_model(source, variant)
    options = {"model": variant, "protocol": protocol}
    options = {k: v for k, v in options.items() if v is not None}
    refuse_options(opened.task, options, opened.task.options)
    if not raw and opened.task.load:
        return opened.task.load(opened)
    how = opened.task.prepare(opened, options)
    if not raw:
        return of_opened(opened, how)
    if not isinstance(how.preparation, Preprocess) or opened.task.output(opened.model) != "logits":
        raise SwinsError(f"{source}: raw=True is for classifiers; got a model of {opened.task.name}; load it without")
    return PixelClassifier(opened.model, how.preparation, tuple(opened.task.known(opened).get("classes") or ()))


def of_opened(opened: Opened, how: Prepared) -> Predictor:
    """The Predictor of a model that was opened."""

    facts = {**opened.task.known(opened), **how.facts}
    model = opened.task.answering(opened.model, facts)

    def run(images):
        return opened.task.named(opened.model, predict(model, images, len(images)))

    return Predictor(opened.name, opened.task, how.preparation, facts, run)


def of_saved_model(handle: str, variant: str | None, protocol: str | None) -> Predictor:
    """The Predictor of a SavedModel, which says itself how images are prepared, where swins wrote it."""
    root, stated = hub.load(handle), saved_facts(find_saved_model(handle))
    task = task_named(stated.get("task"))
    if task.load_saved:
        return task.load_saved(handle, root, stated.get("facts") or {})
    default = root.signatures.get("serving_default") if hasattr(root, "signatures") else None
    inputs = default.structured_input_signature[1] if default is not None else {}
    if list(inputs) != ["images"]:
        raise SwinsError(
            f"{handle}: a signature serving_default of `images` is needed; got inputs {', '.join(inputs) or 'none'}; "
            "load it as a layer: swins.HubLayer"
        )
    *size, channels = inputs["images"].shape[1:]
    asked = {"model": variant, "protocol": protocol}
    refuse_options(task, asked, task.options)
    if variant:
        preparation = preprocess(variant, protocol or "timm", tuple(size), channels)
    elif stated.get("preparation"):
        numbers = {name: tuples(value) for name, value in stated["preparation"].items()}
        kind = next((kind for kind in KINDS if set(numbers) <= {f.name for f in fields(kind)}), KINDS[0])
        try:
            preparation = kind(**numbers)
        except TypeError as error:
            raise SwinsError(f"{handle}: {FACTS} states another preparation ({error}); export it again") from error
    else:
        raise SwinsError(f"{handle}: does not tell how images are prepared; name the variant that it is (--variant)")

    def run(images):
        return {output: np.asarray(values) for output, values in default(images=images).items()}

    return Predictor(handle, task, preparation, stated.get("facts") or {}, run)


def write_facts(opened: Opened, preparation, folder) -> None:
    """Let a SavedModel say of itself what a Predictor needs.

    Args:
        opened: the model that it is of; preparation: of its images, or None; folder: the SavedModel's.
    """
    prepared = asdict(preparation) if preparation else None
    stated = {"task": opened.task.name, "preparation": prepared, "facts": opened.task.known(opened)}
    pathlib.Path(folder, FACTS).parent.mkdir()
    files.write(pathlib.Path(folder, FACTS), json.dumps(stated) + "\n")
