"""Detectors by their rows: fresh, with a detector's weights, or with a backbone's."""

import os
import warnings
from dataclasses import fields, replace

from swins import build, changes
from swins.backbone import backbone
from swins.detection.ssd import SSD
from swins.detector_configs import DETECTORS, SSDVariant
from swins.errors import SwinsError, unknown_name
from swins.run_result import model_file, require_finished
from swins.weights import artefacts, load
from swins.weights.conversion_table import Rule, Table, fill

PYRAMID = "pyramid"  # what the backbone in a detector is called
HEADS = ("boxes_", "scores_")  # what names of heads begin with
DECIDED = ("backbone", "merged", "options")  # what a row's name stands for
MODEL_OPTIONS = ("dtype", "frozen")  # of the whole detector


def make(row: SSDVariant, overrides: dict, name: str, weights=None, weights_key=None) -> SSD:
    """The SSD of a row: fresh, or with a backbone's weights.

    Args:
        row: its numbers.
        overrides: {option: value}, None leaves the row's; what is neither of the row nor of an SSD is the backbone's.
        name: of the Keras model.
        weights, weights_key: of the backbone, as `swins.backbone` takes them.
    """
    given = {option: value for option, value in overrides.items() if value is not None}
    known = [part.name for part in fields(row) if part.name not in DECIDED]
    for option in (*DECIDED, "norms"):
        if option in given:
            raise unknown_name("option of a detector", option, known)
    row = replace(row, **{option: given.pop(option) for option in known if option in given})
    options = {option: given.pop(option) for option in MODEL_OPTIONS if option in given}
    of_backbone = {**row.options, **given, "image_size": row.image_size, "in_chans": row.in_chans}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* has no norms of ")  # a classifier's file: they are to be trained
        pyramid = backbone(
            row.backbone,
            weights=weights,
            weights_key=weights_key,
            merged=row.merged,
            name=PYRAMID,
            dtype=options.get("dtype"),
            **of_backbone,
        )
    return SSD(pyramid, name=name, **row.numbers, **options)


def arrays_of(detector: SSD) -> dict:
    """{path: array} of a detector's weights, adapters merged, whatever its backbone is called."""
    begin = f"{detector.backbone.name}/"
    return {
        f"{PYRAMID}/{path.removeprefix(begin)}" if path.startswith(begin) else path: value
        for path, value in changes.values(detector).items()
    }


def load_detector(detector: SSD, source: SSD, where) -> list:
    """Give a detector another one's weights -> names of the heads that stay fresh, for they have other shapes there.

    Raises:
        SwinsError: any other difference; all are listed, and nothing is changed.
    """
    changes.floats(source, "weights=")
    arrays, variables = arrays_of(source), changes.variables(detector)
    fresh = [
        path
        for path, variable in variables.items()
        if path.startswith(HEADS) and path in arrays and arrays[path].shape != tuple(variable.shape)
    ]
    layers = list(dict.fromkeys(path.partition("/")[0] for path in fresh))
    rest = {path: variable for path, variable in variables.items() if path.partition("/")[0] not in layers}
    state = {path: value for path, value in arrays.items() if path.partition("/")[0] not in layers}
    try:
        fill(rest, state, Table(tuple(Rule(path, path) for path in rest)), detector.name, str(where))
    except SwinsError as error:
        other = f"{where} holds {source.name}; name that variant\n" if source.name in DETECTORS else ""
        raise SwinsError(f"{other if source.name != detector.name else ''}{error}") from error
    return layers


def create_detector(variant: str, *, weights=None, weights_key=None, name=None, **overrides) -> SSD:
    """A detector by the name of its variant, as `swins.create` describes it."""
    row, name = DETECTORS[variant], build.model_name(name) or variant
    if not (isinstance(weights, str | os.PathLike) and load.is_keras(weights)):
        return make(row, overrides, name, weights, weights_key)
    require_finished(weights)
    source = artefacts.read_model(model_file(weights))
    if not isinstance(source, SSD):
        return make(row, overrides, name, weights, weights_key)
    if weights_key is not None:
        raise SwinsError(f"{weights} holds one model, so there is no {weights_key!r} to choose")
    stated = {
        "num_classes": source.numbers.num_classes,
        "preset": source.numbers.preset,
        "image_size": source.image_size,
        "in_chans": source.inputs[0].shape[-1],
    }
    asked = {option: value for option, value in overrides.items() if value is not None}
    detector = make(row, {**stated, **asked}, name)
    if fresh := load_detector(detector, source, weights):
        warnings.warn(
            f"{weights}: heads of other shapes are fresh: {', '.join(fresh)}; train them, or ask for the file's "
            "num_classes and preset",
            stacklevel=3,
        )
    return detector
