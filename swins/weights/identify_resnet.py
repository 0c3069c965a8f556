"""What a checkpoint of a ResNet is, from the names and shapes of its tensors."""

import re
from dataclasses import dataclass

import numpy as np

from swins.weights import identify, resnet_rules


@dataclass(frozen=True)
class ResNetIdentity:
    """The numbers of a ResNet; None where a file does not tell.

    width: channels of the first convolution; block: "bottleneck" or "basic"; kernel: (outputs, inputs) of the first
    3x3 convolution of a block, which ResNeXt and wide ResNets have other than width.
    """

    family: str
    block: str
    in_chans: int | None
    width: int | None
    kernel: tuple
    depths: tuple
    num_classes: int

    def __str__(self):
        return identify.in_words(self)


def shape_of(state, name, rank):
    """The shape of a tensor of this rank; Nones where there is none."""
    shape = np.shape(state.get(name))
    return shape if len(shape) == rank else (None,) * rank


def identify_resnet(checkpoint) -> ResNetIdentity:
    """The numbers of a Checkpoint."""
    state = checkpoint.state
    matches = [re.match(r"layer([1-9])\.(\d{1,3})\.", name) for name in state]
    blocks = {(int(match[1]), int(match[2])) for match in matches if match}
    stem = shape_of(state, resnet_rules.STEM, 4)
    bottleneck = any(re.match(r"layer\d\.\d{1,3}\.conv3\.", name) for name in state)
    return ResNetIdentity(
        family="ResNet",
        block="bottleneck" if bottleneck else "basic",
        in_chans=stem[1],
        width=stem[0],
        kernel=shape_of(state, "layer1.0.conv2.weight", 4)[:2],
        depths=tuple(
            1 + max((b for stage, b in blocks if stage == s), default=-1)
            for s in range(1, 1 + max((s for s, _ in blocks), default=0))
        ),
        num_classes=checkpoint.num_classes,
    )


def compare_resnets(checkpoint, variants) -> dict:
    """How a Checkpoint differs from each of {name: VariantResNet} -> {name: [difference, ...]}."""
    identity = identify_resnet(checkpoint)
    return {name: differences(identity, variant) for name, variant in variants.items()}


def differences(identity, variant) -> list:
    """How a file's numbers differ from a VariantResNet's -> ["width 32, not 64", ...]."""
    wanted = {
        "block": "bottleneck",
        "width": variant.width,
        "kernel": (variant.width, variant.width),
        "depths": variant.depths[: variant.built],
    }
    return [
        f"{name} {getattr(identity, name)}, not {value}"
        for name, value in wanted.items()
        if not identify.agrees(getattr(identity, name), value)
    ]
