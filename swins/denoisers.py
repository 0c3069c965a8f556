"""Networks of diffusion by their rows: fresh, with a SwinUNet's weights, or with a Swin's in the encoder."""

import os
import warnings
from dataclasses import asdict, fields, replace

from swins import build, changes
from swins.backbone import open_file
from swins.denoiser_configs import DENOISERS
from swins.diffusion.swin_unet import SwinUNet
from swins.errors import SwinsError, unknown_name
from swins.run_result import model_file, require_finished
from swins.swin_unet_numbers import SwinUNetVariant
from swins.weights import artefacts, load
from swins.weights.conversion_table import Rule, Table, fill, first_lines

MODEL_OPTIONS = ("dtype", "frozen", "remat", "query_chunk")  # of the whole network
OF_CLASSES = ("class_embedding/embeddings", "class_maps/embedding/embeddings")  # a row a class
SHOWN = 8  # lines of what differs
STEM = "patch_embed/proj/kernel"


def make(row: SwinUNetVariant, overrides: dict, name: str) -> SwinUNet:
    """The network of a row with fresh weights; overrides {option: value}, None leaves the row's."""
    given = {option: value for option, value in overrides.items() if value is not None}
    known = [field.name for field in fields(row)]
    for option in given:
        if option not in (*known, *MODEL_OPTIONS):
            raise unknown_name("option of a SwinUNet", option, [*known, *MODEL_OPTIONS])
    options = {option: given.pop(option) for option in MODEL_OPTIONS if option in given}
    return SwinUNet(**asdict(replace(row, **given)), **options, name=name)


def create_denoiser(variant: str, *, weights=None, weights_key=None, name=None, **overrides) -> SwinUNet:
    """A network of diffusion by the name of its variant, as `swins.create` describes it."""
    row, name = DENOISERS[variant], build.model_name(name) or variant
    if weights is None:
        if weights_key is not None:
            raise SwinsError("weights_key chooses among the weights of a file; pass weights=FILE with it")
        return make(row, overrides, name)
    if not isinstance(weights, str | os.PathLike) or weights == "pretrained":
        raise SwinsError(
            f"nothing is published for {variant}; weights must be a path: of a SwinUNet's run or .keras file, or of a "
            f"Swin's weights, which its encoder takes; got {weights!r}"
        )
    source = None
    if load.is_keras(weights):
        require_finished(weights)
        source = artefacts.read_model(model_file(weights))
    if not isinstance(source, SwinUNet):
        return with_encoder(make(row, overrides, name), weights, weights_key)
    if weights_key is not None:
        raise SwinsError(f"{weights} holds one model, so there is no {weights_key!r} to choose")
    stated = {option: getattr(source.numbers, option) for option in ("num_classes", "null_class", "in_chans")}
    asked = {option: value for option, value in overrides.items() if value is not None}
    model = make(row, {**stated, "image_size": source.image_size, **asked}, name)
    if fresh := load_denoiser(model, source, weights):
        warnings.warn(
            f"{weights} has {source.numbers.num_classes} classes, the model {model.numbers.num_classes}: fresh are "
            f"{', '.join(fresh)}; train them, or ask for the file's num_classes",
            stacklevel=3,
        )
    return model


def load_denoiser(model: SwinUNet, source: SwinUNet, where) -> list:
    """Give a SwinUNet another one's weights -> layers that stay fresh, for there they are of other classes.

    Raises:
        SwinsError: any other difference; nothing is changed.
    """
    changes.floats(source, "weights=")
    arrays, variables = changes.values(source), changes.variables(model)
    fresh = [
        path
        for path in OF_CLASSES
        if path in variables and path in arrays and arrays[path].shape != tuple(variables[path].shape)
    ]
    fill_from(model, {path: v for path, v in variables.items() if path not in fresh}, arrays, where)
    return [path.rpartition("/")[0] for path in fresh]


def fill_from(model: SwinUNet, variables: dict, arrays: dict, where) -> None:
    """Give variables {path: variable} the arrays of the same paths.

    Raises:
        SwinsError: any difference, and the first few of them; nothing is changed.
    """
    state = {path: value for path, value in arrays.items() if path in variables or path not in OF_CLASSES}
    try:
        fill(variables, state, Table(tuple(Rule(path, path) for path in variables)), model.name, str(where))
    except SwinsError as error:
        raise SwinsError(first_lines(error, ": name the variant that the file is of", SHOWN)) from error


def with_encoder(model: SwinUNet, source, weights_key=None) -> SwinUNet:
    """Give a SwinUNet's encoder the weights of a Swin: a file, a run or an artefact, of the same numbers.

    Channels that say the class beside the image, and what adaptive norms have, stay fresh.

    Raises:
        SwinsError: a Swin of other blocks, channels or windows.
    """
    if model.numbers.merging != "swin":
        raise SwinsError(
            f'{model.name} merges patches as its reference does, which no Swin\'s weights fit; pass merging="swin" '
            "with weights of a Swin"
        )
    image = model.numbers.in_chans
    swin, _ = open_file(source, weights_key, {"in_chans": image, "num_classes": 0, "image_size": model.image_size})
    begin = ("patch_embed/", "stages_")
    arrays = {path: value for path, value in changes.values(swin).items() if path.startswith(begin)}
    encoder = {
        path: variable
        for path, variable in changes.variables(model).items()
        if path.startswith(begin) and "/modulation/" not in path and not path.split("/")[0].endswith("_time")
    }
    stem = encoder[STEM]
    if arrays[STEM].shape[:2] + arrays[STEM].shape[3:] == tuple(stem.shape[:2]) + tuple(stem.shape[3:]):
        kernel = changes.values(model)[STEM]
        kernel[:, :, :image] = arrays[STEM]
        arrays[STEM] = kernel
    fill_from(model, encoder, arrays, source)
    return model
