"""The table of ResNets: which Keras variable is which tensor of torchvision's, whose names are timm's too.

{s} is a stage, counted from 1 as there, and {b} a block of it.
"""

import functools

from swins.resnet_plan import VariantResNet, plan_resnet
from swins.weights import dialects
from swins.weights.conversion_table import Rule, Table, batch_norm, dense

CONV = "oihw->hwio"
BLOCKS = "blocks"
STEM, HEAD = "conv1.weight", "fc"
BUFFERS = ("num_batches_tracked",)  # which PyTorch counts and torchvision's ResNets do not use
K, T = "layer{s}_{b}", "layer{s}.{b}"


def has_shortcut(variant, s, b):
    """Whether a block's shortcut has a convolution."""
    return b == 0


def has_head(variant):
    """Whether there is a classifier."""
    return variant.num_classes > 0


RESNET = (
    Rule("conv1/kernel", STEM, CONV),
    *batch_norm("bn1", "bn1"),
    *(Rule(f"{K}_conv{i}/kernel", f"{T}.conv{i}.weight", CONV, BLOCKS) for i in (1, 2, 3)),
    *(rule for i in (1, 2, 3) for rule in batch_norm(f"{K}_bn{i}", f"{T}.bn{i}", BLOCKS)),
    Rule(f"{K}_downsample_0/kernel", f"{T}.downsample.0.weight", CONV, BLOCKS, has_shortcut),
    *batch_norm(f"{K}_downsample_1", f"{T}.downsample.1", BLOCKS, has_shortcut),
    *dense("head", HEAD, where=has_head),
)


def leaves_out(name: str) -> bool:
    """Whether a ResNet leaves out a tensor: a counter, or what training keeps beside it."""
    return name.rpartition(".")[2] in BUFFERS or bool(dialects.COMPANY.match(name))


def left_out_of(variant: VariantResNet, name: str) -> bool:
    """Whether a VariantResNet's models leave out a tensor: where stages are cut, theirs and the classifier's too."""
    beyond = [f"layer{s + 1}." for s in range(variant.built, len(variant.depths))]
    return leaves_out(name) or (variant.cut and name.startswith((*beyond, f"{HEAD}.")))


@functools.lru_cache(maxsize=128)
def table_of(variant: VariantResNet) -> Table:
    """The Table of a VariantResNet's models."""
    stages = enumerate(plan_resnet(variant), 1)
    blocks = tuple({"s": s, "b": b} for s, plan in stages for b in range(plan.blocks))
    return Table(RESNET, {BLOCKS: blocks}, variant, functools.partial(left_out_of, variant))


def outputs(variant: VariantResNet) -> list:
    """Pairs (Keras layer, torchvision's module) whose outputs correspond, in the order they run."""
    places = table_of(variant).repetitions[BLOCKS]
    return [("maxpool", "maxpool"), *((K.format(**place), T.format(**place)) for place in places)]
