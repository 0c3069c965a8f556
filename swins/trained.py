"""What a training run tells of the model that it wrote: result.json beside model.keras."""

import json
import pathlib


def model_file(path):
    """The .keras file of a training run's folder, or the path itself, as for an artefact, made of a run or not."""
    path = pathlib.Path(path)
    return path / "model.keras" if training_of(path) and not (path / "certificate.json").is_file() else path


def training_of(path):
    """The result.json of a training run, by its folder or its .keras file; None if it is none."""
    path = pathlib.Path(path)
    file = path.with_name("result.json") if path.suffix == ".keras" else path / "result.json"
    try:
        told = json.loads(file.read_text())
        whole = {"image_size", "crop", "mean", "std"} <= told["preprocess"].keys() and told["recipe"]["model.name"]
        model = path if path.suffix == ".keras" else path / "model.keras"
        return told if whole and model.is_file() else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # it is no training run's
