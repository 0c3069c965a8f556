"""What a ResNet is made of: its numbers, checked, and the plan that resolves them for each stage."""

import math
from dataclasses import dataclass

from swins.checked_numbers import ANY, integers, natural, pair
from swins.errors import SwinsError

EXPANSION = 4  # channels of a block's map over those of its 3x3 convolution
STEM_LEVEL = 2  # the first convolution and the pool halve twice: P2


@dataclass(frozen=True)
class VariantResNet:
    """The numbers that define a ResNet of bottleneck blocks (arXiv:1512.03385, table 1).

    depths: blocks of each stage; strides: pixels of a stage's input to one of its map along each axis, 1 or 2; stages:
    how many are built, from the first, 0 for all; width: channels of the first convolution, and of stage 0's 3x3
    convolutions, doubled by each later stage; image_size in pixels, an integer or (height, width), or (None, None) for
    any size; in_chans: channels of the images; num_classes: logits, 0 for pooled features.
    """

    NAMED = ("width", "depths")  # as in swins.plans.Variant
    FREE = ("image_size", "in_chans", "num_classes")
    ASKED = ("image_size", "in_chans", "strides", "stages")

    depths: tuple = (3, 4, 6, 3)
    strides: tuple = (1, 2, 2, 2)
    stages: int = 0
    width: int = 64
    image_size: int | tuple = 224
    in_chans: int = 3
    num_classes: int = 1000

    def __post_init__(self):
        most = len(self.depths)
        for name in ("depths", "strides"):
            object.__setattr__(self, name, integers(name, getattr(self, name), most))
        for name in ("stages", "width", "in_chans", "num_classes"):
            object.__setattr__(self, name, natural(name, getattr(self, name)))
        object.__setattr__(self, "image_size", pair(self.image_size))
        checks = {
            f"depths must be of at least one stage, and depths, width and in_chans at least 1; got {self}": (
                not self.depths or min(*self.depths, self.width, self.in_chans) < 1
            ),
            f"strides must be 1 or 2; got {self.strides}": not set(self.strides) <= {1, 2},
            f"stages must be at most {most}, as many as depths; got {self.stages}; 0 is all": self.stages > most,
            f"image_size must hold at least one pixel; got {self.image_size}": (
                self.image_size != ANY and min(self.image_size) < 1
            ),
        }
        if any(checks.values()):
            raise SwinsError("; ".join(text for text, wrong in checks.items() if wrong))

    @property
    def built(self):
        """How many stages there are."""
        return self.stages or len(self.depths)

    @property
    def cut(self):
        """Whether stages are left out, for whose channels a file's classifier is."""
        return self.built < len(self.depths)

    @property
    def features(self):
        """Channels of the last map."""
        return EXPANSION * self.width * 2 ** (self.built - 1)

    def opened(self, changes):
        """What else changes where a model of one size is opened to any: nothing."""
        return {}

    def check_images(self, name, shape):
        """Raise SwinsError if images of this shape (B, height, width, channels) cannot go through a model."""
        size, wanted = tuple(shape[1:3]), self.image_size
        if len(shape) != 4 or ANY in (size, wanted):
            return  # Keras says what it expects
        if any(side not in (None, fixed) for side, fixed in zip(size, wanted, strict=True)):
            raise SwinsError(
                f"{name} takes images of the {wanted} pixels it was built for; got {size}; resize them, or make it "
                f"with image_size={size}, or image_size=(None, None) for any size"
            )


@dataclass(frozen=True)
class ResNetStage:
    """One stage, resolved.

    name: torchvision's; inputs, hidden and channels: those of its input, of its 3x3 convolutions, of its map; stride of
    its first block; level: its map's, "P3" at a stride of 2**3 pixels.
    """

    name: str
    blocks: int
    inputs: int
    hidden: int
    channels: int
    stride: int
    level: str


def plan_resnet(variant: VariantResNet) -> tuple:
    """Resolve a VariantResNet into one ResNetStage for each stage that is built."""
    plans, inputs = [], variant.width
    for s in range(variant.built):
        hidden = variant.width * 2**s
        plans.append(
            ResNetStage(
                name=f"layer{s + 1}",
                blocks=variant.depths[s],
                inputs=inputs,
                hidden=hidden,
                channels=EXPANSION * hidden,
                stride=variant.strides[s],
                level=f"P{STEM_LEVEL + variant.strides[: s + 1].count(2)}",
            )
        )
        inputs = EXPANSION * hidden
    return tuple(plans)


def halved(size, stride):
    """(height, width) of a map over a stride, rounded up."""
    return tuple(math.ceil(side / stride) for side in size)


def resnet_costs(variant: VariantResNet) -> list:
    """[(map (height, width), parameters, multiply-adds for one image)] of the stem, of each stage and of the head.

    Batch norms' scales and shifts count as parameters, and of multiply-adds only convolutions and the head.
    """
    size = halved(variant.image_size, 2)
    weights = 49 * variant.in_chans * variant.width
    costs = [(size, weights + 2 * variant.width, weights * math.prod(size))]
    size = halved(size, 2)
    for plan in plan_resnet(variant):
        before, size = math.prod(size), halved(size, plan.stride)
        places, parameters, macs = math.prod(size), 0, 0
        for b in range(plan.blocks):
            inputs = plan.channels if b else plan.inputs
            first, others = inputs * plan.hidden, 9 * plan.hidden**2 + plan.hidden * plan.channels
            others += 0 if b else inputs * plan.channels  # the shortcut's
            parameters += first + others + 4 * plan.hidden + (2 if b else 4) * plan.channels
            macs += first * (places if b else before) + others * places
        costs.append((size, parameters, macs))
    weights = variant.features * variant.num_classes
    return [*costs, ((1, 1), weights + variant.num_classes, weights)]
