"""What a training run tells of its models: result.json beside model.keras, until then facts.json."""

import json
import pathlib

from swins.errors import SwinsError

FIRST = "classification"  # the kind of what was recorded before there were others


def model_file(path):
    """The .keras file of a training run's folder, or the path itself, as for an artefact, made of a run or not."""
    path = pathlib.Path(path)
    a_run = path.suffix != ".keras" and training_of(path) and not (path / "certificate.json").is_file()
    return path / "model.keras" if a_run else path


def training_of(path):
    """The result.json of a training run, by its folder or its .keras file; None if it is none."""
    return stated(path, "result.json")


def unfinished_of(path):
    """The facts.json of a training run that has not ended, by its best.keras; None if it is none."""
    path = pathlib.Path(path)
    return stated(path, "facts.json") if path.suffix == ".keras" and not training_of(path) else None


def stated(path, name):
    """What a file of that name beside a model says of the run that made it; None if there is no such."""
    path = pathlib.Path(path)
    file = path.with_name(name) if path.suffix == ".keras" else path / name
    try:
        result = json.loads(file.read_text())
        whole = bool(result["recipe"]["model.name"])
        if result.get("task", FIRST) == FIRST:
            whole = whole and {"image_size", "crop", "mean", "std"} <= result["preprocess"].keys()
        model = path if path.suffix == ".keras" else path / "model.keras"
        return result if whole and model.is_file() else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # it is no training run's


def require_finished(path):
    """Raise SwinsError if a folder is of a training run that has not ended, with what goes on with it."""
    record = pathlib.Path(path) / "recipe.json"
    if training_of(path) or not record.is_file():
        return
    try:
        settings = json.loads(record.read_text())
        epochs, name = settings["epochs"], settings["model.name"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # it is no training run's
    log = record.with_name("log.csv")
    done = max(len(log.read_text().splitlines()) - 1, 0) if log.is_file() else 0
    raise SwinsError(
        f"{path}: an unfinished run of `swins train` ({name}, {done} of {epochs} epochs), which has no model yet; the "
        f"command that began it goes on: swins train RECIPE --data DATA -o {path}"
    )
