"""Prediction: a model, how its images are prepared and what its classes are called, together."""

import json
import pathlib
from dataclasses import asdict, dataclass, field

import numpy as np

from swins import files, hub
from swins.archives import find_saved_model
from swins.errors import SwinsError
from swins.evaluate.records import predict
from swins.images import Preprocess, prepared, preprocess
from swins.opening import Opened, open_model
from swins.task import Task, refuse_options, task_named

FACTS = "assets.extra/swins.json"  # what a SavedModel of ours says of itself
SAVED_MODEL = "saved_model.pb"
BATCH = 32


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
            results += self.task.answers(self.run(np.stack(arrays)), self.facts, sizes)
        return results if several else results[0]


def load(source, *, variant: str | None = None, protocol: str | None = None) -> Predictor:
    """A Predictor of an artefact, a training run, a .keras file, a checkpoint, a SavedModel, or published weights.

    Args:
        source: a path; or a variant's name, which means its published weights, fetched through the Hugging Face Hub.
        variant: the one whose preparation holds, in place of what the source tells.
        protocol: "timm" or "ms", with a variant or for classifiers of which no run and no file tells another.

    Raises:
        SwinsError: if it is none of these, or does not tell how images are prepared.

    Example:
    >>> predictor = load("demo/fashion_mnist/swin_mini_patch2_window4_28.fashion_mnist.safetensors")
    >>> predictor(np.zeros((28, 28), "uint8")).labels[0] in range(10)
    True
    """
    if (pathlib.Path(source) / SAVED_MODEL).is_file() or str(source).partition("#")[0].endswith(".tar.gz"):
        return of_saved_model(str(source), variant, protocol)
    opened = open_model(source, variant)
    options = {"model": variant, "protocol": protocol}
    options = {k: v for k, v in options.items() if v is not None}
    refuse_options(opened.task, options, opened.task.options)
    return of_opened(opened, opened.task.prepare(opened, options).preparation)


def of_opened(opened: Opened, preparation) -> Predictor:
    """The Predictor of a model that was opened."""

    def run(images):
        return opened.task.named(opened.model, predict(opened.model, images, len(images)))

    return Predictor(opened.name, opened.task, preparation, opened.task.known(opened), run)


def of_saved_model(handle: str, variant: str | None, protocol: str | None) -> Predictor:
    """The Predictor of a SavedModel, which says itself how images are prepared, where swins wrote it."""
    root, stated = hub.load(handle), saved_facts(find_saved_model(handle))
    default = root.signatures.get("serving_default") if hasattr(root, "signatures") else None
    inputs = default.structured_input_signature[1] if default is not None else {}
    if list(inputs) != ["images"]:
        raise SwinsError(
            f"{handle}: a signature serving_default of `images` is needed; got inputs {', '.join(inputs) or 'none'}; "
            "load it as a layer: swins.HubLayer"
        )
    *size, channels = inputs["images"].shape[1:]
    task, asked = task_named(stated.get("task")), {"model": variant, "protocol": protocol}
    refuse_options(task, asked, task.options)
    if variant:
        preparation = preprocess(variant, protocol or "timm", tuple(size), channels)
    elif stated.get("preparation"):
        numbers = {k: tuple(v) if isinstance(v, list) else v for k, v in stated["preparation"].items()}
        try:
            preparation = Preprocess(**numbers)
        except TypeError as error:
            raise SwinsError(f"{handle}: {FACTS} states another preparation ({error}); export it again") from error
    else:
        raise SwinsError(f"{handle}: does not tell how images are prepared; name the variant that it is (--variant)")

    def run(images):
        return {output: np.asarray(values) for output, values in default(images=images).items()}

    return Predictor(handle, task, preparation, stated.get("facts") or {}, run)


def saved_facts(folder) -> dict:
    """What a SavedModel of ours says of itself: "task", "preparation", "facts"; {} for another."""
    file = pathlib.Path(folder, FACTS)
    try:
        return dict(json.loads(file.read_text())) if file.is_file() else {}
    except (OSError, ValueError, TypeError) as error:
        raise SwinsError(f"{file}: not what swins writes ({error}); export again") from error


def write_facts(opened: Opened, preparation, folder) -> None:
    """Let a SavedModel say of itself what a Predictor needs.

    Args:
        opened: the model that it is of; preparation: of its images, or None; folder: the SavedModel's.
    """
    prepared = asdict(preparation) if preparation else None
    stated = {"task": opened.task.name, "preparation": prepared, "facts": opened.task.known(opened)}
    pathlib.Path(folder, FACTS).parent.mkdir()
    files.write(pathlib.Path(folder, FACTS), json.dumps(stated) + "\n")
