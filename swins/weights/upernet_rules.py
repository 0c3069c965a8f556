"""UPerNet's weights: which Keras variable is which tensor of mmsegmentation's, and other programs' names for them.

{i} is a part of the pooling, or a level of the pyramid.
"""

import functools
import re
from collections.abc import Iterable, Mapping

from swins.weights import dialects, rcnn_rules
from swins.weights.conversion_table import Rule, Table, batch_norm
from swins.weights.rcnn_rules import BUFFERS, CONV, conv

AUXILIARY = "auxiliary_head."
HUGGING_FACE, SMP = "Hugging Face", "segmentation-models-pytorch"  # dialects


def conv_norm(keras_path: str, torch_name: str) -> tuple:
    """The rules of a convolution without bias and of its batch norm."""
    return (
        Rule(f"{keras_path}/conv/kernel", f"{torch_name}.conv.weight", CONV),
        *batch_norm(f"{keras_path}/bn", f"{torch_name}.bn"),
    )


HEADS = (
    *conv_norm("psp_modules_{i}", "decode_head.psp_modules.{i}.1"),
    *conv_norm("bottleneck", "decode_head.bottleneck"),
    *conv_norm("lateral_convs_{i}", "decode_head.lateral_convs.{i}"),
    *conv_norm("fpn_convs_{i}", "decode_head.fpn_convs.{i}"),
    *conv_norm("fpn_bottleneck", "decode_head.fpn_bottleneck"),
    *conv("conv_seg", "decode_head.conv_seg"),
    *conv_norm("auxiliary_convs_0", f"{AUXILIARY}convs.0"),
    *conv("auxiliary_conv_seg", f"{AUXILIARY}conv_seg"),
)
TO_HUGGING_FACE = ((r"\.bn\.", ".batch_norm."), (r"_head\.conv_seg\.", "_head.classifier."))
FROM_HUGGING_FACE = ((r"\.batch_norm\.", ".bn."), (r"_head\.classifier\.", "_head.conv_seg."))
PARTS = {"conv": 0, "bn": 1}  # of a convolution of segmentation-models-pytorch, which numbers them
SMP_NAMES = {  # mmsegmentation's module: its; levels are counted from the coarsest there
    r"decode_head\.psp_modules\.(\d+)\.1": "decoder.psp.blocks.{}.1",
    r"decode_head\.bottleneck": "decoder.psp.out_conv",
    r"decode_head\.lateral_convs\.(\d+)": "decoder.fpn_lateral_blocks.{}.conv_norm_relu",
    r"decode_head\.fpn_convs\.(\d+)": "decoder.fpn_conv_blocks.{}",
    r"decode_head\.fpn_bottleneck": "decoder.fusion_block",
}
SMP_HEAD, SMP_NORMS = "segmentation_head.0.", "decoder.feature_norms."


def table_of(paths: Iterable[str]) -> Table:
    """The Table of a UPerNet whose variables have these paths, those of its backbone beginning with "pyramid/".

    Raises:
        SwinsError: a variable that no file has, such as of a user's own pyramid.
    """
    return rcnn_rules.table_of(paths, HEADS)


def leaves_out(name: str) -> bool:
    """Whether a UPerNet leaves out a tensor: a buffer, a classifier's norm, or what training keeps beside it."""
    unused = name.startswith((f"{dialects.UNUSED}.", f"{dialects.STEM}.", "data_preprocessor."))
    return unused or name.rpartition(".")[2] in BUFFERS or bool(dialects.COMPANY.match(name))


def renamed(name: str, renames: Iterable) -> str:
    """A name that underwent (pattern, replacement) one after the other."""
    return functools.reduce(lambda text, pair: re.sub(*pair, text), renames, name)


def laterals_of(names: Iterable[str]) -> int:
    """How many levels have lateral convolutions, in names of mmsegmentation or segmentation-models-pytorch."""
    pattern = re.compile(r"decode(?:_head\.lateral_convs|r\.fpn_lateral_blocks)\.(\d+)\.")
    return 1 + max((int(match[1]) for name in names if (match := pattern.match(name))), default=-1)


def counted(pattern: str, number: str | None, levels: int) -> str:
    """A part's number as segmentation-models-pytorch counts it, and back."""
    return str(levels - 1 - int(number)) if "_convs" in pattern else number or ""


def to_smp(name: str, levels: int) -> str:
    """The name of a head's tensor in segmentation-models-pytorch, of mmsegmentation's."""
    if name.startswith("decode_head.conv_seg."):
        return SMP_HEAD + name.rpartition(".")[2]
    module, part, last = name.rsplit(".", 2)
    for pattern, theirs in SMP_NAMES.items():
        if match := re.fullmatch(pattern, module):
            number = counted(pattern, match[1] if match.lastindex else None, levels)
            return f"{theirs.format(number)}.{PARTS[part]}.{last}"
    return name


def of_smp(name: str, levels: int) -> str:
    """The name of a head's tensor in mmsegmentation, of segmentation-models-pytorch's."""
    if name.startswith(SMP_HEAD):
        return "decode_head.conv_seg." + name.rpartition(".")[2]
    for pattern, theirs in SMP_NAMES.items():
        begin = re.escape(theirs).replace(r"\{\}", r"(\d+)")
        if match := re.fullmatch(rf"{begin}\.([01])\.(\w+)", name):
            *number, part, last = match.groups()
            number = counted(pattern, *number, levels) if number else ""
            module = pattern.replace(r"\.", ".").replace(r"(\d+)", number)
            return f"{module}.{'bn' if part == '1' else 'conv'}.{last}"
    return name


def in_mmseg_names(tensors: Mapping, dialect: str) -> dict:
    """A file's tensors with heads under mmsegmentation's names; the backbone's have those of its table already.

    Args:
        tensors: of a Checkpoint.
        dialect: its name.
    """
    own, levels, last = {}, laterals_of(tensors), dialects.stages(tensors) - 1
    for name, value in tensors.items():
        short = name.removeprefix(dialects.ELSEWHERE)
        if dialect == HUGGING_FACE and short.startswith(("decode_head.", AUXILIARY)):
            name = renamed(short, FROM_HUGGING_FACE)
        elif dialect == SMP and name.startswith(SMP_NORMS):
            stage, part = name.removeprefix(SMP_NORMS).split(".")
            name = f"{'norm' if int(stage) == last else f'norm{stage}'}.{part}"
        elif dialect == SMP:
            name = of_smp(name, levels)
        dialects.put(own, name, value)
    return own


def holds_upernet(tensors: Mapping) -> bool:
    """Whether tensors under mmsegmentation's names are of a whole UPerNet: pooled parts, and maps brought together."""
    parts = ("decode_head.psp_modules.", "decode_head.fpn_bottleneck.")
    return all(any(name.startswith(part) for name in tensors) for part in parts)
