"""Models by what people have of them: an artefact, a training run, a file, a name."""

import pathlib
from dataclasses import dataclass, field

import keras

from swins.creation import create
from swins.errors import SwinsError
from swins.run_result import model_file, require_finished, training_of, unfinished_of
from swins.tags import names_variant, variant_name
from swins.task import Task, task_of
from swins.weights import artefacts, checkpoint_files, identify, pretrained
from swins.weights.facts import NOTHING


@dataclass(frozen=True)
class Opened:
    """A model and what is known of it.

    path: what was opened; model; task: its kind of work; certificate: an artefact's, or what stands for one, with at
    least the digest of the weights; training: what the run that made it says, or None.
    """

    path: pathlib.Path
    model: keras.Model
    task: Task
    certificate: dict = field(repr=False)
    training: dict | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """What a model is called: its run, its certificate's name, or its variant."""
        if self.training:
            return str(self.path) if not names_variant(str(self.path)) else str(self.path.absolute())
        return self.certificate.get("name") or variant_name(self.model)


def open_model(path, name: str | None = None) -> Opened:
    """Open a model.

    Args:
        path: an artefact, a training run, a .keras file, a checkpoint of any dialect or a folder of one,
            "hf:OWNER/NAME" or "timm/NAME" for such a folder of the Hugging Face Hub; or the name of published weights:
            a name means these, whatever folder is called so, which is given as ./NAME.
        name: the variant of a checkpoint; by default the one recognised.

    Raises:
        SwinsError: if it is none of these, or a training run that has not ended.
    """
    if names_variant(path):
        return of_weights(pathlib.Path(path), path, "pretrained", NOTHING)
    path = pretrained.local(path)
    file = pathlib.Path(path)
    require_finished(file)
    if (file.is_file() and file.suffix != ".keras") or (file.is_dir() and not (file / artefacts.MODEL).is_file()):
        checkpoint = checkpoint_files.read(file)
        return of_weights(file, name or identify.the_variant(checkpoint), file, checkpoint.facts)
    if file.exists():
        return open_saved(file)
    if len(file.parts) > 1:
        raise SwinsError(f"{path}: neither an artefact, nor a file, nor a variant's name")
    return of_weights(file, path, "pretrained", NOTHING)  # which lists the closest names


def of_weights(path, name, weights, stated) -> Opened:
    """The Opened of a variant with weights, and of the Facts that their file states."""
    model = create(name, weights=weights)
    certificate = {
        "name": name,
        "weights_sha256": artefacts.weights_digest(model),
        "class_names": list(stated.class_names),
        "preparation": stated.preparation,
    }
    return Opened(path, model, task_of(model), certificate)


def open_saved(path) -> Opened:
    """Open an artefact, a training run or a .keras file.

    Raises:
        SwinsError: also if an artefact's model is not the one certified.
    """
    require_finished(path)
    file = model_file(path)
    model, certificate = artefacts.open_evaluated(file)
    training = training_of(path) or unfinished_of(path)
    task = task_of(model, (training or {}).get("task") or certificate.get("task"), file)
    return Opened(pathlib.Path(path), model, task, certificate, training)
