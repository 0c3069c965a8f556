"""Segmenters by their rows: fresh, with a segmenter's weights, or with a backbone's."""

import os
import warnings
from dataclasses import replace

from swins import build, changes
from swins.detector_checkpoints import by_path, fill_but
from swins.detectors import in_chans_of, load_detector, make, with_backbone
from swins.errors import SwinsError
from swins.model_configs import VARIANTS
from swins.run_result import model_file, require_finished
from swins.segmentation.upernet import UPerNet
from swins.segmenter_configs import SEGMENTERS
from swins.weights import artefacts, checkpoint_files, load, upernet_rules
from swins.weights.networks import UPERNET

OF_FILES = ("size_rule", "window_size", "pretrained_windows", "mlp_ratio")  # numbers of a Swin that a file may state
CLASSIFIERS = ("conv_seg", "auxiliary_conv_seg")
AUXILIARY = ("auxiliary_convs_0/conv", "auxiliary_convs_0/bn", "auxiliary_conv_seg")  # layers of the auxiliary head


def create_segmenter(variant: str, *, weights=None, weights_key=None, name=None, **overrides) -> UPerNet:
    """A segmenter by the name of its variant, as `swins.create` describes it."""
    row, name = SEGMENTERS[variant], build.model_name(name) or variant
    if not isinstance(weights, str | os.PathLike) or weights == "pretrained":
        return make(row, overrides, name, weights, weights_key, UPerNet)
    if load.is_keras(weights):
        require_finished(weights)
        source = artefacts.read_model(model_file(weights))
        if not hasattr(source, "backbone"):
            return make(row, overrides, name, weights, weights_key, UPerNet)
        if weights_key is not None:
            raise SwinsError(f"{weights} holds one model, so there is no {weights_key!r} to choose")
        asked = {option: value for option, value in overrides.items() if value is not None}
        if not isinstance(source, UPerNet):
            fresh = make(row, {"in_chans": in_chans_of(source), **asked}, name, network=UPerNet)
            return with_backbone(fresh, source, weights)
        segmenter = make(row, {**stated_by(source), **asked}, name, network=UPerNet)
        fresh, classes = load_detector(segmenter, source, weights), source.numbers.num_classes
    else:
        checkpoint = checkpoint_files.read(weights, weights_key)
        if checkpoint.network is not UPERNET:
            return make(row, overrides, name, weights, weights_key, UPerNet)
        if checkpoint.others and weights_key is None:
            warnings.warn(f"{weights}: {checkpoint.choice}", stacklevel=3)
        segmenter, fresh = with_checkpoint(variant, checkpoint, overrides, name)
        classes = UPERNET.identify(checkpoint).num_classes
    if fresh:
        warnings.warn(
            f"{weights} has {classes} classes, the model {segmenter.numbers.num_classes}: fresh are "
            f"{', '.join(fresh)}; train them, or ask for what the file has",
            stacklevel=3,
        )
    return segmenter


def stated_by(source: UPerNet) -> dict:
    """{option: value} of a segmenter that hold where others are not asked for."""
    numbers = {option: getattr(source.numbers, option) for option in ("num_classes", "width", "bins", "auxiliary")}
    return {**numbers, "in_chans": source.in_chans, "image_size": source.image_size}


def with_checkpoint(variant: str, checkpoint, overrides: dict, name=None) -> tuple:
    """A UPerNet of a variant with a segmenter's Checkpoint -> (model, names of layers that stay fresh).

    Classes, channels, whether there is an auxiliary head, and the Swin's way with sizes are the file's, where others
    are not asked for.

    Raises:
        SwinsError: a checkpoint of another kind, or any other difference; all are listed.
    """
    if checkpoint.network is not UPERNET:
        raise SwinsError(
            f"{checkpoint.path} holds no segmenter, which {variant} is; make one of its backbone's weights with "
            f"swins.create({variant!r}, weights=FILE), and train it"
        )
    identity, row = UPERNET.identify(checkpoint), SEGMENTERS[variant]
    asked = {option: value for option, value in overrides.items() if value is not None}
    numbers = checkpoint.facts.numbers
    stated = {"num_classes": identity.num_classes, "in_chans": identity.in_chans, "auxiliary": identity.auxiliary or 0}
    stated |= {option: numbers[option] for option in (*OF_FILES, "bins") if option in numbers}
    segmenter = make(row, {**stated, **asked}, name or variant, network=UPerNet)
    inside = replace(VARIANTS[row.backbone], in_chans=segmenter.in_chans)
    return segmenter, assign(segmenter, checkpoint, load.adapt(checkpoint.state, inside, False))


def assign(segmenter: UPerNet, checkpoint, state: dict) -> list:
    """Give a segmenter the weights of a Checkpoint, strictly -> layers that stay fresh.

    Those are classifiers of other classes, and an auxiliary head that the file has not; one that the model has not is
    left out.

    Raises:
        SwinsError: every other difference; all are listed, and nothing is changed.
    """
    identity, numbers = UPERNET.identify(checkpoint), segmenter.numbers
    variables = by_path(segmenter, changes.variables(segmenter))
    layers = dict.fromkeys(path.rpartition("/")[0] for path in variables)
    fresh = [layer for layer in layers if layer in AUXILIARY] if identity.auxiliary is None else []
    if identity.num_classes != numbers.num_classes:
        fresh += [layer for layer in layers if layer in CLASSIFIERS and layer not in fresh]
    if not numbers.auxiliary:
        state = {k: v for k, v in state.items() if not k.startswith(upernet_rules.AUXILIARY)}
    fill_but(fresh, segmenter, checkpoint, state, upernet_rules.table_of)
    return fresh
