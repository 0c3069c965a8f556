"""Training runs and bare .keras files as artefacts, whose certificates say that no PyTorch stands behind them."""

import contextlib
import datetime
import pathlib
import platform
import re
import shutil
import tempfile

import keras
import numpy as np

from swins import files
from swins.convert.certificate import IMAGES, SEED
from swins.errors import SwinsError
from swins.run_result import training_of
from swins.tags import look_up
from swins.task import image_input, task_of
from swins.weights import artefacts

APART = ("task", "recipe", "best", "changes", "hours", "parameters", "machine", "versions")  # of result.json


def places(path, output=None):
    """(artefact, folder of the result) of anything that can be exported; None for an artefact that is yet to be made.

    Args:
        path: an artefact, the folder of a training run, or a .keras file.
        output: the folder of the result; by default the artefact itself; for others artefacts/NAME, which is completed
            if it was made of the same file.

    Raises:
        SwinsError: for a run that has not come to its end.
    """
    path = pathlib.Path(path)
    if path.name == artefacts.MODEL and (path.parent / artefacts.CERTIFICATE).is_file():
        path = path.parent
    if (path / artefacts.CERTIFICATE).is_file() or not (training_of(path) or path.suffix == ".keras"):
        if (path / "recipe.json").is_file():
            raise SwinsError(f"{path}: its training has not come to its end; end it with `swins train`, then export")
        return path, pathlib.Path(output or path)
    target = pathlib.Path(output or pathlib.Path("artefacts", name_of(path)))
    return target if made_of(target, path) else None, target


def file_of(path):
    """The .keras file of a run's folder, or the file itself."""
    return path if path.suffix == ".keras" else path / artefacts.MODEL


def name_of(path):
    """What a run or file is called: its folder's name, or the file's."""
    path = path.resolve()
    name = (path if path.suffix != ".keras" else path.parent).name if training_of(path) else path.stem
    if training_of(path) and path.name not in (artefacts.MODEL, name):
        name = f"{name}_{path.stem}"  # best.keras
    return re.sub(r"[^\w.-]+", "_", name)


def made_of(target, path):
    """Whether a folder is an artefact of this very run or file."""
    try:
        certificate = artefacts.read_certificate(target)
    except SwinsError:
        return False
    training = training_of(path)
    result = files.sha256(file_of(path).with_name(artefacts.RESULT)) if training else None
    recorded = certificate.get("training", {}).get("sha256")
    return (certificate["source"]["sha256"], recorded) == (files.sha256(file_of(path)), result)


def refuse(path, target, overwrite):
    """`artefacts.refuse`; of the artefact of a run that was trained anew since, it says so."""
    recorded = {}
    with contextlib.suppress(SwinsError):
        recorded = artefacts.read_certificate(target).get("training", {})
    path = pathlib.Path(path)
    earlier = training_of(path) and recorded.get("run") == name_of(path) and not made_of(target, path)
    if earlier and not overwrite:
        raise SwinsError(
            f"{target} exists, made before {path} was trained anew; pass --overwrite to make it of the new weights, or "
            "another folder with -o"
        )
    artefacts.refuse(target, overwrite)


@contextlib.contextmanager
def opened(path, output=None):
    """(artefact to read, folder of the result): see `places`; an artefact that is yet to be made is a temporary one."""
    path = pathlib.Path(path)
    source, target = places(path, output)
    if source:
        yield source, target
        return
    with tempfile.TemporaryDirectory() as temporary:
        make(path, pathlib.Path(temporary))
        yield pathlib.Path(temporary), target


def make(path, folder):
    """Write model.keras, certificate.json and a run's result.json into an empty folder."""
    model, training = artefacts.read_model(file_of(path)), training_of(path)
    task = task_of(model, (training or {}).get("task"), path)
    shutil.copyfile(file_of(path), folder / artefacts.MODEL)
    name = model.name
    if training:
        name = training["recipe"]["model.name"].partition(".")[0]
        shutil.copyfile(file_of(path).with_name(artefacts.RESULT), folder / artefacts.RESULT)
    sha256 = files.sha256(folder / artefacts.MODEL)
    certificate = {
        "task": task.name,
        "name": name,
        "architecture": name,
        "title": name_of(path),
        "source": {
            "file": f"{file_of(path).resolve().parent.name}/{file_of(path).name}" if training else path.name,
            "sha256": sha256,
            "dialect": "keras",
            "wrappers": [],
        },
        "weights_sha256": artefacts.weights_digest(model),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
            "numpy": np.__version__,
        },
        "seed": SEED,
        "images": [IMAGES, *tested_size(model, name, training), image_input(model).shape[-1]],
        "image_size": list(image_input(model).shape[1:3]),
        "parameters": {"keras": model.count_params()},
        "verdict": "its exports agree with Keras; no PyTorch was involved, so the model is compared with none",
        "model": {"file": artefacts.MODEL, "sha256": sha256},
    }
    if training:
        certificate["training"] = {
            "run": name_of(path),
            "begun_as": training["recipe"]["model.name"],
            "sha256": files.sha256(folder / artefacts.RESULT),
            **scored(task, training, file_of(path).name),
        }
    artefacts.write_json(folder / artefacts.CERTIFICATE, certificate)


def scored(task, training, file):
    """What a certificate keeps of a run's result.json; of another file than the last epoch's, the score that it has."""
    kept = {key: value for key, value in training.items() if key not in APART}
    kept["epochs"] = training["recipe"].get("epochs")
    if file == artefacts.MODEL:
        return kept
    names, best = ["epoch", *(score.name for score in task.scores)], training.get("best") or {}
    return {**{k: v for k, v in kept.items() if k not in names}, **{k: v for k, v in best.items() if k in names}}


def tested_size(model, name, training=None):
    """(height, width) in pixels of the images that a model is tested on: its own, a run's, the variant's, or 224."""
    if None not in image_input(model).shape[1:3]:
        return tuple(image_input(model).shape[1:3])
    if training:
        return tuple(training["preprocess"]["image_size"])
    try:
        return look_up(name).variant.image_size
    except SwinsError:
        return (224, 224)
