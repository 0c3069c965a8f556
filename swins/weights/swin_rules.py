"""The tables of the family: which Keras variable of a Swin is which tensor of today's timm.

{s} is a stage and {b} a block of it.
"""

import functools
from dataclasses import replace

from swins.checked_numbers import ANY
from swins.plans import Variant, VariantV2, VariantV2CR
from swins.weights import conversion_table, dialects
from swins.weights.conversion_table import Rule, Table, dense, norm

CONV, LINEAR, DEPTHWISE = "oihw->hwio", "oi->io", "cmhw->hwcm"  # m: outputs of a channel
STAGES, BLOCKS = "stages", "blocks"


def begins_merging(variant, s):
    """Whether a stage begins with patch merging."""
    return s > 0


def has_head(variant):
    """Whether there is a classifier."""
    return variant.num_classes > 0


def has_final_norm(variant):
    """Whether the last map is normalised."""
    return variant.final_norm


def has_norm3(variant, s, b):
    """Whether V2-CR's extra norm follows a block."""
    return variant.norm_follows(s, b)


def has_offsets(variant, s, b):
    """Whether a block samples its input at learned offsets."""
    return s in variant.deformable


K, T = "stages_{s}_blocks_{b}", "layers.{s}.blocks.{b}"
DOWN_K, DOWN_T = "stages_{s}_downsample", "layers.{s}.downsample"
TABLE = "relative_position_bias_table"

V1 = (
    Rule("patch_embed/proj/kernel", "patch_embed.proj.weight", CONV),
    Rule("patch_embed/proj/bias", "patch_embed.proj.bias"),
    *norm("patch_embed/norm", "patch_embed.norm"),
    *norm(f"{DOWN_K}/norm", f"{DOWN_T}.norm", STAGES, begins_merging),
    Rule(f"{DOWN_K}/reduction/kernel", f"{DOWN_T}.reduction.weight", LINEAR, STAGES, begins_merging),
    *norm(f"{K}/norm1", f"{T}.norm1", BLOCKS),
    Rule(f"{K}/attn/{TABLE}", f"{T}.attn.{TABLE}", over=BLOCKS),
    *dense(f"{K}/attn/qkv", f"{T}.attn.qkv", BLOCKS),
    *dense(f"{K}/attn/proj", f"{T}.attn.proj", BLOCKS),
    *norm(f"{K}/norm2", f"{T}.norm2", BLOCKS),
    *dense(f"{K}/mlp/fc1", f"{T}.mlp.fc1", BLOCKS),
    *dense(f"{K}/mlp/fc2", f"{T}.mlp.fc2", BLOCKS),
    *norm("norm", "norm", where=has_final_norm),
    *dense("head", "head.fc", where=has_head),
)

V2 = (
    *(rule for rule in V1 if "/attn/qkv" not in rule.keras_path and TABLE not in rule.keras_path),
    Rule(f"{K}/attn/qkv/kernel", f"{T}.attn.qkv.weight", LINEAR, BLOCKS),
    Rule(f"{K}/attn/q_bias", f"{T}.attn.q_bias", over=BLOCKS),
    Rule(f"{K}/attn/v_bias", f"{T}.attn.v_bias", over=BLOCKS),
    Rule(f"{K}/attn/logit_scale", f"{T}.attn.logit_scale", over=BLOCKS),
    *dense(f"{K}/attn/cpb_mlp_0", f"{T}.attn.cpb_mlp.0", BLOCKS),
    Rule(f"{K}/attn/cpb_mlp_2/kernel", f"{T}.attn.cpb_mlp.2.weight", LINEAR, BLOCKS),
)

CR_T = "stages.{s}.blocks.{b}"
V2_CR = (
    *(
        replace(rule, torch_name=rule.torch_name.replace("layers.", "stages."))
        for rule in V1
        if not rule.keras_path.startswith("norm/") and TABLE not in rule.keras_path
    ),
    Rule(f"{K}/attn/logit_scale", f"{CR_T}.attn.logit_scale", over=BLOCKS),
    *dense(f"{K}/attn/meta_mlp_fc1", f"{CR_T}.attn.meta_mlp.fc1", BLOCKS),
    *dense(f"{K}/attn/meta_mlp_fc2", f"{CR_T}.attn.meta_mlp.fc2", BLOCKS),
    *norm(f"{K}_norm3", f"{CR_T}.norm3", BLOCKS, has_norm3),
    Rule(f"{K}/offset_network_0/kernel", f"{CR_T}.offset_network.0.weight", DEPTHWISE, BLOCKS, has_offsets),
    Rule(f"{K}/offset_network_0/bias", f"{CR_T}.offset_network.0.bias", "", BLOCKS, has_offsets),
    Rule(f"{K}/offset_network_2/kernel", f"{CR_T}.offset_network.2.weight", CONV, BLOCKS, has_offsets),
    Rule(f"{K}/offset_network_2/bias", f"{CR_T}.offset_network.2.bias", "", BLOCKS, has_offsets),
)
BESIDE = (  # what is no Swin's, and norms that are not its last
    *(*dialects.DENSE, *dialects.PRETRAINING, *dialects.OUTPUT_NORMS),
    *(f"{dialects.UNUSED}.", f"{dialects.STEM}.", dialects.ELSEWHERE),
)
PAPERS = {Variant: V1, VariantV2: V2, VariantV2CR: V2_CR}


def places(variant) -> dict:
    """The repetitions of a Swin: its stages, and its blocks by stage."""
    stages = range(len(variant.depths))
    return {
        STAGES: tuple({"s": s} for s in stages),
        BLOCKS: tuple({"s": s, "b": b} for s in stages for b in range(variant.depths[s])),
    }


def leaves_out(name: str) -> bool:
    """Whether a Swin leaves out a tensor: a buffer, or what lies beside it. Whatever else it does not take is wrong."""
    beside = name.startswith(BESIDE) or dialects.COMPANY.match(name)
    return name.rpartition(".")[2] in dialects.BUFFERS or bool(beside)


@functools.lru_cache(maxsize=128)
def table_of(variant: Variant) -> Table:
    """The Table of a Variant's models."""
    advice = functools.partial(window_advice, variant)
    return Table(PAPERS[type(variant)], places(variant), variant, leaves_out, advice)


def least_side(variant):
    """Smallest image side, in pixels, whose maps hold every stage's window whole."""
    return variant.patch_size * max((max(window) - 1) * 2**s + 1 for s, window in enumerate(variant.windows))


def window_advice(variant, problems):
    """What to do about bias tables of other windows, if these are among the problems."""
    if not any(f"{TABLE} gives" in line for line in problems):
        return []
    least = least_side(variant)
    if variant.image_size != ANY and least > min(variant.image_size):
        return [f"  bias tables shrink with windows, which maps smaller than they clip: use {least} pixels or more"]
    return ["  bias tables go with their windows: load them at theirs, then swins.resize(model, window_size=...)"]


def outputs(variant):
    """Pairs (Keras layer, timm module) whose outputs correspond, in the order they run."""
    is_cr = isinstance(variant, VariantV2CR)
    block_t, down_t = (name.replace("layers", "stages") if is_cr else name for name in (T, DOWN_T))
    pairs = [("patch_embed", "patch_embed")]
    for s, depth in enumerate(variant.depths):
        if begins_merging(variant, s):
            pairs.append((DOWN_K.format(s=s), down_t.format(s=s)))
        for b in range(depth):
            block_k = f"{K}_norm3" if is_cr and has_norm3(variant, s, b) else K
            pairs.append((block_k.format(s=s, b=b), block_t.format(s=s, b=b)))
    return pairs if is_cr or not has_final_norm(variant) else [*pairs, ("norm", "norm")]


def assign(model, state, table=None, source="the checkpoint") -> None:
    """Copy a state dict in today's timm names into a Swin, strictly on both sides.

    Args:
        model: a SwinTransformer; with a table, any model.
        state: {torch name: array}.
        table: a Table; that of the Swin's Variant by default.
        source: what the error calls the state dict.

    Raises:
        SwinsError: listing every variable without a tensor (-), every wrong shape or value that is not finite (!)
            and every tensor without a variable (+). The model is unchanged then.
    """
    conversion_table.assign(model, state, table or table_of(model.variant), source)


def state_dict(model, table=None) -> dict:
    """The model's weights as a state dict in today's timm names: {torch name: array}, the inverse of `assign`.

    Low-rank adapters are merged into their kernels. Raises SwinsError for what tensors do not tell: quantized layers,
    another epsilon of a norm.
    """
    return conversion_table.state_dict(model, table or table_of(model.variant))


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
