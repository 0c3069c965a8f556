"""The kinds of networks whose weights are read and written, a row each."""

from collections.abc import Callable
from dataclasses import dataclass

from swins.detector_configs import RCNNVariant
from swins.plans import Variant
from swins.resnet_plan import VariantResNet
from swins.segmenter_configs import UPerNetVariant
from swins.weights import (
    conversion_table,
    dialects,
    identify,
    identify_rcnn,
    identify_resnet,
    identify_upernet,
    rcnn_rules,
    resnet_rules,
    swin_rules,
    upernet_rules,
)
from swins.weights.conversion_table import Table


@dataclass(frozen=True)
class Network:
    """What is known of a kind of network, in the names that its tables have.

    name: as errors say it; numbers: the class of its variants; stem: the tensor of its first kernel; head: the module
    of its classifier; buffers: last words of tensors that are computed.
    table: variant -> Table; of a detector or segmenter, paths of its variables -> Table.
    leaves_out: (tensor's name) -> whether it is none of the network's, or a buffer.
    identify: Checkpoint -> its numbers, a frozen dataclass with "num_classes" and "in_chans", whose text is for people.
    compare: (Checkpoint, {name: variant}) -> {name: [difference, ...]}; no difference: it fits.
    """

    name: str
    numbers: type
    stem: str
    head: str
    buffers: tuple
    table: Callable
    leaves_out: Callable
    identify: Callable
    compare: Callable


SWIN = Network(
    name="Swin",
    numbers=Variant,
    stem="patch_embed.proj.weight",
    head="head.fc",
    buffers=dialects.BUFFERS,
    table=swin_rules.table_of,
    leaves_out=swin_rules.leaves_out,
    identify=identify.identify_swin,
    compare=identify.compare_swins,
)
RESNET = Network(
    name="ResNet",
    numbers=VariantResNet,
    stem=resnet_rules.STEM,
    head=resnet_rules.HEAD,
    buffers=resnet_rules.BUFFERS,
    table=resnet_rules.table_of,
    leaves_out=resnet_rules.leaves_out,
    identify=identify_resnet.identify_resnet,
    compare=identify_resnet.compare_resnets,
)
MASK_RCNN = Network(  # a Cascade too, and either without masks; its backbone is another of these
    name="Mask R-CNN",
    numbers=RCNNVariant,
    stem="",
    head="roi_head.bbox_head.fc_cls",
    buffers=rcnn_rules.BUFFERS,
    table=rcnn_rules.table_of,
    leaves_out=rcnn_rules.leaves_out,
    identify=identify_rcnn.identify_rcnn,
    compare=identify_rcnn.compare_rcnns,
)
UPERNET = Network(  # its backbone is another of these too
    name="UPerNet",
    numbers=UPerNetVariant,
    stem="",
    head="decode_head.conv_seg",
    buffers=upernet_rules.BUFFERS,
    table=upernet_rules.table_of,
    leaves_out=upernet_rules.leaves_out,
    identify=identify_upernet.identify_upernet,
    compare=identify_upernet.compare_upernets,
)
NETWORKS = {network.name: network for network in (SWIN, RESNET, MASK_RCNN, UPERNET)}


def network_of(variant) -> Network:
    """The Network of a variant's numbers."""
    return next(network for network in NETWORKS.values() if isinstance(variant, network.numbers))


def table_of(variant) -> Table:
    """The Table of a variant's models."""
    return network_of(variant).table(variant)


def assign(model, state, source="the checkpoint") -> None:
    """Copy a state dict {torch name: array} into a Swin or ResNet; errors as `conversion_table.fill`'s."""
    conversion_table.assign(model, state, table_of(model.variant), source)


def state_dict(model) -> dict:
    """The weights of a Swin or ResNet as `conversion_table.state_dict` gives them, under today's timm names."""
    return conversion_table.state_dict(model, table_of(model.variant))
