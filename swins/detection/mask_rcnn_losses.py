"""What a Mask R-CNN or a Cascade Mask R-CNN learns from: its losses by name, as mmdet has them.

Heads run on regions that are sampled here, of proposals that the network makes on the way. Which are sampled is decided
by random numbers that come with the batch, so that a run that goes on has the same ones, on every backend.

Letters: B images, A anchors of all maps, N proposals, S sampled regions of an image, P the first of them, which may be
an object's, G places for objects.
"""

from dataclasses import dataclass

import numpy as np
from keras import ops

from swins.detection.anchors import PER_CELL, usable_anchors
from swins.detection.assignment import CASCADE_RULES, REGION_RULE, sample_anchors, sample_regions
from swins.detection.mask_rcnn import CascadeMaskRCNN, MaskRCNN, usable
from swins.detection.mask_targets import mask_targets
from swins.detection.proposals import refine_regions
from swins.detection.region_losses import (
    CASCADE_BETA,
    STAGE_WEIGHTS,
    delta_errors,
    giou_errors,
    mask_loss,
    region_losses,
    rpn_losses,
)

ANCHOR_NUMBERS, REGION_NUMBERS = "anchor_numbers", "region_numbers"  # in a batch; of a stage, with its number


@dataclass(frozen=True)
class SamplingRule:
    """How much is looked at in training.

    candidates: boxes of a map that may become proposals; proposals: of an image; anchors: sampled of an image, of which
    at most anchor_share are an object's; regions, region_share: the same of proposals; sampling: points of RoIAlign
    along a side of a bin, 0 for as many as there are pixels.
    """

    candidates: int = 2000
    proposals: int = 1000
    anchors: int = 256
    anchor_share: float = 0.5
    regions: int = 512
    region_share: float = 0.25
    sampling: int = 0

    @property
    def anchor_most(self) -> int:
        """Anchors of an image that may be an object's."""
        return int(self.anchors * self.anchor_share)

    @property
    def region_most(self) -> int:
        """Regions of an image that may be an object's: P."""
        return int(self.regions * self.region_share)


def stage_name(name: str, network: MaskRCNN, stage: int) -> str:
    """What a stage's loss or numbers are called: "class" is "class_0" where there are several stages."""
    return f"{name}_{stage}" if len(network.stds) > 1 else name


@dataclass(frozen=True)
class RandomNumbers:
    """The numbers from 0 to 1 that decide what of an image is sampled: (canvas, generator) -> {name: (count,) float32}.

    strides: pixels from cell to cell of each map; counts: {name: how many} of regions that may be chosen.
    """

    strides: tuple
    counts: tuple

    def __call__(self, canvas: tuple[int, int], rng: np.random.Generator) -> dict[str, np.ndarray]:
        cells = sum(int(np.prod([-(-side // stride) for side in canvas])) for stride in self.strides)
        counts = {ANCHOR_NUMBERS: PER_CELL * cells, **dict(self.counts)}
        return {name: rng.random(count, np.float32) for name, count in counts.items()}


def random_numbers(network: MaskRCNN, rule: SamplingRule, objects: int) -> RandomNumbers:
    """The RandomNumbers that a network's losses need. objects: G, places for the objects of an image."""
    candidates = [rule.proposals, *[rule.regions] * (len(network.stds) - 1)]
    names = [stage_name(REGION_NUMBERS, network, stage) for stage in range(len(candidates))]
    counts = tuple((name, objects + count) for name, count in zip(names, candidates, strict=True))
    return RandomNumbers(network.strides, counts)


def proposal_losses(network: MaskRCNN, outputs: dict, truths: dict, rule: SamplingRule) -> dict:
    """The losses of a network's proposals -> {"rpn_class": scalar, "rpn_box": scalar}; arguments as below."""
    cascade = isinstance(network, CascadeMaskRCNN)
    table = ops.concatenate(network.anchors(outputs), 0)
    usable = usable_anchors(
        [ops.shape(x)[1:3] for x in outputs["maps"]],
        truths["sizes"],
        network.strides,
        multiple=network.multiple,
        border=0 if cascade else None,
    )
    numbers = truths[ANCHOR_NUMBERS]
    samples = sample_anchors(table, usable, truths, numbers, count=rule.anchors, most=rule.anchor_most)
    logits, deltas = (ops.concatenate(outputs[name], 1) for name in ("objectness", "deltas"))
    return rpn_losses(logits, deltas, table, samples, truths, CASCADE_BETA if cascade else 0.0)


def mask_rcnn_losses(
    network: MaskRCNN, outputs: dict, truths: dict, rule: SamplingRule = SamplingRule(), training: bool = False
) -> dict:
    """The losses of a batch, float32 -> {"rpn_class", "rpn_box", "class", "box", "mask": scalar}.

    Their sum is minimised. Of a cascade's stage n they are "class_n", "box_n" and "mask_n", times the stage's weight;
    without masks there is no "mask".
    Where several devices share a batch, each divides the losses of its part by what it has sampled.

    Args:
        network: whose outputs and heads these are.
        outputs: the network's, of images (B, H, W, C).
        truths: "boxes" (B, G, 4) xyxy in pixels of the images, "labels" (B, G) from 0, "valid" (B, G), "sizes" (B, 2)
            without padding, "masks" (B, G, H, W / 8) uint8 as `swins.detection.mask_bits` has them, if the network has
            mask heads, and the RandomNumbers; perhaps "weight" (B,), 0 for images that fill a batch up.
        rule: how much is sampled.
        training: whether batch norms of heads train.
    """
    cascade, weight, sizes = isinstance(network, CascadeMaskRCNN), truths.get("weight"), truths["sizes"]
    losses = proposal_losses(network, outputs, truths, rule)
    proposals = network.propose(outputs, sizes, candidates=rule.candidates, most=rule.proposals)
    boxes, usable_boxes = proposals["boxes"], usable(proposals)
    count = len(network.stds)
    for stage, stds in enumerate(network.stds):
        numbers = truths[stage_name(REGION_NUMBERS, network, stage)]
        assign_rule = CASCADE_RULES[stage] if cascade else REGION_RULE
        regions = sample_regions(
            boxes, usable_boxes, truths, numbers, assign_rule, count=rule.regions, most=rule.region_most
        )
        logits, deltas = network.classify(outputs, regions.boxes, stage, sampling=rule.sampling, training=training)
        errors = giou_errors if cascade else delta_errors
        parts = region_losses(logits, deltas, regions, stds, weight, errors)
        if network.mask_heads:
            own, owners = (part[:, : rule.region_most] for part in (regions.boxes, regions.owners))
            masks = network.segment(outputs, own, stage, sampling=rule.sampling)
            parts["mask"] = mask_loss(masks, mask_targets(truths["masks"], own, owners), regions, weight)
        share = STAGE_WEIGHTS[stage] if cascade else 1.0
        losses |= {stage_name(name, network, stage): share * value for name, value in parts.items()}
        if stage < count - 1:
            boxes, usable_boxes = refine_regions(regions, logits, deltas, sizes, stds)
    return losses
