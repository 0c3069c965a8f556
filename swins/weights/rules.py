"""Conversion as data: which Keras variable is which tensor of today's timm, readable in both directions.

{s} is a stage and {b} a block of it. A Keras path is the variable's `path`; a torch name a key of the state dict.
"""

from dataclasses import dataclass, replace

import numpy as np

from swins.changes import changes, floats, values
from swins.errors import SwinsError
from swins.plans import ANY, Variant, VariantV2, VariantV2CR


@dataclass(frozen=True)
class Transform:
    """Axis orders from torch to Keras and back; None keeps the array."""

    to_keras: tuple | None = None
    to_torch: tuple | None = None


SAME = Transform()
LINEAR = Transform((1, 0), (1, 0))  # (out, in) <-> (in, out)
CONV = Transform((2, 3, 1, 0), (3, 2, 0, 1))  # OIHW <-> HWIO
DEPTHWISE = Transform((2, 3, 0, 1), (2, 3, 0, 1))  # (C, 1, H, W) <-> (H, W, C, 1)


@dataclass(frozen=True)
class Rule:
    """One Keras variable and the tensor it is made from."""

    keras_path: str
    torch_name: str
    transform: Transform = SAME


def norm(keras_path, torch_name):
    """The two vectors of a LayerNorm."""
    return (
        Rule(f"{keras_path}/gamma", f"{torch_name}.weight"),
        Rule(f"{keras_path}/beta", f"{torch_name}.bias"),
    )


def dense(keras_path, torch_name):
    """Kernel and bias of a linear layer."""
    return (
        Rule(f"{keras_path}/kernel", f"{torch_name}.weight", LINEAR),
        Rule(f"{keras_path}/bias", f"{torch_name}.bias"),
    )


K, T = "stages_{s}_blocks_{b}", "layers.{s}.blocks.{b}"
DOWN_K, DOWN_T = "stages_{s}_downsample", "layers.{s}.downsample"
TABLE = "relative_position_bias_table"

V1 = (
    Rule("patch_embed/proj/kernel", "patch_embed.proj.weight", CONV),
    Rule("patch_embed/proj/bias", "patch_embed.proj.bias"),
    *norm("patch_embed/norm", "patch_embed.norm"),
    *norm(f"{DOWN_K}/norm", f"{DOWN_T}.norm"),
    Rule(f"{DOWN_K}/reduction/kernel", f"{DOWN_T}.reduction.weight", LINEAR),
    *norm(f"{K}/norm1", f"{T}.norm1"),
    Rule(f"{K}/attn/{TABLE}", f"{T}.attn.{TABLE}"),
    *dense(f"{K}/attn/qkv", f"{T}.attn.qkv"),
    *dense(f"{K}/attn/proj", f"{T}.attn.proj"),
    *norm(f"{K}/norm2", f"{T}.norm2"),
    *dense(f"{K}/mlp/fc1", f"{T}.mlp.fc1"),
    *dense(f"{K}/mlp/fc2", f"{T}.mlp.fc2"),
    *norm("norm", "norm"),
    *dense("head", "head.fc"),
)

V2 = (
    *(rule for rule in V1 if "/attn/qkv" not in rule.keras_path and TABLE not in rule.keras_path),
    Rule(f"{K}/attn/qkv/kernel", f"{T}.attn.qkv.weight", LINEAR),
    Rule(f"{K}/attn/q_bias", f"{T}.attn.q_bias"),
    Rule(f"{K}/attn/v_bias", f"{T}.attn.v_bias"),
    Rule(f"{K}/attn/logit_scale", f"{T}.attn.logit_scale"),
    *dense(f"{K}/attn/cpb_mlp_0", f"{T}.attn.cpb_mlp.0"),
    Rule(f"{K}/attn/cpb_mlp_2/kernel", f"{T}.attn.cpb_mlp.2.weight", LINEAR),
)

CR_K, CR_T = K, "stages.{s}.blocks.{b}"
NORM3_K, NORM3_T = f"{K}_norm3", f"{CR_T}.norm3"
V2_CR = (
    *(
        replace(r, torch_name=r.torch_name.replace("layers.", "stages."))
        for r in V1
        if not r.keras_path.startswith("norm/") and TABLE not in r.keras_path
    ),
    Rule(f"{K}/attn/logit_scale", f"{CR_T}.attn.logit_scale"),
    *dense(f"{K}/attn/meta_mlp_fc1", f"{CR_T}.attn.meta_mlp.fc1"),
    *dense(f"{K}/attn/meta_mlp_fc2", f"{CR_T}.attn.meta_mlp.fc2"),
    *norm(NORM3_K, NORM3_T),
    Rule(f"{K}/offset_network_0/kernel", f"{CR_T}.offset_network.0.weight", DEPTHWISE),
    Rule(f"{K}/offset_network_0/bias", f"{CR_T}.offset_network.0.bias"),
    Rule(f"{K}/offset_network_2/kernel", f"{CR_T}.offset_network.2.weight", CONV),
    Rule(f"{K}/offset_network_2/bias", f"{CR_T}.offset_network.2.bias"),
)
TABLES = {Variant: V1, VariantV2: V2, VariantV2CR: V2_CR}  # one table a paper


def expand(rules, variant):
    """Fill in stages and blocks: rules with placeholders -> {keras path: Rule} for a Variant."""
    filled = {}
    for rule in rules:
        for s, depth in enumerate(variant.depths):
            for b in range(depth):
                if exists(rule, variant, s, b):
                    path = rule.keras_path.format(s=s, b=b)
                    filled[path] = Rule(path, rule.torch_name.format(s=s, b=b), rule.transform)
    return filled


def exists(rule, variant, s, b):
    """Whether a Variant has what a rule is about, at a stage and block."""
    if rule.keras_path.startswith(DOWN_K):
        return s > 0
    if rule.keras_path.startswith("head/"):
        return variant.num_classes > 0
    if rule.keras_path.startswith("norm/"):
        return variant.final_norm
    if rule.keras_path.startswith(NORM3_K):
        return variant.norm_follows(s, b)
    return "/offset_network" not in rule.keras_path or s in variant.deformable


def outputs(variant):
    """Pairs (Keras layer, timm module) whose outputs correspond, in the order they run."""
    table = TABLES[type(variant)]
    torch_of = {rule.keras_path.partition("/")[0]: rule.torch_name for rule in table}
    stages = torch_of[K].partition(".")[0]
    pairs = [("patch_embed", "patch_embed")]
    for s, depth in enumerate(variant.depths):
        if s:
            pairs.append((DOWN_K.format(s=s), f"{stages}.{s}.downsample"))
        for b in range(depth):
            follows = isinstance(variant, VariantV2CR) and variant.norm_follows(s, b)
            pairs.append(((NORM3_K if follows else K).format(s=s, b=b), f"{stages}.{s}.blocks.{b}"))
    return [*pairs, ("norm", "norm")] if "norm" in torch_of and variant.final_norm else pairs


def weights_of(model):
    """{path: variable} of what a checkpoint holds: all weights but the seeds of dropout."""
    return {v.path: v for v in model.variables if not v.path.endswith("seed_generator_state")}


def least_side(variant):
    """Smallest image side, in pixels, whose maps hold every stage's window whole."""
    return variant.patch_size * max((max(window) - 1) * 2**s + 1 for s, window in enumerate(variant.windows))


def assign(model, state, source="the checkpoint"):
    """Copy a state dict in today's timm names into a model, strictly on both sides.

    Args:
        model: a SwinTransformer.
        state: {torch name: array}.
        source: what the error calls the state dict.

    Raises:
        SwinsError: listing every variable without a tensor (-), every wrong shape or value that is not finite (!)
            and every tensor without a variable (+). The model is unchanged then.
    """
    table = expand(TABLES[type(model.variant)], model.variant)
    variables = weights_of(model)
    if set(table) != set(variables):
        raise RuntimeError(f"the rules do not cover the model: {sorted(set(table) ^ set(variables))}")
    values, problems = {}, []
    for path, variable in variables.items():
        name, order = table[path].torch_name, table[path].transform.to_keras
        if name not in state:
            problems.append(f"  - {path} {tuple(variable.shape)}: no tensor {name}")
            continue
        value = np.asarray(state[name])
        if value.dtype.kind != "f":
            problems.append(f"  ! {path}: {name} holds {value.dtype}, not floating-point numbers")
            continue
        with np.errstate(over="ignore"):
            value = value.astype("float32")
        if order and value.ndim == len(order):
            value = value.transpose(order)
        if value.shape != tuple(variable.shape):
            problems.append(f"  ! {path} {tuple(variable.shape)}: {name} gives {value.shape}")
        elif not np.isfinite(value).all():
            problems.append(
                f"  ! {path}: {name} has {np.size(value) - np.isfinite(value).sum()} values NaN or infinite"
            )
        values[path] = value
    used = {rule.torch_name for rule in table.values()}
    problems += [
        f"  + {name if name.isprintable() else repr(name)} {np.shape(value)}: not used by the model"
        for name, value in state.items()
        if name not in used
    ]
    if any(f"{TABLE} gives" in line for line in problems):
        least = least_side(model.variant)
        problems.append(
            f"  bias tables shrink with windows, which maps smaller than they clip: use {least} pixels or more"
            if model.variant.image_size != ANY and least > min(model.variant.image_size)
            else "  bias tables go with their windows: load them at theirs, then swins.resize(model, window_size=...)"
        )
    if problems:
        raise SwinsError("\n".join([f"{model.name}: {source} and the model differ", *problems]))
    for path, variable in variables.items():
        variable.assign(values[path])


def coordinates(model):
    """V2's relative coordinates under timm's names of that buffer: {torch name: (1, 2M-1, 2M'-1, 2)}; else empty."""
    if not isinstance(model.variant, VariantV2):
        return {}
    blocks = {s: model.get_layer(K.format(s=s, b=0)).attn for s in range(len(model.variant.depths))}
    return {
        f"{T.format(s=s, b=0)}.attn.relative_coords_table": attention.coordinates.reshape(
            1, *(2 * m - 1 for m in attention.window_size), 2
        )
        for s, attention in blocks.items()
    }


def state_dict(model):
    """The model's weights as a state dict in today's timm names: {torch name: array}, the inverse of `assign`.

    Low-rank adapters are merged into their kernels. Raises SwinsError for what tensors do not tell: quantized layers,
    another epsilon of a norm.
    """
    floats(model, "a state dict")
    if other := [path for path, told in changes(model, model.made).items() if "epsilon" in told]:
        raise SwinsError(
            f"a state dict holds tensors alone; {other[0]} has an epsilon of its own ({len(other)} in all)"
        )
    table = expand(TABLES[type(model.variant)], model.variant)
    state = {}
    for path, value in values(model).items():
        order = table[path].transform.to_torch
        state[table[path].torch_name] = np.ascontiguousarray(value.transpose(order) if order else value)
    return state
