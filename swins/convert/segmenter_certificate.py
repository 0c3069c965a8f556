"""Proof that a UPerNet computes what PyTorch computes with the same file, block by block.

Files of Hugging Face's names are run by transformers itself; those of Open-MMLab's by `swins/reference/
segmenter_models.py`, which is compared with mmsegmentation by the tests. Both load the file strictly.
"""

import re

import keras
import numpy as np

from swins import detector_checkpoints, segmenters
from swins.convert import certificate, programs, upernet_layouts
from swins.one_program import one_program
from swins.rcnn_numbers import stride_of
from swins.reference import oracle
from swins.weights import checkpoint_files, upernet_rules
from swins.weights.upernet_rules import HUGGING_FACE

SIZE = (250, 288)  # pixels, which windows do not tile
IMAGES = 2
PROGRAM, TRANSFORMERS = "torch", "transformers"
RAW = ("state_dict", "backbone.")  # what the reference itself takes off
HEADS = (  # our layers and mmsegmentation's modules
    (r"psp_modules_(\d+)$", r"decode_head.psp_modules.\1.1"),
    (r"bottleneck$", "decode_head.bottleneck"),
    (r"(lateral_convs|fpn_convs)_(\d+)$", r"decode_head.\1.\2"),
    (r"fpn_bottleneck$", "decode_head.fpn_bottleneck"),
    (r"conv_seg$", "decode_head.conv_seg"),
    (r"auxiliary_convs_(\d+)$", r"auxiliary_head.convs.\1"),
    (r"auxiliary_conv_seg$", "auxiliary_head.conv_seg"),
)
BACKBONE = (  # our layers and today's timm's or torchvision's modules
    (r"patch_embed$", "patch_embed"),
    (r"stages_(\d+)_blocks_(\d+)$", r"layers.\1.blocks.\2"),
    (r"stages_(\d+)_downsample$", r"layers.\1.downsample"),
    (r"norm(\d)$", r"norm\1"),
    (r"layer(\d)_(\d+)$", r"layer\1.\2"),
)


def pairs_of(model: keras.Model, table: tuple) -> list:
    """Pairs (layer, module) of a model's layers that a table of patterns names, in the order they run."""
    pairs = []
    for layer in model.layers:
        for pattern, module in table:
            if match := re.match(pattern, layer.name):
                pairs.append((layer.name, match.expand(module)))
    return pairs


def backbone_module(module: str, layout: str) -> str:
    """A module of a backbone as a layout's program calls it, of today's timm's name."""
    if layout == HUGGING_FACE:
        if norm := re.fullmatch(r"norm(\d)", module):
            return f"hidden_states_norms.stage{int(norm[1]) + 1}"
        return programs.transformers_module(module)
    if down := re.fullmatch(r"layers\.(\d+)\.downsample", module):
        module = f"layers.{int(down[1]) - 1}.downsample"
    if layout == upernet_layouts.LAYOUTS[1]:
        module = re.sub(r"^layers\.", "stages.", module)
    return "backbone.patch_embed.norm" if module == "patch_embed" else f"backbone.{module}"


def head_module(module: str, layout: str) -> str:
    """A module of a head as a layout's program calls it, of mmsegmentation's name."""
    return module.replace(".conv_seg", ".classifier") if layout == HUGGING_FACE else module


def channels_last(theirs, ours):
    """A program's output, channels first or in a row of cells, in the shape of ours."""
    b, h, w, c = ours.shape
    if theirs.shape == (b, c, h, w) and theirs.shape != ours.shape:
        return theirs.transpose(0, 2, 3, 1)
    return certificate.like(theirs, ours)


def image_size_of(model) -> tuple:
    """(height, width) of images on which a model and a reference do the same: for most of the rules, whole windows."""
    if None not in model.image_size:
        return model.image_size
    block = next((layer for layer in model.backbone.layers if hasattr(layer, "size_rule")), None)
    if block is None or block.size_rule == "open_mmlab":
        return SIZE
    return tuple(2 * side * stride_of(model.levels[-1]) for side in block.window_size)


def own_blocks(model: keras.Model, images) -> dict:
    """{name of a layer: array} of a network's blocks; those of its backbone begin with "pyramid/"."""
    inside = [name for name, _ in pairs_of(model.backbone, BACKBONE)]
    heads = [name for name, _ in pairs_of(model, HEADS)]
    inner = keras.Model(model.backbone.input, [model.backbone.get_layer(name).output for name in inside])
    outer = keras.Model(model.input, [model.get_layer(name).output for name in heads])
    blocks = zip((f"pyramid/{name}" for name in inside), one_program(inner)(images), strict=True)
    return {**dict(blocks), **dict(zip(heads, one_program(outer)(images), strict=True))}


def compare(model, file, layout: str, seed: int = certificate.SEED, unproven: tuple = ()) -> dict:
    """The part of a segmenter's certificate that can be recomputed, as `certificate.compare` gives it.

    Args:
        model: a UPerNet in float32.
        file: of its weights.
        layout: whose names they have, a row of `upernet_layouts.LAYOUTS`.
        seed: of the images.
        unproven: what the comparison leaves open.
    """
    images = certificate.normal_images((*image_size_of(model), model.in_chans), IMAGES, seed)
    pairs = {f"pyramid/{k}": backbone_module(t, layout) for k, t in pairs_of(model.backbone, BACKBONE)}
    pairs |= {k: head_module(t, layout) for k, t in pairs_of(model, HEADS)}
    program = TRANSFORMERS if layout == HUGGING_FACE else PROGRAM
    theirs = oracle.segment(program, file, images, pairs.values(), model.numbers.bins)
    ours = own_blocks(model, images)
    theirs = {name: channels_last(theirs[module], ours[name]) for name, module in pairs.items()} | {
        name: theirs[name] for name in ("parameters", "torch", "transformers")
    }
    blocks = {name: certificate.difference(ours[name], theirs[name]) for name in pairs}
    last = "conv_seg"
    versions = {name: str(theirs[name]) for name in (TRANSFORMERS, PROGRAM)}
    reference = certificate.Reference(program, versions, int(theirs["parameters"]), tuple(unproven))
    outputs = {next(iter(model.output)): {**blocks[last], "largest": float(np.abs(theirs[last]).max())}}
    agreement = {"pixels": float(np.mean(ours[last].argmax(-1) == theirs[last].argmax(-1)))}
    return certificate.judged(model, reference, images, seed, blocks, outputs, agreement)


def runs(layout: str) -> str:
    """The layout that a reference runs in place of one that none does."""
    return HUGGING_FACE if layout == upernet_rules.SMP else layout


def written(model, layout: str):
    """A context: a file of a network's weights in a layout."""
    state = detector_checkpoints.state_dict(model, upernet_rules.table_of)
    return programs.written(upernet_layouts.in_layout(state, layout))


def lies_as(checkpoint) -> bool:
    """Whether a reference loads the file itself."""
    alone = set(checkpoint.wrappers) <= set(RAW[1:] if checkpoint.dialect == HUGGING_FACE else RAW)
    return alone and checkpoint.dialect in upernet_layouts.LAYOUTS[:4] and checkpoint.path.suffix != ".json"


def converted(name: str, checkpoint) -> tuple:
    """A segmenter of a variant with a Checkpoint's weights, and its certificate.

    Raises:
        SwinsError: a file of no segmenter, or of another.
    """
    model, _ = segmenters.with_checkpoint(name, checkpoint, {"dtype": "float32"})
    if lies_as(checkpoint):
        result = compare(model, checkpoint.path, checkpoint.dialect)
    else:
        layout = runs(checkpoint.dialect)
        with written(model, layout) as file:
            unproven = f"translation not proven: {checkpoint.path.name} was not run"
            result = compare(model, file, layout, unproven=(unproven,))
    return model, certificate.certified(model, name, name, checkpoint, checkpoint.facts, result)


def compare_again(model, recorded: dict, checkpoint=None) -> dict:
    """`compare` of an artefact's model, with the file that it was made from or, by default, its own weights."""
    layout, unproven = recorded["source"]["dialect"], tuple(recorded["compared_with"]["unproven"])
    if checkpoint is not None and not unproven:
        source = checkpoint_files.files_of(checkpoint)[0]
        return compare(model, source, layout, recorded["seed"])
    with written(model, runs(layout)) as file:
        return compare(model, file, runs(layout), recorded["seed"], unproven)
