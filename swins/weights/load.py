"""Models with weights: `create`, and what it shares with the converter."""

import math
import os
import pathlib
import warnings
from dataclasses import fields

import numpy as np

from swins import build
from swins.errors import SwinsError
from swins.plans import Variant, VariantV2, kept_native_size, remembering, with_overrides
from swins.renamed import renamed
from swins.run_result import model_file, training_of
from swins.tags import look_up
from swins.weights import artefacts, checkpoint_files, facts, identify, pretrained, swin_rules
from swins.weights.dialects import ELSEWHERE


def adapt(state, variant, head_is_new):
    """Fit published weights to other inputs and classes, as timm does.

    Args:
        state: {torch name: array}.
        variant: the Variant to fit.
        head_is_new: whether the classifier is left out, to be trained.
    """
    kernel = state.get("patch_embed.proj.weight")
    if kernel is not None and kernel.ndim == 4 and kernel.shape[1] == 3 != variant.in_chans:
        if variant.in_chans == 1:
            kernel = kernel.sum(axis=1, keepdims=True)
        else:
            repeats = math.ceil(variant.in_chans / 3)
            kernel = np.tile(kernel, (1, repeats, 1, 1))[:, : variant.in_chans] * np.float32(3 / variant.in_chans)
        state = {**state, "patch_embed.proj.weight": kernel}
    return {k: v for k, v in state.items() if not (head_is_new and k.startswith("head."))}


NAMED = ("embed_dim", "depths", "num_heads")  # what a variant's name stands for, whatever a file says
OFFSETS = ("relative_coords_table", "relative_position_index", "attn_mask")  # buffers that tell V2's windows
SHOWN = 6  # lines of what differs, where a file fits another variant


def create(variant=None, /, *, weights=None, weights_key=None, name=None, **overrides):
    """A Swin by the name of its variant.

    Args:
        variant: "architecture" or "architecture.tag", as in timm; `swins list` prints all.
        weights: None for fresh weights; "pretrained" for timm's published ones, through the Hugging Face Hub; or a
            path: a PyTorch checkpoint, a folder that save_pretrained or timm's hub wrote, a .keras file or an artefact
            folder. With a path, an untagged variant takes the classes and channels that are not given from the file.
        weights_key: which weights, where a checkpoint holds several, such as "model" beside "model_ema"; by default
            the averaged ones, and a warning says so.
        name: of the Keras model; by default the architecture. Two in one model need two, as in keras.applications.
        **overrides: num_classes, image_size, in_chans, drop_path_rate, dtype, ... as SwinTransformer takes them. With
            other classes than the weights have, the head is fresh; the first layer of RGB weights is summed or
            repeated for other channels, as in timm. What a file says of its model (a .keras file, a config.json, a file
            of `--to-torch`) holds over the variant's numbers; with another window_size, V2 records the windows that the
            weights know as pretrained_windows.

    Returns:
        A SwinTransformer, images (B, H, W, in_chans) -> logits (B, num_classes).

    Raises:
        SwinsError: an unknown name, sizes that cannot work, or weights that do not fit; every difference is listed.

    Example:
    >>> create("swin_tiny_patch4_window7_224", num_classes=5).output.shape
    (None, 5)
    """
    if variant is None:  # create(name="swin_...") too
        variant, name = name, None
    if not isinstance(variant, str):
        raise SwinsError(f"create takes a variant's name, such as swin_tiny_patch4_window7_224; got {variant!r}")
    name = build.model_name(name) or look_up(variant).architecture
    if weights is None and weights_key is None:
        return build.build(variant, name=name, **overrides)
    return with_weights(variant, open_weights(weights, weights_key, variant, stacklevel=3), overrides, name)


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
    beside = {name.split(".")[1] for name in checkpoint.left_out if name.startswith(ELSEWHERE)}
    if checkpoint.program == "timm":  # whose files have nothing beside a Swin
        beside |= {name.partition(".")[0] for name in checkpoint.left_out if name.startswith(swin_rules.BESIDE)}
    if beside := sorted(beside):
        warnings.warn(f"{weights}: only its Swin was taken; left out {', '.join(beside)}", stacklevel=stacklevel)
    return checkpoint


def with_weights(source, checkpoint, overrides, name=None):
    """A model of a variant's name, or of a Variant, with a Checkpoint's weights; overrides as `create` takes them."""
    if name is None and isinstance(source, str):
        name = look_up(source).architecture
    options = {option: overrides.get(option) for option in build.OPTIONS}
    model = build.make(variant_for(source, checkpoint, overrides), options, name)
    load_weights(model, checkpoint, overrides.get("num_classes"))
    return model


def variant_for(source, checkpoint, overrides):
    """The Variant of a model with a Checkpoint's weights.

    What the file says of its model holds over what the name says, but for channels, blocks and heads, which are what a
    name is; what is asked for holds over both. A tagged name fixes the classes, an untagged one takes classes and
    channels from the file. A Variant asks for its size and channels, and takes the rest as an untagged name does. V2
    with other windows than its weights know records theirs as pretrained_windows.

    Args:
        source: "architecture" or "architecture.tag", or a Variant.
        checkpoint: a Checkpoint.
        overrides: options that are asked for; None leaves one as it is.
    """
    asked = {k: v for k, v in renamed(overrides).items() if k not in build.OPTIONS}
    if isinstance(source, Variant):
        native, tagged = source, False
        asked = {"image_size": source.image_size, "in_chans": source.in_chans} | {
            k: v for k, v in asked.items() if v is not None
        }
    else:
        native, tagged = look_up(source).variant, "." in source
    known = {f.name for f in fields(native)} - {*facts.TRAINING, *NAMED, "num_classes", "in_chans"}
    stated = {k: v for k, v in checkpoint.facts.numbers.items() if k in known}
    if not tagged:
        stated |= {"num_classes": checkpoint.num_classes, "in_chans": checkpoint.in_chans}
    trained = with_overrides(native, stated)
    variant = with_overrides(trained, {**asked, **kept_native_size(trained, asked)})
    states_windows = "window_size" in stated or any(name.endswith(OFFSETS[0]) for name in checkpoint.left_out)
    remembers = asked.get("window_size") or states_windows  # else, as timm, those of the new size are taken for them
    if isinstance(variant, VariantV2) and remembers and not asked.get("pretrained_windows"):
        variant = remembering(variant, trained)
    return variant


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
    """The Checkpoint of a Swin of this package that a path holds."""
    tensors, stated = swin_rules.state_dict(model) | swin_rules.coordinates(model), facts.of_model(model)
    return checkpoint_files.Checkpoint(pathlib.Path(path), tensors, "keras", (), translated=True, facts=stated)


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
        swin_rules.assign(model, state, source=checkpoint.path.name)
    except SwinsError as error:
        hint, lines = identify.hint(checkpoint, build.variant_name(model)), str(error).splitlines()
        if hint and len(lines) > SHOWN:  # every tensor differs, and what to do is said
            lines[SHOWN:] = [f"  and {len(lines) - SHOWN} more"]
        raise SwinsError("\n".join(filter(None, (hint + "\n".join(lines), checkpoint.choice)))) from error


def load_weights(model, checkpoint, num_classes=None):
    """Assign a Checkpoint to a model; a head of other size is left fresh only if num_classes was asked for."""
    fresh_head = num_classes is not None and checkpoint.num_classes != model.variant.num_classes
    state = adapt(checkpoint.state, model.variant, fresh_head)
    if fresh_head and model.variant.num_classes:
        head = model.get_layer("head")
        state["head.fc.weight"], state["head.fc.bias"] = np.asarray(head.kernel).T, np.asarray(head.bias)
    assign(model, checkpoint, state)


def model_for(name, checkpoint, image_size=None, size_rule=None):
    """The float32 model that a checkpoint needs, with its weights.

    A tagged name fixes the classes; an untagged one takes classes and channels from the file.
    """
    variant = variant_for(name, checkpoint, {"image_size": image_size, "size_rule": size_rule})
    model = build.make(variant, {"dtype": "float32"}, look_up(name).architecture)
    assign(model, checkpoint, checkpoint.state)
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


def export_torch(source, target, overwrite=False):
    """Write the weights of a .keras file or artefact as a timm state dict (safetensors) -> number of tensors."""
    target = pathlib.Path(target)
    if target.suffix != checkpoint_files.SAFE:
        raise SwinsError(f"-o must name a {checkpoint_files.SAFE} file; got {target}")
    if target.exists() and not overwrite:
        raise SwinsError(f"{target} exists and would be replaced; pass --overwrite, or another file with -o")
    model = artefacts.load_model(model_file(source))
    state, stated = swin_rules.state_dict(model), facts.of_model(model, known_of(source))
    checkpoint_files.write(state, target, {facts.KEY: facts.as_text(stated)})
    return len(state)
