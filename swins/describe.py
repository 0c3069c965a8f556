"""The stage table of a variant: what `plan_stages` or `plan_resnet` resolved, with parameters and multiply-adds."""

import math

from swins.checked_numbers import ANY
from swins.errors import SwinsError
from swins.plans import Variant, VariantV2, VariantV2CR, plan_stages
from swins.resnet_plan import VariantResNet, plan_resnet, resnet_costs


def block_cost(plan, variant):
    """(parameters, multiply-adds for one image) of one block; padded tokens are attended too."""
    c, hidden = plan.dim, int(plan.dim * variant.mlp_ratio)
    tokens = math.prod(plan.grid)
    padded = math.prod(math.ceil(side / m) * m for side, m in zip(plan.grid, plan.window_size, strict=True))
    offsets = math.prod(2 * m - 1 for m in plan.window_size)
    parameters, macs = POSITION[type(variant)](offsets, plan.num_heads, c, variant)
    parameters += 4 * c * c + c + 2 * c * hidden + hidden + c + 4 * c
    macs += padded * (4 * c * c + 2 * math.prod(plan.window_size) * c) + tokens * 2 * c * hidden
    return parameters, macs


POSITION = {  # (offsets, heads, channels) -> (parameters of position bias, qkv biases and scale; multiply-adds)
    Variant: lambda offsets, heads, c, _: (offsets * heads + 3 * c, 0),
    VariantV2: lambda offsets, heads, c, _: (512 * (3 + heads) + heads + 2 * c, offsets * 512 * (2 + heads)),
    VariantV2CR: lambda offsets, heads, c, v: (
        v.meta_dim * (3 + heads) + 2 * heads + 3 * c,
        offsets * v.meta_dim * (2 + heads),
    ),
}
MERGED_NORM = {Variant: 4, VariantV2: 2, VariantV2CR: 4}  # channels that merging normalises, over the stage's


def extra_cost(plan, variant):
    """(parameters, multiply-adds) of what only V2-CR's stages have: norms between blocks, networks of offsets."""
    if not isinstance(variant, VariantV2CR):
        return 0, 0
    c, heads, depth = plan.dim, plan.num_heads, len(plan.drop_path)
    parameters = sum(2 * c for b in range(depth) if variant.norm_follows(plan.index, b))
    if plan.index not in variant.deformable:
        return parameters, 0
    points = math.prod((side + 1) // 2 + 1 for side in plan.grid)
    return parameters + depth * (26 * c + 2 * heads * (c + 1)), depth * points * (25 * c + 2 * heads * c)


def require_size(variant):
    """Raise SwinsError if a variant takes images of any size."""
    if variant.image_size == ANY:
        raise SwinsError("costs grow with the image, so they need an image_size; got (None, None)")


def stage_costs(variant):
    """[(parameters, multiply-adds)] of each stage with its patch embedding or merging, then of norm and head.

    Only convolutions, linear layers and attention products count, so totals are up to 1% below profilers' that add
    norms and softmax.
    """
    require_size(variant)
    costs = []
    for plan in plan_stages(variant):
        tokens, c = math.prod(plan.grid), plan.dim
        if plan.index:
            entry = (2 * c * c + MERGED_NORM[type(variant)] * c, tokens * 2 * c * c)
        else:
            weights = variant.patch_size**2 * variant.in_chans * c
            entry = (weights + 3 * c, tokens * weights)
        parts = [entry, extra_cost(plan, variant), *[block_cost(plan, variant)] * len(plan.drop_path)]
        costs.append(tuple(sum(part) for part in zip(*parts, strict=True)))
    norm = 0 if isinstance(variant, VariantV2CR) or not variant.final_norm else 2 * plan.dim
    weights = plan.dim * variant.num_classes
    return [*costs, (norm + weights + variant.num_classes, weights)]


def describe(name, variant):
    """The stage table of a variant by name, as text."""
    is_resnet = isinstance(variant, VariantResNet)
    rows = resnet_rows(variant) if is_resnet else swin_rows(variant)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    image, patch = "x".join(map(str, variant.image_size)), "" if is_resnet else f"patch {variant.patch_size}, "
    return "\n".join(
        [f"{name}: {image} pixels, {variant.in_chans} channels, {patch}{variant.num_classes} classes", *lines]
    )


def resnet_rows(variant):
    """The rows of a ResNet: channels, stride, blocks, level and size of each stage's map, parameters, GMACs."""
    require_size(variant)
    *costs, head = resnet_costs(variant)
    stages = [("stem", variant.width, 2, "-", "-")]
    stages += [(plan.name, plan.channels, plan.stride, plan.blocks, plan.level) for plan in plan_resnet(variant)]
    rows = [("stage", "channels", "stride", "blocks", "level", "map", "parameters", "GMACs")]
    for stage, (size, parameters, macs) in zip(stages, costs, strict=True):
        rows.append((*map(str, stage), "x".join(map(str, size)), f"{parameters:,}", f"{macs / 1e9:.3f}"))
    totals = [sum(cost[i] for cost in (*costs, head)) for i in (1, 2)]
    for label, (parameters, macs) in (("head", head[1:]), ("all", totals)):
        rows.append((label, *"-" * 5, f"{parameters:,}", f"{macs / 1e9:.3f}"))
    return rows


def swin_rows(variant):
    """The rows of a Swin: tokens, window, shift, channels, heads, depth, drop-path, parameters, GMACs."""
    head = ("stage", "tokens", "window", "shift", "channels", "heads", "blocks", "drop-path", "parameters", "GMACs")
    rows = [head]
    costs = stage_costs(variant)
    for plan, (parameters, macs) in zip(plan_stages(variant), costs, strict=False):
        rows.append(
            (
                str(plan.index),
                "x".join(map(str, plan.grid)),
                "x".join(map(str, plan.window_size)),
                "x".join(map(str, plan.shift_size)),
                str(plan.dim),
                str(plan.num_heads),
                str(len(plan.drop_path)),
                f"{plan.drop_path[0]:.3f}-{plan.drop_path[-1]:.3f}",
                f"{parameters:,}",
                f"{macs / 1e9:.3f}",
            )
        )
    rows.append(("head", *"-" * 7, f"{costs[-1][0]:,}", f"{costs[-1][1] / 1e9:.3f}"))
    rows.append(("all", *"-" * 7, f"{sum(p for p, _ in costs):,}", f"{sum(m for _, m in costs) / 1e9:.3f}"))
    return rows
