"""What a checkpoint is, from the names and shapes of its tensors: its numbers, and the variants that have them."""

import math
import re
from dataclasses import asdict, dataclass

import numpy as np

from swins.checked_numbers import pair
from swins.detector_configs import DETECTORS
from swins.errors import SwinsError
from swins.model_configs import VARIANTS
from swins.plans import per_stage, plan_stages
from swins.segmenter_configs import SEGMENTERS
from swins.weights import conversion_table, swin_rules

FAMILIES = {"V1": "relative_position_bias_table", "V2": "cpb_mlp", "V2-CR": "meta_mlp"}  # and what only it has
OPTIONAL = re.compile(r"\.(?:norm3|offset_network)\.")  # parts of V2-CR that some of its variants have


@dataclass(frozen=True)
class Identity:
    """The numbers of a Swin, with windows and pretrained windows per stage; None where a file does not tell."""

    family: str | None
    patch_size: int | None
    in_chans: int | None
    embed_dim: int | None
    depths: tuple
    num_heads: tuple
    windows: tuple
    pretrained_windows: tuple
    num_classes: int

    def __str__(self):
        return in_words(self)


def in_words(identity):
    """The numbers of a frozen dataclass in a line; those that a file does not tell are left out."""

    def text(value):
        parts = value if isinstance(value, tuple) else (value,)
        return " ".join("?" if part is None else str(part) for part in parts)

    numbers = {name: text(value) for name, value in asdict(identity).items() if set(text(value)) - set("? ")}
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in numbers.items())


def side(count):
    """The side of a square of `count`; None if it is none."""
    root = math.isqrt(count)
    return root if root**2 == count else None


def window_of_offsets(count):
    """Tokens of a window side that has `count` offsets, from 1 - M to M - 1; None of None."""
    return count and count // 2 + 1


def trained_window(table):
    """The window whose offsets V2's coordinates (1, 2M-1, 2M'-1, 2) divide by -> (vertical, horizontal) tokens.

    Offset 1 has the coordinate log(1 + 8 / (P - 1)) / log(8) for a pretrained window of P. None along an axis of one
    token, or where the table is none.
    """
    if np.ndim(table) != 4 or np.shape(table)[3] != 2 or 0 in np.shape(table) or 0 in np.mod(np.shape(table)[1:3], 2):
        return None, None
    m, n = (count // 2 for count in np.shape(table)[1:3])
    ones = (float(table[0, m + 1, n, 0]) if m else 0.0), (float(table[0, m, n + 1, 1]) if n else 0.0)
    return tuple(round(1 + 8 / (8**one - 1)) if 1e-3 < one < 10 else None for one in ones)


WINDOWS = {  # the window's side in tokens, from the shape of a tensor that depends on it
    "relative_position_bias_table": lambda shape: window_of_offsets(side(shape[0])),
    "relative_coords_table": lambda shape: window_of_offsets(shape[1]) if len(shape) == 4 else None,
    "relative_position_index": lambda shape: side(shape[0]) if len(shape) == 2 else side(math.isqrt(shape[0])),
    "relative_coordinates_log": lambda shape: side(math.isqrt(shape[0])),
    "attn_mask": lambda shape: side(shape[-1]),
    "attention_mask": lambda shape: side(shape[-1]),
}


def stated(checkpoint, stages):
    """Windows and pretrained windows, in tokens, per stage, that a file states beside its tensors; None where not.

    A window is no larger than the map, if the image's size is stated too.
    """
    numbers, nothing = checkpoint.facts.numbers, (None,) * stages
    if "window_size" not in numbers or not stages:
        return nothing, nothing
    sizes = (pair(numbers.get(name) or 0) for name in ("native_size", "image_size"))
    side = next((size[0] for size in sizes if size[0]), None)
    windows = [window[0] for window in per_stage("window_size", numbers["window_size"], stages)]
    if side and numbers.get("patch_size"):
        grid = side // numbers["patch_size"]
        windows = [min(window, math.ceil(grid / 2**s)) for s, window in enumerate(windows)]
    pretrained = per_stage("pretrained_windows", numbers.get("pretrained_windows", 0), stages)
    return tuple(windows), tuple(p[0] or window for p, window in zip(pretrained, windows, strict=True))


def identify(checkpoint):
    """The numbers of a Checkpoint -> Identity, or what its Network has."""
    return checkpoint.network.identify(checkpoint)


def identify_swin(checkpoint):
    """The numbers of a Swin's Checkpoint -> Identity."""
    state, everything = checkpoint.state, checkpoint.tensors
    matches = [re.match(r"(?:layers|stages)\.(\d{1,3})\.blocks\.(\d{1,3})\.", name) for name in state]
    blocks = {(int(match[1]), int(match[2])) for match in matches if match}
    stages = range(max((s for s, _ in blocks), default=-1) + 1)
    kernel = np.shape(state.get("patch_embed.proj.weight"))
    kernel = kernel if len(kernel) == 4 else (None,) * 4

    def first(s, part, answer):
        """The first answer that a tensor of stage s with this last name gives."""
        pattern = re.compile(rf"(?:layers|stages)\.{s}\.blocks\.\d+\.(?:attn\.)?{part}$")
        values = (value for name, value in everything.items() if pattern.match(name) and np.ndim(value))
        return next((answer(value) for value in values), None)

    def heads(s):
        columns = first(s, "relative_position_bias_table", lambda table: table.shape[-1])
        return columns or first(s, "logit_scale", lambda scale: scale.shape[0])

    def window(s):
        answers = (first(s, part, lambda value, size=size: size(value.shape)) for part, size in WINDOWS.items())
        return next((answer for answer in answers if answer), None)

    def pretrained(s):
        return first(s, "relative_coords_table", lambda table: trained_window(table)[0])

    windows, pretrained_windows = stated(checkpoint, len(stages))
    return Identity(
        family=next((f for f, part in FAMILIES.items() if any(part in name for name in state)), None),
        patch_size=kernel[2],
        in_chans=kernel[1],
        embed_dim=kernel[0],
        depths=tuple(1 + max((b for stage, b in blocks if stage == s), default=-1) for s in stages),
        num_heads=tuple(heads(s) for s in stages),
        windows=tuple(window(s) or windows[s] for s in stages),
        pretrained_windows=tuple(pretrained(s) or pretrained_windows[s] for s in stages),
        num_classes=checkpoint.num_classes,
    )


def agrees(number, wanted):
    """Whether what a file tells is what is wanted, part by part; None tells nothing."""
    if isinstance(wanted, tuple):
        silent = bool(number) and all(part is None for part in number)
        return silent or (len(number) == len(wanted) and all(map(agrees, number, wanted)))
    return number in (None, wanted)


def differences(identity, optional, variant):
    """How a file's numbers and optional parts differ from a Variant's -> ["embed dim 24, not 96", ...]."""
    names = swin_rules.table_of(variant).torch_names
    windows = tuple(plan.window_size[0] for plan in plan_stages(variant))
    pretrained = tuple(p[0] for p in getattr(variant, "pretrained", ((0, 0),) * len(windows)))
    wanted = {
        "family": next(f for f, part in FAMILIES.items() if any(part in name for name in names)),
        "patch_size": variant.patch_size,
        "embed_dim": variant.embed_dim,
        "depths": variant.depths,
        "num_heads": variant.num_heads,
        "windows": windows,
        "pretrained_windows": tuple(p or m for p, m in zip(pretrained, windows, strict=True)),
    }
    numbers = asdict(identity)
    problems = [
        f"{name.replace('_', ' ')} {numbers[name]}, not {value}"
        for name, value in wanted.items()
        if not agrees(numbers[name], value)
    ]
    if optional != {name for name in names if OPTIONAL.search(name)}:
        problems.append("other extra norms or offset networks")
    return problems


def compare_swins(checkpoint, variants):
    """How a Swin's Checkpoint differs from each of {name: Variant} -> {name: [difference, ...]}."""
    identity = identify_swin(checkpoint)
    optional = {name for name in checkpoint.state if OPTIONAL.search(name)}
    return {name: differences(identity, optional, variant) for name, variant in variants.items()}


def compare(checkpoint):
    """Every variant of a Checkpoint's network and how it differs from it -> {name: [difference, ...]}."""
    network = checkpoint.network
    everything = {**VARIANTS, **DETECTORS, **SEGMENTERS}
    alike = {name: variant for name, variant in everything.items() if isinstance(variant, network.numbers)}
    return network.compare(checkpoint, alike)


def fitting(checkpoint):
    """Names of the variants whose numbers a Checkpoint has."""
    return [name for name, problems in compare(checkpoint).items() if not problems]


def closest(checkpoint):
    """The variant with the fewest differences -> (name, [difference, ...])."""
    return min(compare(checkpoint).items(), key=lambda item: len(item[1]))


def the_variant(checkpoint):
    """The one variant that a Checkpoint fits.

    Raises:
        SwinsError: if there is none, or several that the file does not tell apart.
    """
    names = fitting(checkpoint)
    if len(names) == 1:
        return names[0]
    if names:
        raise SwinsError(
            f"{checkpoint.path}: without -m a file must fit one variant; this one fits {', '.join(names)}, which "
            "differ in what it does not hold; choose with -m, in Python by name with weights=FILE"
        )
    name, problems = closest(checkpoint)
    raise SwinsError(
        f"{checkpoint.path}: fits no variant of `swins list`: {identify(checkpoint)}; "
        f"the closest is {name}, from which it differs in {'; '.join(problems)}"
    )


def hint(checkpoint, name):
    """The first line of an error about loading a Checkpoint into variant `name`: what it fits; "" if that one."""
    names = fitting(checkpoint)
    if not names or name in names:
        return ""
    fits, first = " or ".join(names), names[0]
    return f"this checkpoint fits {fits}; name that variant: -m {first}, or --set model.name={first} of `swins train`\n"


def explained(error, checkpoint, name) -> str:
    """An error about loading a Checkpoint into variant `name`, with what it fits before and what was chosen after."""
    fits = hint(checkpoint, name)
    differences = conversion_table.first_lines(error) if fits else str(error)
    return "\n".join(filter(None, (fits + differences, checkpoint.choice)))
