"""Detectors' tensors under the names that programs have for them: the way back of their dialects.

A layout has the name of its dialect. Heads have mmdet's names in all of them; what differs is the backbone.
"""

import re

import numpy as np

from swins import windows
from swins.errors import SwinsError
from swins.weights import dialects

MICROSOFT = dialects.MICROSOFT_DENSE.name  # Swin-Transformer-Object-Detection, mim-example
MMDET = "mmdet, mmseg or mmpretrain"  # mmdet from 2.16 on
RESNET = "torchvision or timm ResNet"  # whose names mmdet has too
LAYOUTS = (MICROSOFT, MMDET, RESNET)
MMDET_NAMES = (  # table's names -> mmdet's, in the order they apply
    (r"^patch_embed\.proj\.", "patch_embed.projection."),
    (r"^layers\.", "stages."),
    (r"\.attn\.", ".attn.w_msa."),
    (r"\.mlp\.fc1\.", ".ffn.layers.0.0."),
    (r"\.mlp\.fc2\.", ".ffn.layers.1."),
)
TABLE = ".attn.relative_position_bias_table"
INDEX = ".attn.relative_position_index"


def default_layout(state: dict) -> str:
    """The layout of weights whose file is not known, by their names."""
    return RESNET if "layer1.0.conv1.weight" in state else MICROSOFT


def number_norms(state: dict) -> None:
    """The last map's norm is numbered as the others are."""
    if "norm0.weight" in state:
        last = dialects.stages(state) - 1
        for part in ("weight", "bias"):
            dialects.put(state, f"norm{last}.{part}", state.pop(f"norm.{part}"))


def merge_at_end(state: dict) -> None:
    """A stage's merging belongs to the stage before."""
    for name in sorted(name for name in state if re.match(r"layers\.\d+\.downsample\.", name)):
        _, stage, rest = name.split(".", 2)
        dialects.put(state, f"layers.{int(stage) - 1}.{rest}", state.pop(name))


def add_index(state: dict) -> None:
    """The buffer of relative positions that both programs' files have beside V1's tables, of square windows."""
    for name in [name for name in state if name.endswith(TABLE)]:
        side = (round(len(state[name]) ** 0.5) + 1) // 2
        state[name.replace(TABLE, INDEX)] = windows.relative_index((side, side)).astype("int64")


def add_counters(state: dict) -> None:
    """The buffers that PyTorch's batch norms count batches in, and that a strict load asks for."""
    for stem in dialects.stems(state, ".running_mean"):
        state[f"{stem}.num_batches_tracked"] = np.zeros((), "int64")


def redo_unfold(state: dict) -> None:
    """What `dialects.undo_unfold` takes apart: merging's 4C inputs as (c, row, column)."""
    for stem in dialects.stems(state, ".downsample.reduction.weight"):
        inputs = state[f"{stem}.downsample.reduction.weight"].shape[-1]
        order = np.argsort(np.arange(inputs).reshape(-1, 2, 2).transpose(2, 1, 0).ravel())
        for part in ("reduction.weight", "norm.weight", "norm.bias"):
            value = state[f"{stem}.downsample.{part}"]
            if value.shape[-1] == inputs:
                state[f"{stem}.downsample.{part}"] = np.ascontiguousarray(value[..., order])


def in_layout(state: dict, layout: str) -> dict:
    """A detector's state dict as a program's files have it -> {name: array}.

    Args:
        state: the backbone under its table's names, heads under mmdet's, as `detector_checkpoints.state_dict` gives.
        layout: one of LAYOUTS.

    Raises:
        SwinsError: a layout of another backbone.
    """
    beside = {name: value for name, value in state.items() if name.startswith(dialects.DENSE)}
    own = {name: value for name, value in state.items() if name not in beside}
    if layout not in LAYOUTS or (layout == RESNET) != (default_layout(state) == RESNET):
        raise SwinsError(f"a detector's weights are written as {default_layout(state)} has them; got {layout!r}")
    if layout != RESNET:
        for step in (number_norms, merge_at_end, add_index):
            step(own)
    renames = MMDET_NAMES if layout == MMDET else ()
    if renames:
        redo_unfold(own)
    named = {}
    for name, value in own.items():
        for pattern, replacement in renames:
            name = re.sub(pattern, replacement, name)
        named[f"backbone.{name}"] = value
    everything = named | beside
    add_counters(everything)
    return everything
