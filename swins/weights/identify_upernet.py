"""What a checkpoint of a UPerNet is, from the names and shapes of its tensors."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from swins.weights import identify, upernet_rules


@dataclass(frozen=True)
class UPerNetIdentity:
    """The numbers of a UPerNet; None where a file does not tell.

    pools: in how many ways the coarsest map is averaged; width: channels of the decoder's maps; levels: maps of the
    pyramid; auxiliary: channels of the auxiliary head, None without one; backbone: its own identity.
    """

    kind: str
    num_classes: int | None
    width: int | None
    pools: int
    levels: int
    auxiliary: int | None
    in_chans: int | None
    backbone: object

    def __str__(self):
        words = identify.in_words(replace(self, backbone=None))
        return f"{words}; backbone: {self.backbone}"


def rows(tensors: Mapping, *names: str) -> int | None:
    """Rows of the first of these tensors that there is; None where there is none."""
    return next((np.shape(tensors[name])[0] for name in names if np.ndim(tensors.get(name))), None)


def count(tensors: Mapping, pattern: str) -> int:
    """How many parts a pattern, whose group is a part's number, finds among names."""
    return 1 + max((int(match[1]) for name in tensors if (match := re.match(pattern, name))), default=-1)


def identify_upernet(checkpoint) -> UPerNetIdentity:
    """The numbers of a Checkpoint."""
    tensors = checkpoint.tensors
    fused, auxiliary = "decode_head.fpn_bottleneck", f"{upernet_rules.AUXILIARY}convs.0"
    return UPerNetIdentity(
        kind="UPerNet",
        num_classes=rows(tensors, "decode_head.conv_seg.weight", "decode_head.conv_seg.bias"),
        width=rows(tensors, f"{fused}.conv.weight", f"{fused}.bn.weight"),
        pools=count(tensors, r"decode_head\.psp_modules\.(\d+)\."),
        levels=upernet_rules.laterals_of(tensors) + 1,
        auxiliary=rows(tensors, f"{auxiliary}.conv.weight", f"{auxiliary}.bn.weight"),
        in_chans=checkpoint.in_chans,
        backbone=identify.identify(checkpoint.backbone()),
    )


def compare_upernets(checkpoint, variants) -> dict:
    """How a Checkpoint differs from each of {name: UPerNetVariant} -> {name: [difference, ...]}."""
    identity = identify_upernet(checkpoint)
    backbones = identify.compare(checkpoint.backbone())
    return {name: differences(identity, row, backbones) for name, row in variants.items()}


def differences(identity: UPerNetIdentity, row, backbones: Mapping) -> list:
    """How a file's numbers differ from a UPerNetVariant's -> ["width 64, not 512", ...].

    backbones: {name of a variant: [difference of the file's backbone, ...]} of the backbone's network.
    """
    wanted = {"width": row.width, "pools": len(row.bins)}
    problems = [
        f"{name} {getattr(identity, name)}, not {value}"
        for name, value in wanted.items()
        if not identify.agrees(getattr(identity, name), value)
    ]
    unlike = backbones.get(row.backbone, [f"no {row.backbone}"])
    return problems + [f"backbone {text}" for text in unlike]
