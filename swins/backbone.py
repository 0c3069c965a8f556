"""Feature pyramids: what detectors and segmenters take of a Swin or a ResNet."""

import os
import pathlib
import warnings

import keras

from swins import build
from swins.errors import SwinsError, unknown_name
from swins.layers import layer_norm
from swins.tags import look_up, names_variant
from swins.weights import checkpoint_files, identify, load, pretrained
from swins.weights.conversion_table import Table, fill, norm, weights_of


def backbone(source, *, weights=None, weights_key=None, norms=False, merged=False, name=None, **overrides):
    """Feature pyramid of a Swin -> keras.Model, images to {"P2": (B, H/4, W/4, C), ... "P5": (B, H/32, W/32, 8C)}.

    Level Pn has stride 2**n, for patches whose side is a power of 2. Maps are those of the stages, before the merging
    that follows and before a classifier's norm, unless one asks for others. Of a ResNet they are the last map at each
    stride: see `swins.ResNet`, whose `strides` and `stages` may be asked for.

    Args:
        source: a variant's name, a Variant or VariantResNet, a model, whose weights the pyramid shares, a .keras file,
            an artefact folder, or a checkpoint file that fits one variant.
        weights: as `create` takes them, for a name or a Variant, which takes from the file what it does not say.
        weights_key: which weights, where a checkpoint holds several.
        norms: True for a LayerNorm of its own on every map, as Mask R-CNN's and UPerNet's backbones have, or the levels
            that get one, such as ("P3", "P5"); they are layers `norm0`, `norm1`, ... by stage. A file of a dense
            backbone gives them their weights; those that it lacks are fresh, which a warning says. Of a name without
            weights and of a model all are fresh.
        merged: True for what each stage's merging gives the next, {"P3": (B, H/8, W/8, 2C), ...}, as SSD's backbone A
            of RuslanGreenhead/swin_transformer takes: of four stages three maps, and the last stage is not used.
        name: the pyramid's; by default the source's and "_pyramid".
        **overrides: image_size, in_chans, drop_path_rate, dtype, ... as `create` takes them; not with a model.

    Raises:
        SwinsError: no such source, weights that do not fit, options that a source does not take.

    Example:
    >>> pyramid = backbone("swin_tiny_patch4_window7_224", image_size=64, norms=True)
    >>> {level: tuple(x.shape) for level, x in pyramid.output.items()}["P5"]
    (None, 2, 2, 768)
    """
    if merged and norms:
        raise SwinsError("norms are of maps before merging; pass norms or merged, or put norms on the merged maps")
    name = build.model_name(name)
    source, weights = pretrained.local(source), pretrained.local(weights)
    swin, checkpoint = open_source(source, weights, weights_key, overrides)
    if merged and not hasattr(swin, "merged"):
        raise SwinsError(f"merged maps are of a Swin, whose stages merge patches; got {swin.name}; leave merged out")
    maps, normed = dict(swin.merged if merged else swin.pyramid), normed_levels(swin, norms)
    for level in normed:
        maps[level] = layer_norm(norm_name(swin, level), swin.policy)(maps[level])
    pyramid = keras.Model(swin.input, maps, name=name or f"{swin.name}_pyramid")
    if normed and checkpoint is not None and (fresh := load_norms(pyramid, swin, normed, checkpoint)):
        warnings.warn(
            f"{checkpoint.path} has no norms of {', '.join(fresh)}, so these are fresh; train them, or pass a file of "
            "a detector's or segmenter's backbone",
            stacklevel=2,
        )
    return pyramid


def open_source(source, weights, key, overrides):
    """The network of a source, and the Checkpoint that its weights are of, or None -> (keras.Model, Checkpoint)."""
    if isinstance(source, os.PathLike) or (
        isinstance(source, str) and not names_variant(source) and pathlib.Path(source).exists()
    ):
        if weights is not None:
            raise SwinsError(f"{source} has weights of its own; pass a variant's name or a Variant with weights=")
        return open_file(source, key, overrides)
    if isinstance(source, str) or type(source) in build.FAMILIES:
        if weights is None and key is None:
            variant = look_up(source).variant if isinstance(source, str) else source
            label = look_up(source).architecture if isinstance(source, str) else None
            return build.make(variant, overrides, label), None
        checkpoint = load.open_weights(weights, key, source, stacklevel=4)
        return load.with_weights(source, checkpoint, overrides), checkpoint
    options = [option for option, value in {"weights": weights, "weights_key": key}.items() if value is not None]
    if overrides or options or not hasattr(source, "pyramid"):
        raise SwinsError(
            "a pyramid is of a name, a Variant, a file or a model, and a Swin takes no options; got "
            f"{source}, {', '.join((*options, *overrides)) or 'no options'}"
        )
    return source, None


def open_file(path, key, overrides):
    """The network in a .keras file, an artefact, a run or a checkpoint, and a Checkpoint of the norms beside it."""
    if load.is_keras(path):
        swin = load.read_keras(path, key)
        if overrides:
            swin = load.with_weights(swin.variant, load.checkpoint_of(swin, path), overrides, swin.name)
        return swin, checkpoint_files.Checkpoint(pathlib.Path(path), {}, "keras", ())
    checkpoint = load.open_weights(path, key, stacklevel=5)
    return load.with_weights(identify.the_variant(checkpoint), checkpoint, overrides), checkpoint


def normed_levels(swin, norms):
    """The levels that `norms` asks for, in the pyramid's order -> ["P2", ...]."""
    if isinstance(norms, bool):
        return list(swin.pyramid) if norms else []
    if not isinstance(norms, list | tuple):
        raise SwinsError(f'norms must be True, False or levels, such as ("P3", "P5"); got {norms!r}')
    for level in norms:
        if level not in swin.pyramid:
            raise unknown_name("level", str(level), list(swin.pyramid))
    return [level for level in swin.pyramid if level in norms]


def norm_name(swin, level):
    """The layer that norms a level: norm0 of the first stage's map."""
    return f"norm{list(swin.pyramid).index(level)}"


def load_norms(pyramid, swin, levels, checkpoint):
    """Give a pyramid's norms the weights that a Checkpoint has of them -> the levels that stay fresh."""
    stages = {level: list(swin.pyramid).index(level) for level in levels}
    state, loaded = {}, []
    for stage in stages.values():
        if tensors := checkpoint.norm_of(stage):
            state |= {f"norm{stage}.{part}": tensor for part, tensor in tensors.items()}
            loaded.append(stage)
    table = Table(norm("norm{s}", "norm{s}", over="stages"), {"stages": [{"s": stage} for stage in loaded]})
    weights = {path: variable for path, variable in weights_of(pyramid).items() if path in table.filled}
    fill(weights, state, table, pyramid.name, checkpoint.path.name)
    return [level for level, stage in stages.items() if stage not in loaded]
