"""Detectors by their rows: fresh, with a detector's weights, or with a backbone's."""

import os
import warnings
from dataclasses import asdict, fields, replace

import numpy as np

from swins import bias_tables, build, changes
from swins.backbone import backbone
from swins.detection.mask_rcnn import CascadeMaskRCNN, MaskRCNN
from swins.detection.ssd import SSD
from swins.detector_checkpoints import CLASS_LAYERS, assign, by_path, layer_of, require_kind
from swins.detector_configs import DETECTORS, RCNNVariant, SSDVariant
from swins.errors import SwinsError, unknown_name
from swins.model_configs import VARIANTS
from swins.run_result import model_file, require_finished
from swins.weights import artefacts, checkpoint_files, load
from swins.weights.conversion_table import Rule, Table, fill, first_lines
from swins.weights.rcnn_rules import PYRAMID

HEADS = ("boxes_", "scores_")  # what names of an SSD's heads begin with
DECIDED = ("backbone", "merged", "norms", "cascade", "options")  # what a row's name stands for
MODEL_OPTIONS = ("dtype", "frozen")  # of the whole detector


def network_class(row: SSDVariant | RCNNVariant) -> type:
    """The class of a row's detectors."""
    if isinstance(row, SSDVariant):
        return SSD
    return CascadeMaskRCNN if row.cascade else MaskRCNN


def make(row, overrides: dict, name: str, weights=None, weights_key=None, network=None):
    """The network of a row: fresh, or with a backbone's weights.

    Args:
        row: its numbers, those of an SSDVariant, RCNNVariant or another network's.
        overrides: {option: value}, None leaves the row's; what is neither of the row nor of the network is the
            backbone's.
        name: of the Keras model.
        weights, weights_key: of the backbone, as `swins.backbone` takes them.
        network: its class; a detector's by default.
    """
    given = {option: value for option, value in overrides.items() if value is not None}
    known = [part.name for part in fields(row) if part.name not in DECIDED]
    for option in DECIDED:
        if option in given:
            raise unknown_name(f"option of a {'segmenter' if network else 'detector'}", option, known)
    row = replace(row, **{option: given.pop(option) for option in known if option in given})
    options = {option: given.pop(option) for option in MODEL_OPTIONS if option in given}
    of_backbone = {**row.options, **given, "image_size": row.image_size, "in_chans": row.in_chans}
    maps = {option: getattr(row, option) for option in ("merged", "norms") if hasattr(row, option)}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* has no norms of ")  # a classifier's file: they are to be trained
        pyramid = backbone(
            row.backbone,
            weights=weights,
            weights_key=weights_key,
            name=PYRAMID,
            dtype=options.get("dtype"),
            **maps,
            **of_backbone,
        )
    return (network or network_class(row))(pyramid, name=name, **row.numbers, **options)


def arrays_of(detector) -> dict:
    """{path: array} of a detector's weights, adapters merged, whatever its backbone is called."""
    return by_path(detector, changes.values(detector))


def of_classes(path: str) -> bool:
    """Whether a variable is of a layer whose shape the number of classes decides, or an SSD's boxes a cell."""
    return path.startswith(HEADS) or layer_of(path) in CLASS_LAYERS


def load_detector(detector, source, where) -> list:
    """Give a detector another one's weights -> names of the heads that stay fresh, for they have other shapes there.

    Raises:
        SwinsError: any other difference; all are listed, and nothing is changed.
    """
    changes.floats(source, "weights=")
    arrays, variables = arrays_of(source), changes.variables(detector)
    fresh = [
        path
        for path, variable in variables.items()
        if of_classes(path) and path in arrays and arrays[path].shape != tuple(variable.shape)
    ]
    layers = list(dict.fromkeys(path.rpartition("/")[0] for path in fresh))
    rest = {path: variable for path, variable in variables.items() if path.rpartition("/")[0] not in layers}
    state = {path: value for path, value in arrays.items() if path.rpartition("/")[0] not in layers}
    try:
        fill(rest, state, Table(tuple(Rule(path, path) for path in rest)), detector.name, str(where))
    except SwinsError as error:
        other = f"{where} holds {source.name}; name that variant\n" if source.name in DETECTORS else ""
        raise SwinsError(f"{other if source.name != detector.name else ''}{error}") from error
    return layers


def in_chans_of(source) -> int:
    """Channels of the images that a dense network takes."""
    return source.backbone.input.shape[-1]


def offsets_of(model) -> list:
    """V2's coordinates of a dense network's blocks, which its computed position bias divides by its windows."""
    blocks = (getattr(layer, "attn", None) for layer in model.backbone.layers)
    return [np.asarray(attention.coordinates) for attention in blocks if hasattr(attention, "coordinates")]


def with_backbone(model, source, where):
    """Give a dense network the backbone of one of another kind, and warn that the rest is fresh -> the network.

    V1's bias tables are interpolated where windows differ.

    Raises:
        SwinsError: a backbone of another variant; the first differences are listed, and nothing is changed.
    """
    changes.floats(source, "weights=")
    begin = f"{PYRAMID}/"
    state = {path: value for path, value in arrays_of(source).items() if path.startswith(begin)}
    variables = by_path(model, changes.variables(model))
    trunk = {path: variable for path, variable in variables.items() if path.startswith(begin)}
    if not all(map(np.array_equal, offsets_of(model), offsets_of(source))):
        raise SwinsError(
            f"{model.name}: V2 weights go with the windows they were trained with; {where} has others, stage by stage; "
            "pass its pretrained_windows"
        )
    norms = {path for path in trunk.keys() ^ state.keys() if path.removeprefix(begin).startswith("norm")}  # of maps
    trunk = {path: variable for path, variable in trunk.items() if path not in norms}
    state = {path: value for path, value in state.items() if path not in norms}
    for path in trunk.keys() & state.keys():
        if path.endswith("relative_position_bias_table"):  # V1's are interpolated for other windows, as timm's are
            old, new = (m.backbone.get_layer(path.split("/")[1]).window_size for m in (source, model))
            state[path] = bias_tables.resize_table(state[path], old, new)
    try:
        fill(trunk, state, Table(tuple(Rule(path, path) for path in trunk)), model.name, str(where))
    except SwinsError as error:
        raise SwinsError(first_lines(error, f": name a variant on {source.name}'s backbone")) from error
    warnings.warn(
        f"{where} holds a {type(source).__name__}, {source.name}: its backbone was taken, the rest of {model.name} is "
        "fresh; train it",
        stacklevel=5,
    )
    return model


def create_detector(variant: str, *, weights=None, weights_key=None, name=None, **overrides) -> SSD | MaskRCNN:
    """A detector by the name of its variant, as `swins.create` describes it."""
    row, name = DETECTORS[variant], build.model_name(name) or variant
    if not isinstance(weights, str | os.PathLike) or weights == "pretrained":
        return make(row, overrides, name, weights, weights_key)
    if not load.is_keras(weights):
        return of_checkpoint(variant, weights, weights_key, name, overrides)
    require_finished(weights)
    source = artefacts.read_model(model_file(weights))
    if not hasattr(source, "backbone"):
        return make(row, overrides, name, weights, weights_key)
    if weights_key is not None:
        raise SwinsError(f"{weights} holds one model, so there is no {weights_key!r} to choose")
    asked = {option: value for option, value in overrides.items() if value is not None}
    if type(source) is not network_class(row):
        if isinstance(source, MaskRCNN) and issubclass(network_class(row), MaskRCNN):  # more of it than that would fit
            raise SwinsError(
                f"weights must be of the variant's kind of detector; {variant} is a {network_class(row).__name__}, "
                f"{weights} holds a {type(source).__name__}, {source.name}; name that variant, or pass another file"
            )
        return with_backbone(make(row, {"in_chans": in_chans_of(source), **asked}, name), source, weights)
    detector = make(row, {**stated_by(source), **asked}, name)
    if fresh := load_detector(detector, source, weights):
        warn_of(fresh, source, detector, weights)
    return detector


def of_checkpoint(variant: str, weights, weights_key, name: str, overrides: dict) -> SSD | MaskRCNN:
    """A detector with the weights of a PyTorch checkpoint: all of a detector's, or its backbone alone of another's."""
    row = DETECTORS[variant]
    checkpoint = None if isinstance(row, SSDVariant) else checkpoint_files.read(weights, weights_key)
    if checkpoint is None or not checkpoint.inside:
        return make(row, overrides, name, weights, weights_key)
    if checkpoint.others and weights_key is None:
        warnings.warn(f"{weights}: {checkpoint.choice}", stacklevel=4)
    detector, fresh = with_checkpoint(variant, checkpoint, overrides, name)
    if fresh:
        classes = checkpoint.network.identify(checkpoint).num_classes
        warnings.warn(
            f"{weights} has {classes} classes, the model {detector.numbers.num_classes}: fresh are {', '.join(fresh)}; "
            "train them, or ask for the file's num_classes",
            stacklevel=4,
        )
    return detector


def with_checkpoint(variant: str, checkpoint, overrides: dict, name=None) -> tuple:
    """A Mask R-CNN of a variant with a detector's Checkpoint -> (model, names of layers that stay fresh).

    Classes, channels and whether there are masks are the file's, where others are not asked for.

    Raises:
        SwinsError: a checkpoint of another kind, or any other difference; all are listed.
    """
    row = DETECTORS[variant]
    identity = require_kind(variant, row, checkpoint)
    asked = {option: value for option, value in overrides.items() if value is not None}
    stated = {"num_classes": identity.num_classes, "in_chans": identity.in_chans}
    if identity.mask_classes is None:
        stated["masks"] = False
    detector = make(row, {**stated, **asked}, name or variant)
    inside = replace(VARIANTS[row.backbone], in_chans=detector.in_chans)
    return detector, assign(detector, checkpoint, load.adapt(checkpoint.state, inside, False))


def stated_by(source) -> dict:
    """{option: value} of a detector that hold where others are not asked for."""
    if isinstance(source, SSD):
        return {
            "num_classes": source.numbers.num_classes,
            "preset": source.numbers.preset,
            "image_size": source.image_size,
            "in_chans": source.inputs[0].shape[-1],
        }
    return {**asdict(source.numbers), "in_chans": source.in_chans}


def warn_of(fresh: list, source, detector, where) -> None:
    """Say which heads stay fresh where a detector takes another's weights."""
    own = " and preset" if isinstance(detector, SSD) else ""
    warnings.warn(
        f"{where}: heads of other shapes are fresh: {', '.join(fresh)}; train them, or ask for the file's num_classes"
        f"{own}",
        stacklevel=4,
    )
