"""What other programs call a network's tensors, one table of rules a dialect, and what today's timm calls them.

A dialect is a row of DIALECTS: a key that only its files have, renames in the order they apply, and steps where tensors
change too. Rules and steps that find nothing do nothing, so a row serves every version of its program. Nothing is lost:
what is not the network's keeps its program's name, and its table says what it takes (`networks.Network`).
"""

import re
from dataclasses import dataclass, replace

import numpy as np

from swins.errors import SwinsError

BUFFERS = (  # computed from sizes
    *("attn_mask", "relative_position_index", "relative_coords_table", "k_bias"),
    *("attention_mask", "relative_coordinates_log", "default_grid"),  # C. Reich's
)
PRETRAINING = ("mask_token", "embeddings.mask_token", "decoder.")  # of masked image modelling
UNUSED, STEM = "unused_norm", "stem_norm"
DENSE = (  # what sits on the backbone of a detector or segmenter
    *("neck.", "rpn_head.", "roi_head.", "bbox_head.", "mask_head.", "semantic_head.", "panoptic_head."),
    *("panoptic_fusion_head.", "query_head.", "decode_head.", "auxiliary_head.", "data_preprocessor."),
    "segmentation_head.",
)
COMPANY = re.compile(  # what training keeps beside a network in its state dict
    r"(?:.*\.)?n_averaged$|(?:\w*_)?(?:criterion|criterions|loss|losses|loss_fn|metric|metrics)\w*\.|(?:train|val|valid|test)_\w+\."
    r"|head\.(?:mlp|last_layer)\."  # DINO's projection
)
OUTPUT_NORMS = tuple(f"norm{level}." for level in range(10))  # a dense backbone's, one for each map that it gives
ELSEWHERE = "elsewhere."  # begins the names of what lies beside the Swin of a larger model


def put(state, name, value):
    """Add a tensor under a name that must be free."""
    if name in state:
        raise SwinsError(f"two tensors of the file are both {name!r} in timm's names; remove one")
    state[name] = value


def take(state, names):
    """Remove and return the named tensors if all are there and of one shape; else None, and nothing is removed."""
    shapes = {np.shape(state.get(name)) for name in names}
    if len(shapes) > 1 or shapes == {()}:
        return None
    return [state.pop(name) for name in names]


def stems(state, ending):
    """What comes before an ending, of every name that has it."""
    return [name.removesuffix(ending) for name in state if name.endswith(ending)]


def merge_at_start(state):
    """Today's timm merges patches at the start of a stage; who merges at the end has a downsample in stage 0."""
    if any(name.startswith("layers.0.downsample.") for name in state):
        for name in sorted((n for n in state if re.match(r"layers\.\d{1,3}\.downsample\.", n)), reverse=True):
            _, stage, rest = name.split(".", 2)
            put(state, f"layers.{int(stage) + 1}.{rest}", state.pop(name))


def join_qkv(state):
    """Separate query, key and value become one matrix, head-major as they are; V2's key has no bias."""
    for stem in stems(state, ".attn.q.weight"):
        if weights := take(state, [f"{stem}.attn.{part}.weight" for part in "qkv"]):
            put(state, f"{stem}.attn.qkv.weight", np.concatenate(weights))
        if biases := take(state, [f"{stem}.attn.{part}.bias" for part in "qkv"]):
            put(state, f"{stem}.attn.qkv.bias", np.concatenate(biases))
        elif biases := take(state, [f"{stem}.attn.{part}.bias" for part in "qv"]):
            put(state, f"{stem}.attn.q_bias", biases[0])
            put(state, f"{stem}.attn.v_bias", biases[1])


def split_bias(state):
    """torchvision's V2 has one bias for q, k and v, whose middle third it sets to 0 in every call."""
    for stem in stems(state, ".attn.cpb_mlp.0.weight"):
        bias = state.get(f"{stem}.attn.qkv.bias")
        if np.ndim(bias) == 1 and len(bias) % 3 == 0:
            q, _, v = np.split(state.pop(f"{stem}.attn.qkv.bias"), 3)
            put(state, f"{stem}.attn.q_bias", q)
            put(state, f"{stem}.attn.v_bias", v)


def undo_unfold(state):
    """Merging by unfold orders its 4C inputs as (c, row, column); timm as (column, row, c)."""
    for stem in stems(state, ".downsample.reduction.weight"):
        inputs = np.shape(state[f"{stem}.downsample.reduction.weight"])[-1:]
        if not inputs or inputs[0] % 4:
            continue
        order = np.arange(*inputs).reshape(-1, 2, 2).transpose(2, 1, 0).ravel()
        for part in ("reduction.weight", "norm.weight", "norm.bias"):
            value = state.get(f"{stem}.downsample.{part}")
            if np.shape(value)[-1:] == inputs:  # V2 normalises afterwards: 2C values, which stay
                state[f"{stem}.downsample.{part}"] = value[..., order]


def scale_of_tau(state):
    """V2-CR's temperature: attention is divided by tau, at least 0.01, or multiplied by exp(logit_scale)."""
    for stem in stems(state, ".attn.tau"):
        tau = np.maximum(state.pop(f"{stem}.attn.tau"), np.float32(0.01))
        put(state, f"{stem}.attn.logit_scale", np.log(1 / tau).reshape(-1))


def stages(state):
    """How many stages a Swin under timm's names has."""
    numbers = (re.match(r"(?:layers|stages)\.(\d{1,3})\.", name) for name in state)
    return 1 + max((int(number[1]) for number in numbers if number), default=-1)


def output_norms(state):
    """The norms of maps that a dense backbone gives, which are numbered by their stages -> {"norm0", ...}."""
    return {name.partition(".")[0] for name in state if name.startswith((*OUTPUT_NORMS, f"{STEM}."))}


def last_norm(state):
    """Who norms every map has, for the last, what is a classifier's final norm; one at that one's place is unused."""
    last, norms = f"norm{stages(state) - 1}", output_norms(state)
    for part in ("weight", "bias"):
        if norms and f"norm.{part}" in state:
            put(state, f"{UNUSED}.{part}", state.pop(f"norm.{part}"))
        if f"{last}.{part}" in state:
            put(state, f"norm.{part}", state.pop(f"{last}.{part}"))


@dataclass(frozen=True)
class Dialect:
    """How one program names a Swin, or another network.

    sign is a key that only its files have, and its group the prefix of their keys; renames are pairs of pattern and
    replacement, applied in order; steps are functions that change a state dict. program is what runs such files here:
    "timm", "torchvision", "transformers", or None where nothing does. size_rule is what it does about sizes that
    windows do not tile, dense_rule what it does as a backbone of a detector or segmenter, None of what has no windows.
    network is a row of `networks.NETWORKS`.
    """

    name: str
    sign: str
    renames: tuple = ()
    steps: tuple = ()
    program: str | None = None
    size_rule: str | None = "timm"
    dense_rule: str | None = "open_mmlab"
    network: str = "Swin"


POSITION = r"(?:relative_position_bias_table|cpb_mlp\.|logit_scale)"
TIMM_BLOCK = rf"layers\.\d+\.blocks\.\d+\.attn\.{POSITION}"
HEAD = (r"^head\.(weight|bias)$", r"head.fc.\1")

TIMM = Dialect("timm", rf"(){TIMM_BLOCK}", (HEAD,), program="timm")
MICROSOFT = replace(TIMM, name="microsoft or timm before 0.9", steps=(merge_at_start,))
MICROSOFT_DENSE = Dialect(
    "microsoft detector or segmenter",
    rf"(backbone\.){TIMM_BLOCK}",
    (),
    (merge_at_start, last_norm),
)
DIALECTS = (
    TIMM,  # or MICROSOFT, whose keys differ in the place of one layer
    Dialect(
        "timm V2-CR",
        r"()stages\.\d+\.blocks\.\d+\.attn\.(?:meta_mlp\.|tau$)",
        (HEAD,),
        (scale_of_tau,),
        program="timm",
    ),
    Dialect("SimMIM", rf"(encoder\.){TIMM_BLOCK}", (), (merge_at_start,)),
    MICROSOFT_DENSE,
    Dialect(
        "segmentation-models-pytorch",  # timm's features, whose stages it names by an underscore
        rf"(encoder\.model\.)layers_\d+\.blocks\.\d+\.attn\.{POSITION}",
        ((r"^layers_(\d+)\.", r"layers.\1."),),
        dense_rule="timm",
    ),
    Dialect(
        "torchvision",
        rf"()features\.\d+\.\d+\.attn\.{POSITION}",
        (
            (r"^features\.0\.0\.", "patch_embed.proj."),
            (r"^features\.0\.2\.", "patch_embed.norm."),
            (r"^features\.([1357])\.(?=\d)", lambda m: f"layers.{int(m[1]) // 2}.blocks."),
            (r"^features\.([246])\.(?=\D)", lambda m: f"layers.{int(m[1]) // 2}.downsample."),
            (r"\.mlp\.0\.", ".mlp.fc1."),
            (r"\.mlp\.3\.", ".mlp.fc2."),
            HEAD,
        ),
        (split_bias,),
        program="torchvision",
        size_rule="torchvision",
    ),
    Dialect(
        "Hugging Face",
        r"((?:[\w.]*?\.)??)(?:(?:swin|swinv2|model)\.)?encoder\.layers\.\d+\.blocks\.\d+\.attention\.",
        (
            (r"^(?:swin|swinv2|model)\.", ""),
            (r"^hidden_states_norms\.stage(\d)\.", lambda m: f"norm{int(m[1]) - 1}."),
            (r"^hidden_states_norms\.(\d)\.", r"norm\1."),  # MaskFormer's
            (r"^hidden_states_norms\.stem\.", f"{STEM}."),
            (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
            (r"^embeddings\.norm\.", "patch_embed.norm."),
            (r"^encoder\.layers\.", "layers."),
            (r"\.attention\.(?:self\.query|q_proj)\.", ".attn.q."),  # the second name is that of models in memory
            (r"\.attention\.(?:self\.key|k_proj)\.", ".attn.k."),
            (r"\.attention\.(?:self\.value|v_proj)\.", ".attn.v."),
            (r"\.attention\.(?:output\.dense|o_proj)\.", ".attn.proj."),
            (r"\.attention\.(?:self|relative_position_bias)\.", ".attn."),
            (r"\.continuous_position_bias_mlp\.", ".cpb_mlp."),
            (r"\.layernorm_before\.", ".norm1."),
            (r"\.layernorm_after\.", ".norm2."),
            (r"\.intermediate\.dense\.", ".mlp.fc1."),
            (r"\.output\.dense\.", ".mlp.fc2."),
            (r"^layernorm\.", "norm."),
            (r"^classifier\.", "head.fc."),
        ),
        (merge_at_start, join_qkv, last_norm),
        program="transformers",
        size_rule="huggingface",
    ),
    Dialect(
        "mmdet, mmseg or mmpretrain",
        r"(|backbone\.)stages\.\d+\.blocks\.\d+\.attn\.w_msa\.",
        (
            (r"^patch_embed\.projection\.", "patch_embed.proj."),
            (r"^stages\.", "layers."),
            (r"\.attn\.w_msa\.", ".attn."),
            (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
            (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
        ),
        (merge_at_start, undo_unfold, last_norm),
        size_rule="mmpretrain",
    ),
    Dialect(
        "C. Reich",
        r"()stages\.\d+\.blocks\.\d+\.window_attention\.",
        (
            (r"^patch_embedding\.linear_embedding\.", "patch_embed.proj."),
            (r"^patch_embedding\.normalization\.", "patch_embed.norm."),
            (r"\.downsample\.normalization\.", ".downsample.norm."),
            (r"\.downsample\.linear_mapping\.", ".downsample.reduction."),
            (r"\.window_attention\.mapping_qkv\.", ".attn.qkv."),
            (r"\.window_attention\.projection\.", ".attn.proj."),
            (r"\.window_attention\.meta_network\.0\.", ".attn.meta_mlp.fc1."),
            (r"\.window_attention\.meta_network\.2\.", ".attn.meta_mlp.fc2."),
            (r"\.window_attention\.", ".attn."),
            (r"\.normalization_(\d)\.", r".norm\1."),
            (r"\.feed_forward_network\.0\.", ".mlp.fc1."),
            (r"\.feed_forward_network\.3\.", ".mlp.fc2."),
            (r"^classification_head\.", "head.fc."),
        ),
        (undo_unfold, scale_of_tau),
    ),
    Dialect(
        "torchvision or timm ResNet",
        r"()layer1\.0\.conv\d\.weight$",
        program="torchvision",
        size_rule=None,
        dense_rule=None,
        network="ResNet",
    ),
)


def recognise(state):
    """The dialect of a state dict, by its keys, and the prefix of its names -> (Dialect, prefix).

    Raises:
        SwinsError: no network that is known, or more than one.
    """
    candidates = {
        (dialect, match[1]) for dialect in DIALECTS for name in state if (match := re.match(dialect.sign, name))
    }
    if not candidates:
        keys = ", ".join(sorted(state)[:3]) or "nothing"
        known = ", ".join((MICROSOFT.name, *(dialect.name for dialect in DIALECTS[1:])))
        raise SwinsError(
            f"a checkpoint has a Swin's windowed attention or a ResNet's blocks under the names of timm, {known}; this "
            f"one has {keys}, ...; pass a file of a Swin or a ResNet, or save its state_dict() under timm's names"
        )
    if len(candidates) > 1:
        names = sorted(f"{dialect.name}'s" + f" under {prefix!r}" * bool(prefix) for dialect, prefix in candidates)
        raise SwinsError(
            f"a checkpoint holds one network under one program's names; this one has {' and '.join(names)}; "
            "save one model's state_dict() alone"
        )
    dialect, prefix = candidates.pop()
    if dialect is TIMM and any(name.startswith("layers.0.downsample.") for name in state):
        dialect = MICROSOFT_DENSE if output_norms(state) else MICROSOFT
    return dialect, prefix


@dataclass(frozen=True)
class Translation:
    """A file's tensors, the Swin's in today's timm names, and what its own names tell.

    tensors holds all of them: what is no Swin's under its own name, or, beside a Swin inside a larger model of Hugging
    Face, under that after "elsewhere."; original the Swin's under its program's names, without the prefix; dense
    whether it is a detector's or segmenter's backbone; size_rule is what the program does about sizes, None for what
    has no windows; final_norm whether the last map is normalised.
    """

    tensors: dict
    original: dict
    dialect: Dialect
    prefix: str
    dense: bool
    size_rule: str | None
    final_norm: bool


def parts(state, dialect, prefix):
    """A Swin's tensors, without the prefix, and what lies beside it, each by name -> ({name: array}, {name: array})."""
    own, beside = {}, {}
    marker = ELSEWHERE if prefix and dialect.program == "transformers" else ""
    for name, value in state.items():
        if name.startswith(prefix) and (prefix or not name.startswith((*DENSE, *PRETRAINING))):
            put(own, name.removeprefix(prefix), value)
        else:
            beside[marker + name] = value
    return own, beside


def is_dense(own, beside, dialect):
    """Whether a Swin, under timm's names before any step, is a detector's or segmenter's backbone.

    mmpretrain's classifiers number the one norm that they have.
    """
    norms = output_norms(own)
    alone = dialect.size_rule == "mmpretrain" and norms == {f"norm{stages(own) - 1}"}
    return any(name.startswith(DENSE) for name in beside) or bool(norms and not alone)


def to_timm(state):
    """Translate {name: array} to today's timm -> Translation; arrays are those given, but where their numbers move.

    Raises:
        SwinsError: no Swin, or more than one.
    """
    dialect, prefix = recognise(state)
    original, beside = parts(state, dialect, prefix)
    tensors = {}
    for name, value in original.items():
        for pattern, replacement in dialect.renames:
            name = re.sub(pattern, replacement, name)
        put(tensors, name, value)
    dense = is_dense(tensors, beside, dialect)
    for step in dialect.steps:
        step(tensors)
    final_norm = "norm.weight" in tensors or not (dense or dialect.program == "transformers")
    for name, value in beside.items():
        put(tensors, name, value)
    return Translation(
        tensors=tensors,
        original=original,
        dialect=dialect,
        prefix=prefix,
        dense=dense,
        size_rule=dialect.dense_rule if dense else dialect.size_rule,
        final_norm=final_norm,
    )
