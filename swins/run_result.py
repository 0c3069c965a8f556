"""What files tell of models without their weights: a training run's result.json, until then facts.json, and others."""

import json
import pathlib
import zipfile

from swins.errors import SwinsError

FACTS = "assets.extra/swins.json"  # what a SavedModel of ours says of itself
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


def when_scored(training: dict) -> str:
    """When in its training a run had the scores that a certificate keeps of it: at the end, or after which epoch."""
    epoch, epochs = training.get("epoch"), training.get("epochs")
    if not (epoch and epochs) or epoch >= epochs:
        return "At the end of its training"
    return f"After epoch {epoch} of {epochs} of its training, whose weights it has"


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
        f"{path}: an unfinished run of `swins train` ({name}, {done} of {epochs} epochs), which has no model yet; it "
        f"may be at work; else the same command, begun again, goes on: swins train RECIPE --data DATA -o {path}"
    )


def saved_facts(folder) -> dict:
    """What a SavedModel of ours says of itself: "task", "preparation", "facts"; {} for another."""
    file = pathlib.Path(folder, FACTS)
    try:
        return dict(json.loads(file.read_text())) if file.is_file() else {}
    except (OSError, ValueError, TypeError) as error:
        raise SwinsError(f"{file}: not what swins writes ({error}); export again") from error


def kept_facts(path) -> dict:
    """What an artefact or a .keras file says of the Swin in it: "name", "image_size", "in_chans", "num_classes",
    "preparation", "class_names".

    The name is its weights', of an artefact's certificate before what the model itself remembers; {} for other paths.
    """
    path = pathlib.Path(path)
    path = path / "model.keras" if path.is_dir() else path
    certificate = path.with_name("certificate.json")
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))["config"]
        facts = {"name": config["name"], "image_size": tuple(config["image_size"]), "in_chans": config["in_chans"]}
        facts["num_classes"] = config["num_classes"]
        facts |= config.get("origin") or {}
        certified = path.name == "model.keras" and certificate.is_file()
        told = json.loads(certificate.read_text()) if certified else {}
        return facts | {key: told[key] for key in ("name", "preparation", "class_names") if told.get(key)}
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return {}  # no Swin's
