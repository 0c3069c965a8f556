"""Models with weights: what `create`, pyramids and the converter share."""

import contextlib
import math
import os
import pathlib
import warnings
from dataclasses import fields

import numpy as np

from swins import build
from swins.errors import SwinsError
from swins.fresh_weights import weights_follow
from swins.models import SwinTransformer
from swins.plans import VariantV2, kept_native_size, remembering, with_overrides
from swins.renamed import renamed
from swins.run_result import model_file, training_of
from swins.tags import look_up, variant_name
from swins.weights import artefacts, checkpoint_files, facts, identify, networks, pretrained, swin_rules
from swins.weights.dialects import ELSEWHERE
from swins.weights.networks import network_of


def adapt(state, variant, head_is_new):
    """Fit published weights to other inputs and classes, as timm does.

    Args:
        state: {torch name: array}.
        variant: the variant to fit.
        head_is_new: whether the classifier is left out, to be trained.
    """
    network = network_of(variant)
    kernel = state.get(network.stem)
    if kernel is not None and kernel.ndim == 4 and kernel.shape[1] == 3 != variant.in_chans:
        if variant.in_chans == 1:
            kernel = kernel.sum(axis=1, keepdims=True)
        else:
            repeats = math.ceil(variant.in_chans / 3)
            kernel = np.tile(kernel, (1, repeats, 1, 1))[:, : variant.in_chans] * np.float32(3 / variant.in_chans)
        state = {**state, network.stem: kernel}
    return {k: v for k, v in state.items() if not (head_is_new and k.startswith(f"{network.head.partition('.')[0]}."))}


OFFSETS = ("relative_coords_table", "relative_position_index", "attn_mask")  # buffers that tell V2's windows


def open_weights(weights, key=None, source=None, stacklevel=2):
    """The Checkpoint of weights as `create` takes them. Warnings say what was chosen, and what lies beside the Swin.

    Args:
        weights: "pretrained", or a path.
        key: which weights, where a file holds several.
        source: the variant's name whose published weights "pretrained" means.
        stacklevel: how far up the caller is whom warnings name.
    """
    if key is not None and weights in (None, "pretrained"):
        raise SwinsError("weights_key chooses among the weights of a file; pass weights=FILE with it")
    if weights == "pretrained":
        if not isinstance(source, str):
            raise SwinsError('weights="pretrained" are of a variant by name; pass its name, or a file\'s path')
        checkpoint = checkpoint_files.read(pretrained.fetch(source))
    elif isinstance(weights, str | os.PathLike):
        checkpoint = read(weights, key)
        if checkpoint.others and key is None:
            warnings.warn(f"{weights}: {checkpoint.choice}", stacklevel=stacklevel)
    else:
        raise SwinsError(f'weights must be None, "pretrained" or a path; got {weights!r}')
    checkpoint = checkpoint.backbone()
    outside = (name.removeprefix(ELSEWHERE) for name in checkpoint.left_out if name.startswith(ELSEWHERE))
    beside = {name.removeprefix("model.").partition(".")[0] for name in outside}
    if checkpoint.program == "timm":  # whose files have nothing beside a Swin
        beside |= {name.partition(".")[0] for name in checkpoint.left_out if name.startswith(swin_rules.BESIDE)}
    if beside := sorted(beside):
        warnings.warn(f"{weights}: only its Swin was taken; left out {', '.join(beside)}", stacklevel=stacklevel)
    return checkpoint


def with_weights(source, checkpoint, overrides, name=None):
    """A model of a variant, by name or numbers, with a Checkpoint's weights; overrides as `create` takes them."""
    if name is None and isinstance(source, str):
        name = look_up(source).architecture
    options = {option: overrides.get(option) for option in build.OPTIONS}
    num_classes = overrides.get("num_classes")  # others than the file's get a fresh head
    with weights_follow() if num_classes is None else contextlib.nullcontext():
        model = build.make(variant_for(source, checkpoint, overrides), options, name)
    load_weights(model, checkpoint, num_classes)
    remember(model, source, checkpoint)
    return model


def remember(model, source, checkpoint):
    """Let a Swin remember what its weights are, of a variant's name and their Checkpoint."""
    if isinstance(source, str) and isinstance(model, SwinTransformer):
        model.origin = facts.origin(source, checkpoint.facts, model.variant.num_classes)


def variant_for(source, checkpoint, overrides):
    """The numbers of a model with a Checkpoint's weights.

    What the file says of its model holds over what the name says, but for channels, blocks and heads, which are what a
    name is; what is asked for holds over both. A tagged name fixes the classes, an untagged one takes classes and
    channels from the file. A Variant asks for its size and channels, and takes the rest as an untagged name does. V2
    with other windows than its weights know records theirs as pretrained_windows. A ResNet without its last stages has
    no classifier, unless one is asked for or the file's is of its channels.

    Args:
        source: "architecture" or "architecture.tag", or a Variant or VariantResNet.
        checkpoint: a Checkpoint.
        overrides: options that are asked for; None leaves one as it is.

    Raises:
        SwinsError: weights of another kind of network.
    """
    asked = {k: v for k, v in renamed(overrides).items() if k not in build.OPTIONS}
    if isinstance(source, str):
        native, tagged = look_up(source).variant, "." in source
    else:
        native, tagged = source, False
        asked = {name: getattr(source, name) for name in source.ASKED} | {
            k: v for k, v in asked.items() if v is not None
        }
    refuse_other_network(source, native, checkpoint)
    known = {f.name for f in fields(native)} - {*facts.TRAINING, *native.NAMED, "num_classes", "in_chans"}
    stated = {k: v for k, v in checkpoint.facts.numbers.items() if k in known}
    if not tagged:
        stated |= {"num_classes": checkpoint.num_classes, "in_chans": checkpoint.in_chans}
    trained = with_overrides(native, stated)
    variant = with_overrides(trained, {**asked, **kept_native_size(trained, asked)})
    states_windows = "window_size" in stated or any(name.endswith(OFFSETS[0]) for name in checkpoint.left_out)
    remembers = asked.get("window_size") or states_windows  # else, as timm, those of the new size are taken for them
    if isinstance(variant, VariantV2) and remembers and not asked.get("pretrained_windows"):
        variant = remembering(variant, trained)
    if variant.cut and asked.get("num_classes") is None and not keeps_head(checkpoint, variant):
        variant = with_overrides(variant, {"num_classes": 0})
    return variant


def refuse_other_network(source, variant, checkpoint):
    """Raise SwinsError if weights are of another kind of network than a variant, which `source` names or is."""
    network = network_of(variant)
    if checkpoint.network is not network:
        name = source if isinstance(source, str) else type(source).__name__
        raise SwinsError(
            f"{identify.hint(checkpoint, name)}weights must be of the variant's network; {name} is a {network.name}, "
            f"{checkpoint.path} holds a {checkpoint.network.name} ({checkpoint.dialect}: "
            f"{identify.identify(checkpoint)}); name a variant of it, or pass a file of a {network.name}"
        )


def keeps_head(checkpoint, variant):
    """Whether a file's classifier, if it has one, reads the channels of a variant's last map."""
    return checkpoint.features in (None, variant.features)


def is_keras(path):
    """Whether a path is a .keras file, or a folder with a model.keras: an artefact or a run."""
    path = pathlib.Path(path)
    return path.suffix == ".keras" or (path / artefacts.MODEL).is_file()


def read(path, key=None):
    """The Checkpoint of a file of any dialect, a folder of one, a .keras file or an artefact folder."""
    return checkpoint_of(read_keras(path, key), path) if is_keras(path) else checkpoint_files.read(path, key)


def read_keras(path, key=None):
    """The model of a .keras file, an artefact or a run, which holds one: a key is refused."""
    if key is not None:
        raise SwinsError(f"{path} holds one model, so there is no {key!r} to choose")
    return artefacts.load_model(path)


def checkpoint_of(model, path):
    """The Checkpoint of a Swin or ResNet of this package that a path holds."""
    known = facts.of_origin(getattr(model, "origin", {}))
    network, stated = network_of(model.variant), facts.of_model(model, known)
    tensors = networks.state_dict(model) | swin_rules.coordinates(model)
    return checkpoint_files.Checkpoint(
        pathlib.Path(path), tensors, "keras", (), translated=True, facts=stated, network=network
    )


def refuse_other_offsets(model, checkpoint):
    """Raise SwinsError if V2 weights know offsets over another window than that by which the model divides them."""
    if not isinstance(model.variant, VariantV2):
        return
    model_s, file_s = swin_rules.coordinates(model), checkpoint.left_out
    names = [name for name in model_s if name in file_s]
    divides, trained = ([identify.trained_window(tables[name]) for name in names] for tables in (model_s, file_s))
    if not all(map(identify.agrees, trained, divides)):
        raise SwinsError(
            f"{model.name}: V2 weights go with the windows they were trained with, stage by stage; "
            f"{checkpoint.path.name} has coordinates over {trained}, the model over {divides}; pass "
            "pretrained_windows, or the -m that fits"
        )


def assign(model, checkpoint, state):
    """Copy a Checkpoint's adapted state into a model; an error begins with the variant that the file fits."""
    refuse_other_offsets(model, checkpoint)
    try:
        networks.assign(model, state, source=checkpoint.path.name)
    except SwinsError as error:
        raise SwinsError(identify.explained(error, checkpoint, variant_name(model))) from error


def load_weights(model, checkpoint, num_classes=None):
    """Assign a Checkpoint to a model; a head of other size is left fresh only if num_classes was asked for."""
    variant, name = model.variant, network_of(model.variant).head
    other = checkpoint.num_classes != variant.num_classes or (variant.cut and not keeps_head(checkpoint, variant))
    fresh_head = num_classes is not None and other
    state = adapt(checkpoint.state, variant, fresh_head)
    if fresh_head and variant.num_classes:
        head = model.get_layer("head")
        state[f"{name}.weight"], state[f"{name}.bias"] = np.asarray(head.kernel).T, np.asarray(head.bias)
    assign(model, checkpoint, state)


def model_for(name, checkpoint, image_size=None, size_rule=None):
    """The float32 model that a checkpoint needs, with its weights.

    A tagged name fixes the classes; an untagged one takes classes and channels from the file.
    """
    asked = {"image_size": image_size, "size_rule": size_rule}
    variant = variant_for(name, checkpoint, {k: v for k, v in asked.items() if v is not None})
    with weights_follow():
        model = build.make(variant, {"dtype": "float32"}, look_up(name).architecture)
    assign(model, checkpoint, checkpoint.state)
    remember(model, name, checkpoint)
    return model


def taken(checkpoint, variant):
    """What a file does not tell and was taken of the variant to be so, a line each."""
    stated = checkpoint.facts.numbers
    if isinstance(variant, VariantV2) and not any(name.endswith(OFFSETS) for name in checkpoint.left_out):
        if not {"window_size", "pretrained_windows"} & stated.keys():
            yield f"the file does not say its windows: taken as {variant.windows}, pretrained with {variant.pretrained}"
        if variant.size_rule == "huggingface" and not {"image_size", "native_size"} & stated.keys():
            yield f"the file does not say what size it was made for: taken as {variant.made_for} pixels"


def known_of(source):
    """Class names and preparation that a training run, or an artefact's certificate, holds -> Facts."""
    if training := training_of(source):
        classes = training.get("classes")
        names = tuple(classes) if isinstance(classes, list) else ()
        return facts.Facts(
            {}, names, training.get("preprocess") or {}, training["recipe"]["model.name"].partition(".")[0]
        )
    if not pathlib.Path(source, artefacts.CERTIFICATE).is_file():
        return facts.NOTHING
    certificate = artefacts.read_certificate(source)
    names = tuple(certificate.get("class_names") or ())
    return facts.Facts({}, names, certificate.get("preparation") or {}, certificate["architecture"])


def torch_target(target, overwrite=False):
    """The path of a file that tensors are to be written to. Raises SwinsError for what is none, or would be lost."""
    target = pathlib.Path(target)
    if target.suffix != checkpoint_files.SAFE:
        raise SwinsError(f"-o must name a {checkpoint_files.SAFE} file; got {target}")
    if target.exists() and not overwrite:
        raise SwinsError(f"{target} exists and would be replaced; pass --overwrite, or another file with -o")
    return target


def export_torch(source, target, overwrite=False):
    """Write the weights of a .keras file or artefact as a timm state dict (safetensors) -> number of tensors."""
    target = torch_target(target, overwrite)
    return write_torch(artefacts.load_model(model_file(source)), source, target)


def write_torch(model, source, target):
    """Write the weights of a Swin or ResNet that a path holds as `export_torch` does -> number of tensors."""
    state, stated = networks.state_dict(model), facts.of_model(model, known_of(source))
    checkpoint_files.write(state, target, {facts.KEY: facts.as_text(stated)})
    return len(state)
