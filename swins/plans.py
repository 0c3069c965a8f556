"""What a model is made of: a Variant's numbers, checked, and the plan that resolves them for each stage."""

import math
from dataclasses import dataclass, field, fields, replace

from swins.checked_numbers import ANY, integers, pair, tuples
from swins.errors import SwinsError, unknown_name
from swins.renamed import renamed
from swins.size_rules import SIZE_RULES

RULES = tuple(name for name in SIZE_RULES if name != "huggingface_v2")  # which is V2's "huggingface"
EXTRA_NORMS = ("last", "stages", "none")


def per_stage(name, value, stages):
    """An integer, one per stage or one (vertical, horizontal) pair per stage -> a pair per stage."""
    entries = tuple(value) if isinstance(value, list | tuple) else (value,) * stages
    if len(entries) != stages:
        raise SwinsError(f"{name} must have one value or {stages}; got {len(entries)}: {value!r}")
    return tuple(integers(name, entry, 2) for entry in entries)


@dataclass(frozen=True)
class Variant:
    """The numbers that define a model.

    image_size is in pixels, an integer or (height, width), or (None, None) for a model that takes any size;
    patch_size in pixels; window_size in tokens, one integer, one per stage or one (height, width) pair per stage;
    embed_dim the channels of stage 0, doubled by each later stage; size_rule whose way of handling sizes that windows
    do not tile is followed: "timm", "microsoft" (classifiers), "torchvision", "huggingface" (classifiers), "mmpretrain"
    (classifiers) or "open_mmlab" (detectors and segmenters, Microsoft's and Hugging Face's backbones too); final_norm
    whether the last map is normalised.

    Of its fields, NAMED are what a variant's name stands for, whatever a file says; FREE what models of one variant
    differ in; ASKED what a Variant in place of a name asks for, whatever a file says.
    """

    NAMED = ("embed_dim", "depths", "num_heads")
    FREE = ("num_classes", "in_chans", "drop_rate", "drop_path_rate", "size_rule")
    ASKED = ("image_size", "in_chans")
    cut = False  # no stage can be left out

    embed_dim: int = 96
    depths: tuple = (2, 2, 6, 2)
    num_heads: tuple = (3, 6, 12, 24)
    window_size: int | tuple = 7
    image_size: int | tuple = 224
    patch_size: int = 4
    in_chans: int = 3
    num_classes: int = 1000
    mlp_ratio: float = 4.0
    size_rule: str = "timm"
    final_norm: bool = True
    drop_rate: float = 0.0
    drop_path_rate: float = 0.1

    def __post_init__(self):
        stages = len(self.depths)
        for name in ("depths", "num_heads"):
            object.__setattr__(self, name, integers(name, getattr(self, name), stages))
        object.__setattr__(self, "image_size", pair(self.image_size))
        object.__setattr__(self, "window_size", tuples(self.window_size))
        if self.size_rule not in RULES:
            raise unknown_name("size_rule", str(self.size_rule), RULES)
        if not isinstance(self.final_norm, bool):
            raise SwinsError(f"final_norm must be True or False; got {self.final_norm!r}")
        channels = tuple(self.embed_dim * 2**s for s in range(stages))
        sizes = (*self.depths, *self.num_heads, *sum(self.windows, ()), self.patch_size, self.embed_dim, self.in_chans)
        if not stages or min(sizes) < 1:
            raise SwinsError(
                f"depths, heads, windows, patch_size, embed_dim and in_chans must be at least 1; got {self}"
            )
        checks = {
            f"num_heads must divide the stages' channels; got {self.num_heads} and {channels}": any(
                c % heads for c, heads in zip(channels, self.num_heads, strict=True)
            ),
            f"image_size must hold at least one patch; got {self.image_size} pixels and patches of {self.patch_size}; "
            f"choose {self.patch_size} or more": self.image_size != ANY and min(self.image_size) < self.patch_size,
            f"num_classes must be at least 0 (0: pooled features); got {self.num_classes}": self.num_classes < 0,
            f"drop rates must be in [0, 1); got {self.drop_path_rate} and {self.drop_rate}": not (
                0 <= self.drop_path_rate < 1 and 0 <= self.drop_rate < 1
            ),
        }
        if any(checks.values()):
            raise SwinsError("; ".join(text for text, wrong in checks.items() if wrong))

    @property
    def rule(self):
        """The name in SIZE_RULES of what this family does under size_rule."""
        return self.size_rule

    @property
    def made_for(self):
        """(height, width) in pixels for which windows and shifts are decided."""
        return self.image_size

    @property
    def windows(self):
        """(vertical, horizontal) tokens of each stage's window."""
        return per_stage("window_size", self.window_size, len(self.depths))

    def opened(self, changes):
        """What else changes where a model is opened to any size: it keeps the windows of its own -> dict."""
        own = replace(self, **{**changes, "image_size": self.image_size})
        if SIZE_RULES[own.rule].decided == "made":
            return {"native_size": own.made_for}
        if "window_size" in changes:
            return {}
        clipped = SIZE_RULES[own.rule].small in ("clipped", "squared")
        return {"window_size": tuple(plan.window_size for plan in plan_stages(own)) if clipped else own.windows}

    def check_images(self, name, shape):
        """Raise SwinsError if images of this shape (B, height, width, channels) cannot go through a model."""
        size, wanted, patch = tuple(shape[1:3]), self.image_size, self.patch_size
        if len(shape) != 4 or size == ANY:
            return  # Keras says what it expects
        if wanted == ANY and any(side is not None and side < patch for side in size):
            raise SwinsError(f"{name}: images must hold at least one patch; got {size} pixels; use {patch} or more")
        if wanted == ANY and None not in size:
            plan_stages(replace(self, image_size=size))  # its rule may refuse them
        if wanted != ANY and any(side not in (None, fixed) for side, fixed in zip(size, wanted, strict=True)):
            raise SwinsError(
                f"{name} takes images of the {wanted} pixels it was built for; got {size}; resize them, or the model: "
                f"swins.resize(model, image_size={size}), or image_size=(None, None) for any size"
            )


@dataclass(frozen=True)
class VariantV2(Variant):
    """V2's numbers: V1's, and

    pretrained_windows, tokens of the windows that the weights were first trained with, per stage (0: these);
    native_size, pixels that the model was made for where its size rule is "huggingface", whose V2 decides windows and
    shifts then, for images of every size (0: image_size).
    """

    window_size: int | tuple = 8
    image_size: int | tuple = 256
    pretrained_windows: int | tuple = 0
    native_size: int | tuple = 0

    def __post_init__(self):
        object.__setattr__(self, "native_size", integers("native_size", self.native_size, 2))
        super().__post_init__()
        object.__setattr__(self, "pretrained_windows", tuples(self.pretrained_windows))
        if self.native_size != (0, 0) and self.size_rule != "huggingface":
            raise SwinsError(
                f"native_size is for size_rule huggingface; got {self.native_size} and {self.size_rule}; leave it out"
            )
        if self.native_size != (0, 0) and min(self.native_size) < self.patch_size:
            raise SwinsError(f"native_size must hold at least one patch of {self.patch_size}; got {self.native_size}")
        if min(sum(self.pretrained, ())) < 0:
            raise SwinsError(f"pretrained_windows must be at least 0 (0: the model's own); got {self.pretrained}")

    @property
    def rule(self):
        return "huggingface_v2" if self.size_rule == "huggingface" else self.size_rule

    @property
    def made_for(self):
        return self.image_size if self.native_size == (0, 0) else self.native_size

    @property
    def pretrained(self):
        """(vertical, horizontal) tokens of each stage's window in pretraining."""
        return per_stage("pretrained_windows", self.pretrained_windows, len(self.depths))


@dataclass(frozen=True)
class VariantV2CR(Variant):
    """V2-CR's numbers: V1's, with windows of 0 for the patch grid over 8, per axis, as timm sizes them, and
    meta_dim, hidden units of the position network;
    extra_norm, where a norm follows a block: the end of the "last" stage, of all "stages", or "none";
    extra_norm_period, blocks of a stage from one such norm to the next besides (0: none);
    deformable, the stages whose blocks are deformable.
    """

    window_size: int | tuple = 0
    drop_path_rate: float = 0.0
    meta_dim: int = 384
    extra_norm: str = "last"
    extra_norm_period: int = 0
    deformable: tuple = ()

    def __post_init__(self):
        object.__setattr__(self, "deformable", tuple(self.deformable))
        super().__post_init__()
        if self.extra_norm not in EXTRA_NORMS:
            raise unknown_name("extra_norm", self.extra_norm, EXTRA_NORMS)
        if not set(self.deformable) <= set(range(len(self.depths))):
            raise SwinsError(f"deformable must list stages from 0 to {len(self.depths) - 1}; got {self.deformable}")

    @property
    def windows(self):
        """(vertical, horizontal) tokens of each stage's window."""
        if self.window_size != 0:
            return super().windows
        if self.image_size == ANY:
            raise SwinsError("window_size must be given where image_size is open: 7 is that of 224 pixels, 12 of 384")
        return (tuple(max(1, side // self.patch_size // 8) for side in self.image_size),) * len(self.depths)

    def norm_follows(self, stage, block):
        """Whether a norm follows this block."""
        ends = {"last": (len(self.depths) - 1,), "stages": range(len(self.depths)), "none": ()}[self.extra_norm]
        periodic = self.extra_norm_period and (block + 1) % self.extra_norm_period == 0
        return bool(periodic) or (block == self.depths[stage] - 1 and stage in ends)


@dataclass(frozen=True)
class StagePlan:
    """One stage, resolved: grid, window and shift are (vertical, horizontal) tokens; one drop-path rate per block."""

    index: int
    dim: int
    num_heads: int
    grid: tuple
    window_size: tuple
    shift_size: tuple
    drop_path: tuple = field(repr=False)

    @property
    def shifts(self):
        """Shift of each block: plain blocks and shifted blocks alternate."""
        return tuple(self.shift_size if b % 2 else (0, 0) for b in range(len(self.drop_path)))


def patches(side, variant):
    """Tokens along a side of an image, by the variant's size rule; None of None."""
    if side is None:
        return None
    whole = SIZE_RULES[variant.rule].edge == "dropped"
    return side // variant.patch_size if whole else math.ceil(side / variant.patch_size)


def halved(side, variant):
    """Tokens along a side after merging; what is decided when a model is made, is so for sides rounded down."""
    if side is None:
        return None
    return side // 2 if SIZE_RULES[variant.rule].decided == "made" else math.ceil(side / 2)


def fitted(size, window, variant, stage):
    """The (window, shift) of a stage whose map has this size, as far as they are decided before the call.

    Raises:
        SwinsError: a map smaller than its window, where the size rule has no answer.
    """
    rule, half = SIZE_RULES[variant.rule], tuple(m // 2 for m in window)
    if rule.decided == "made":  # by heights alone
        m = min(size[0], window[0])
        return (m, m), (0, 0) if size[0] <= m else (half[0], half[0])
    if None in size:
        return window, half
    if rule.small == "refused" and any(side < m for side, m in zip(size, window, strict=True)):
        raise SwinsError(
            f'size_rule "{variant.size_rule}" has no answer for maps smaller than a window, as its program has none; '
            f"stage {stage} has a map of {size} and windows of {window} tokens; use larger images, or "
            'size_rule="torchvision", which pads such maps'
        )
    shift = rule.shift(tuple(int(side <= m) for side, m in zip(size, window, strict=True)), half)
    if rule.small == "clipped":
        return tuple(map(min, size, window)), shift
    return (min(*size, *window),) * 2 if rule.small == "squared" else window, shift


def plan_stages(variant):
    """Resolve a Variant into one StagePlan per stage, by the construction rule of its size_rule.

    timm's clips a window larger than the map, per axis, and does not shift an axis that one window covers. Others pad
    such maps up to their windows; so does timm's for an open size, whose grid is ANY and whose shift is the largest.
    Drop-path grows linearly over all blocks; merging halves a grid, rounding up.
    """
    total = sum(variant.depths)
    rates = [variant.drop_path_rate * i / max(total - 1, 1) for i in range(total)]
    grid = tuple(patches(side, variant) for side in variant.image_size)
    made = grid
    if SIZE_RULES[variant.rule].decided == "made":
        if variant.made_for == ANY:
            raise SwinsError('native_size must be given where image_size is open and size_rule is "huggingface"')
        made = tuple(side // variant.patch_size for side in variant.made_for)
    plans = []
    for s, (depth, heads, window) in enumerate(zip(variant.depths, variant.num_heads, variant.windows, strict=True)):
        if s:
            grid = tuple(side and math.ceil(side / 2) for side in grid)
            made = tuple(halved(side, variant) for side in made)
        window, shift = fitted(made, window, variant, s)
        plans.append(
            StagePlan(
                index=s,
                dim=variant.embed_dim * 2**s,
                num_heads=heads,
                grid=grid,
                window_size=window,
                shift_size=shift,
                drop_path=tuple(rates.pop(0) for _ in range(depth)),
            )
        )
    return tuple(plans)


def with_overrides(variant, overrides):
    """The variant with some fields replaced; None leaves a field as it is.

    A variant that is opened to any size keeps the windows that it has at its own size. Raises SwinsError for names that
    are no fields.
    """
    known = [f.name for f in fields(variant)]
    overrides = renamed(overrides)
    for name in overrides:
        if name not in known:
            raise unknown_name("model option", name, known)
    changes = {name: value for name, value in overrides.items() if value is not None}
    if variant.image_size != ANY and pair(changes.get("image_size", 0)) == ANY:
        changes |= variant.opened(changes)
    return replace(variant, **changes)


def kept_native_size(trained, changes):
    """The change of native_size that goes with others: what was decided when a model was made stays so."""
    if not isinstance(trained, VariantV2) or changes.get("native_size"):
        return {}
    if (changes.get("size_rule") or trained.size_rule) != "huggingface":
        return {"native_size": 0}
    return {"native_size": trained.made_for} if changes.get("image_size") and trained.made_for != ANY else {}


def remembering(variant, trained):
    """A V2 Variant whose stages with a new window record `trained`'s as that of pretraining, unless one is recorded."""
    windows = tuple(
        old.window_size if recorded == (0, 0) and old.window_size != new.window_size else recorded
        for recorded, old, new in zip(trained.pretrained, plan_stages(trained), plan_stages(variant), strict=True)
    )
    return variant if windows == trained.pretrained else replace(variant, pretrained_windows=windows)
