"""The programs that a certificate compares with: which one, under whose names, and what stays unproven.

The program that wrote a file runs it, under its own rules, where it can be installed: timm, torchvision, transformers.
For other files one of these runs a translation, which proves the model and not the translation; so it does for models
whose file is not at hand.
"""

import contextlib
import pathlib
import re
import tempfile
from dataclasses import dataclass

import numpy as np

from swins.plans import VariantV2
from swins.resnet_plan import VariantResNet
from swins.weights import checkpoint_files, resnet_rules, swin_rules

ENGINES = {  # which program has a size rule
    "timm": "timm",
    "microsoft": "timm",  # which does the same with square images
    "torchvision": "torchvision",
    "huggingface": "transformers",
    "mmpretrain": "transformers",
    "open_mmlab": "transformers",
}
TORCHVISION = (  # today's timm names -> the program's, in the order they apply
    (r"^patch_embed\.proj\.", "features.0.0."),
    (r"^patch_embed\.norm\.", "features.0.2."),
    (r"^layers\.(\d+)\.blocks\.", lambda m: f"features.{2 * int(m[1]) + 1}."),
    (r"^layers\.(\d+)\.downsample\.", lambda m: f"features.{2 * int(m[1])}."),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.3."),
    (r"^head\.fc\.", "head."),
)
TRANSFORMERS = (
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^patch_embed\.norm\.", "embeddings.norm."),
    (r"^layers\.(\d+)\.downsample\.", lambda m: f"encoder.layers.{int(m[1]) - 1}.downsample."),
    (r"^layers\.", "encoder.layers."),
    (r"\.attn\.(query|key|value)\.", r".attention.self.\1."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.attn\.cpb_mlp\.", ".attention.self.continuous_position_bias_mlp."),
    (r"\.attn\.", ".attention.self."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
    (r"^norm\.", "layernorm."),
    (r"^head\.fc\.", "classifier."),
)


@dataclass(frozen=True)
class Subject:
    """What a reference program is asked to run.

    program: "timm", "torchvision" or "transformers"; kind: of transformers' models, or "resnet" of torchvision's;
    size_rule: which the program must follow, None for a ResNet; file: what it loads; unproven: what the comparison
    leaves open.
    """

    program: str
    kind: str
    size_rule: str | None
    file: pathlib.Path
    unproven: tuple = ()


def renamed(state, renames):
    """A state dict whose names underwent (pattern, replacement) one after the other."""
    names = {}
    for name, value in state.items():
        for pattern, replacement in renames:
            name = re.sub(pattern, replacement, name)
        names[name] = value
    return names


def split_parts(state):
    """Queries, keys and values apart, as transformers has them; V2's keys have no bias."""
    parts = {}
    for name, value in state.items():
        stem, _, last = name.rpartition(".attn.")
        if last in ("qkv.weight", "qkv.bias"):
            for part, third in zip(("query", "key", "value"), np.split(value, 3), strict=True):
                parts[f"{stem}.attn.{part}.{last.removeprefix('qkv.')}"] = third
        elif last in ("q_bias", "v_bias"):
            parts[f"{stem}.attn.{'query' if last[0] == 'q' else 'value'}.bias"] = value
        else:
            parts[name] = value
    return parts


def join_bias(state):
    """torchvision's V2 has one bias for queries, keys and values."""
    joined = {name: value for name, value in state.items() if not name.endswith((".attn.q_bias", ".attn.v_bias"))}
    for name, value in state.items():
        if name.endswith(".attn.q_bias"):
            stem = name.removesuffix("q_bias")
            joined[f"{stem}qkv.bias"] = np.concatenate([value, np.zeros_like(value), state[f"{stem}v_bias"]])
    return joined


def in_names_of(program, state):
    """A state dict in today's timm names as a program calls its tensors."""
    if program == "torchvision":
        return renamed(join_bias(state), TORCHVISION)
    return renamed(split_parts(state), TRANSFORMERS) if program == "transformers" else state


def kind_of(names, is_v2):
    """Which of transformers' models has tensors of these names."""
    names = set(names)
    if any(name.startswith("classifier.") for name in names):
        return "classifier"
    if any(re.match(r"hidden_states_norms\.\d", name) for name in names):
        return "maskformer"
    if any(name.startswith("hidden_states_norms.") for name in names):
        return "backbone"
    if any(re.match(r"(swin\.|swinv2\.|model\.)?layernorm\.", name) for name in names):
        return "model"
    return "backbone" if is_v2 else "donut"


def lies_as(checkpoint):
    """Whether the file itself is what the program that wrote it loads."""
    return checkpoint.program == "timm" and not checkpoint.translated


@contextlib.contextmanager
def written(state: dict):
    """A file of a state dict, which exists in the context."""
    with tempfile.TemporaryDirectory(prefix="swins-translated-") as folder:
        file = pathlib.Path(folder, f"model{checkpoint_files.SAFE}")
        checkpoint_files.write(state, file)
        yield file


@contextlib.contextmanager
def resnet_subject(checkpoint, variant):
    """What proves a ResNet's Checkpoint: torchvision runs its tensors under their own names, those that are taken."""
    names = resnet_rules.table_of(variant).torch_names
    with written({k: v for k, v in checkpoint.original.items() if k in names}) as file:
        yield Subject("torchvision", "resnet", None, file)


@contextlib.contextmanager
def subject(checkpoint, variant):
    """What proves a Checkpoint's model -> Subject, whose file exists in the context.

    Args:
        checkpoint: the file's Checkpoint.
        variant: the model's; a size rule that is not the file's program's is run by the program that has it.
    """
    if isinstance(variant, VariantResNet):
        with resnet_subject(checkpoint, variant) as made:
            yield made
        return
    is_v2, program = isinstance(variant, VariantV2), checkpoint.program
    own = program is not None and ENGINES[variant.size_rule] == program and variant.size_rule != "microsoft"
    if own and lies_as(checkpoint):
        yield Subject(program, "classifier", variant.size_rule, checkpoint.path)
        return
    if own:
        kind = kind_of(checkpoint.original, is_v2) if program == "transformers" else "classifier"
        inside = "model." if program == "transformers" and kind != "maskformer" else ""  # as a user's own module
        with written({k.removeprefix(inside): v for k, v in checkpoint.original.items()}) as file:
            yield Subject(program, kind, variant.size_rule, file)
        return
    engine, unproven = ENGINES[variant.size_rule], (f"translation not proven: {checkpoint.dialect} was not run",)
    with written(in_names_of(engine, checkpoint.state)) as file:
        kind = "classifier" if variant.num_classes else "model"
        yield Subject(engine, kind, variant.size_rule, file, unproven)


def outputs(program, variant, kind="classifier"):
    """Pairs (Keras layer, a program's module) whose outputs correspond, in the order they run."""
    if kind == "resnet":
        return resnet_rules.outputs(variant)
    pairs, last = swin_rules.outputs(variant), len(variant.depths)
    if program == "timm":
        return pairs
    norms = {"backbone": f"hidden_states_norms.stage{last}", "maskformer": f"hidden_states_norms.{last - 1}"}
    names = {"torchvision": torchvision_module, "transformers": transformers_module}[program]
    return [(k, norms[kind] if module == "norm" and kind in norms else names(module)) for k, module in pairs]


def torchvision_module(module):
    """torchvision's module of timm's."""
    for pattern, replacement in (
        (r"^patch_embed$", "features.0"),
        (r"^layers\.(\d+)\.blocks\.(\d+)$", lambda m: f"features.{2 * int(m[1]) + 1}.{m[2]}"),
        (r"^layers\.(\d+)\.downsample$", lambda m: f"features.{2 * int(m[1])}"),
    ):
        module = re.sub(pattern, replacement, module)
    return module


def transformers_module(module):
    """transformers' module of timm's, below its Swin."""
    for pattern, replacement in (
        (r"^patch_embed$", "embeddings"),
        (r"^layers\.(\d+)\.downsample$", lambda m: f"encoder.layers.{int(m[1]) - 1}.downsample"),
        (r"^layers\.(\d+)\.blocks", r"encoder.layers.\1.blocks"),
        (r"^norm$", "layernorm"),
    ):
        module = re.sub(pattern, replacement, module)
    return module
