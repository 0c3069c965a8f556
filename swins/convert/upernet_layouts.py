"""UPerNet's tensors under the names that programs have for them: the way back of their dialects.

A layout has the name of its dialect. Hugging Face's are the names on disk, which `save_pretrained` writes.
"""

import re

from swins.convert import programs
from swins.errors import SwinsError
from swins.weights import detector_layouts, dialects, upernet_rules
from swins.weights.upernet_rules import AUXILIARY, HUGGING_FACE, SMP, SMP_NORMS

LAYOUTS = (*detector_layouts.LAYOUTS, HUGGING_FACE, SMP)
V1_TABLE = "relative_position_bias_table"


def default_layout(state: dict) -> str:
    """The layout of weights whose file is not known, by their names."""
    return detector_layouts.default_layout(state)


def in_layout(state: dict, layout: str) -> dict:
    """A segmenter's state dict as a program's files have it -> {name: array}.

    Args:
        state: the backbone under its table's names, heads under mmsegmentation's.
        layout: one of LAYOUTS. That of segmentation-models-pytorch has no auxiliary head, which is left out.

    Raises:
        SwinsError: a layout of another backbone.
    """
    if layout not in (HUGGING_FACE, SMP):
        return detector_layouts.in_layout(state, layout)
    if not any(name.endswith(V1_TABLE) for name in state):
        raise SwinsError(
            f"{layout} has UPerNets on Swins of V1 and their norms; write this one as {default_layout(state)} has it"
        )
    heads = {name: value for name, value in state.items() if name.startswith(dialects.DENSE)}
    own = {name: value for name, value in state.items() if name not in heads}
    named = hugging_face(own, heads) if layout == HUGGING_FACE else segmentation_models(own, heads)
    detector_layouts.add_counters(named)
    return named


def hugging_face(own: dict, heads: dict) -> dict:
    """A backbone's tensors and those of heads as transformers' UPerNet has them on disk."""
    detector_layouts.number_norms(own)
    norms = {name: value for name, value in own.items() if name.startswith(dialects.OUTPUT_NORMS)}
    rest = {name: value for name, value in own.items() if name not in norms}
    backbone = programs.in_names_of("transformers", rest)
    for name, value in norms.items():
        stage, part = re.fullmatch(r"norm(\d+)\.(\w+)", name).groups()
        backbone[f"hidden_states_norms.stage{int(stage) + 1}.{part}"] = value
    named = {f"backbone.{name}": value for name, value in backbone.items()}
    return named | {upernet_rules.renamed(n, upernet_rules.TO_HUGGING_FACE): value for n, value in heads.items()}


def segmentation_models(own: dict, heads: dict) -> dict:
    """A backbone's tensors and those of the decoder as segmentation-models-pytorch has them."""
    detector_layouts.number_norms(own)
    levels, named = upernet_rules.laterals_of(heads), {}
    for name, value in own.items():
        if match := re.fullmatch(r"norm(\d+)\.(\w+)", name):
            named[f"{SMP_NORMS}{match[1]}.{match[2]}"] = value
        else:
            named["encoder.model." + re.sub(r"^layers\.", "layers_", name)] = value
    for name, value in heads.items():
        if not name.startswith(AUXILIARY):
            named[upernet_rules.to_smp(name, levels)] = value
    return named
