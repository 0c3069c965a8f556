"""Exported models (ONNX, LiteRT, OpenVINO, SavedModels) given where weights are wanted: they are named and refused."""

import pathlib

from swins.errors import SwinsError

SAVED_MODEL = "SavedModel"
ENDINGS = {".onnx": "ONNX", ".tflite": "LiteRT", ".xml": "OpenVINO", ".pb": SAVED_MODEL, ".tar.gz": SAVED_MODEL}
ROOT = "saved_model.pb"  # what makes a folder a SavedModel


def kind_of(path) -> str:
    """What an exported model's file or folder is of, in words; "" for another. PyTorch's .bin has no .xml beside it."""
    path = pathlib.Path(path)
    if path.is_dir():
        return SAVED_MODEL if (path / ROOT).is_file() else ""
    if path.suffix == ".bin" and path.with_suffix(".xml").is_file():
        path = path.with_suffix(".xml")
    return next((kind for ending, kind in ENDINGS.items() if path.name.lower().endswith(ending)), "")


def refuse(path) -> None:
    """Raise SwinsError if a path is of an exported model, with what runs it and what to give in its place."""
    path, kind = pathlib.Path(path), kind_of(path)
    if not kind:
        return
    whole = next((folder for folder in path.parents[:2] if (folder / "certificate.json").is_file()), None)
    timed = f"`swins benchmark {whole}` times it" if whole else "`swins benchmark` times those of an artefact"
    runs = f"its own runtime runs it, as docs/runtimes.md says, and {timed}"
    if kind == SAVED_MODEL:
        runs = f"`swins predict -m {path.parent if path.name == ROOT else path}` runs it"
    source = f"artefact that it is of: {whole}" if whole else "artefact, .keras file or checkpoint that it was made of"
    raise SwinsError(f"{path}: is an exported model ({kind}), of which no weights are read: {runs}; give the {source}")
