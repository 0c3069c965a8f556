"""What a checkpoint of a Mask R-CNN is, from the names and shapes of its tensors."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from swins.weights import identify

BOX_HEAD = re.compile(r"roi_head\.bbox_head\.(?:(\d)\.)?fc_cls\.weight")
NEEDED = ("neck.lateral_convs.0.conv.weight", "rpn_head.rpn_cls.weight")


@dataclass(frozen=True)
class RCNNIdentity:
    """The numbers of a Mask R-CNN; None where a file does not tell.

    kind: "Mask R-CNN", "Cascade Mask R-CNN", or without masks "Faster R-CNN", "Cascade R-CNN"; num_classes: of the box
    head, without background; mask_classes: of the mask head; box_convolutions, box_layers: of a box head before its
    outputs; width: channels of the pyramid; hidden: units of the box head; backbone: its own identity.
    """

    kind: str
    num_classes: int | None
    mask_classes: int | None
    stages: int
    box_convolutions: int
    box_layers: int
    width: int | None
    hidden: int | None
    levels: int
    in_chans: int | None
    backbone: object

    def __str__(self):
        words = identify.in_words(replace(self, backbone=None))
        return f"{words}; backbone: {self.backbone}"


def holds_detector(tensors: Mapping) -> bool:
    """Whether tensors are of a whole detector of two stages: a pyramid, proposals, and box heads."""
    return all(name in tensors for name in NEEDED) and any(map(BOX_HEAD.fullmatch, tensors))


def rows(tensors: Mapping, name: str) -> int | None:
    """Rows of a tensor; None where there is none."""
    return next(iter(np.shape(tensors.get(name))), None)


def count(tensors: Mapping, pattern: str) -> int:
    """How many tensors have a name of this pattern."""
    return sum(bool(re.fullmatch(pattern, name)) for name in tensors)


def kind_name(stages: int, masks: bool) -> str:
    """What people call it: "Cascade Mask R-CNN"."""
    return f"{'Cascade ' * (stages > 1)}{'Mask ' if masks else '' if stages > 1 else 'Faster '}R-CNN"


def identify_rcnn(checkpoint) -> RCNNIdentity:
    """The numbers of a Checkpoint."""
    tensors = checkpoint.tensors
    matches = [match for name in tensors if (match := BOX_HEAD.fullmatch(name))]
    stages = len(matches)
    head, mask = "roi_head.bbox_head", "roi_head.mask_head"
    if matches and matches[0][1] is not None:
        head, mask = f"{head}.0", f"{mask}.0"
    logits = rows(tensors, f"{head}.fc_cls.weight")
    inside = re.escape(head)
    return RCNNIdentity(
        kind=kind_name(stages, any(name.startswith("roi_head.mask_head.") for name in tensors)),
        num_classes=logits and logits - 1,
        mask_classes=rows(tensors, f"{mask}.conv_logits.weight"),
        stages=stages,
        box_convolutions=count(tensors, rf"{inside}\.shared_convs\.\d\.conv\.weight"),
        box_layers=count(tensors, rf"{inside}\.shared_fcs\.\d\.weight"),
        width=rows(tensors, NEEDED[0]),
        hidden=rows(tensors, f"{head}.shared_fcs.0.weight"),
        levels=count(tensors, r"neck\.lateral_convs\.\d\.conv\.weight"),
        in_chans=checkpoint.in_chans,
        backbone=identify.identify(checkpoint.backbone()),
    )


def wanted(row, identity: RCNNIdentity) -> dict:
    """What an RCNNVariant's files have: {field of RCNNIdentity: value}. One without masks fits a row with them too."""
    return {
        "kind": kind_name(3 if row.cascade else 1, row.masks and identity.mask_classes is not None),
        "box_convolutions": 4 if row.cascade else 0,
        "box_layers": 1 if row.cascade else 2,
        "width": row.width,
        "hidden": row.hidden,
    }


def compare_rcnns(checkpoint, variants) -> dict:
    """How a Checkpoint differs from each of {name: RCNNVariant} -> {name: [difference, ...]}."""
    identity = identify_rcnn(checkpoint)
    backbones = identify.compare(checkpoint.backbone())
    return {name: differences(identity, row, backbones) for name, row in variants.items()}


def differences(identity: RCNNIdentity, row, backbones: Mapping) -> list:
    """How a file's numbers differ from an RCNNVariant's -> ["kind Mask R-CNN, not Cascade Mask R-CNN", ...].

    backbones: {name of a variant: [difference of the file's backbone, ...]} of the backbone's network.
    """
    problems = [
        f"{name.replace('_', ' ')} {getattr(identity, name)}, not {value}"
        for name, value in wanted(row, identity).items()
        if not identify.agrees(getattr(identity, name), value)
    ]
    unlike = backbones.get(row.backbone, [f"no {row.backbone}"])
    return problems + [f"backbone {text}" for text in unlike]
