"""Every detector as a row: a backbone by its variant's name, and what stands on it.

Source: RuslanGreenhead/swin_transformer, its backbones "A" and "B". A takes three maps of the backbone, B one of stride
8 from deeper in it; further maps follow. Swin's patches are merged here as in its paper: A's third map has 11x11 cells
where the project's own merging leaves 10x10.
"""

from dataclasses import dataclass, field, fields, replace

from swins.checked_numbers import ANY
from swins.rcnn_numbers import RCNNNumbers
from swins.ssd_numbers import SSDNumbers


@dataclass(frozen=True)
class SSDVariant(SSDNumbers):
    """An SSD's numbers and its backbone's: a variant's name, image_size in pixels, channels of the images, whether a
    Swin's maps are those after merging, and other options as `swins.backbone` takes them."""

    backbone: str = "resnet50"
    image_size: int | tuple = 300
    in_chans: int = 3
    merged: bool = False
    options: dict = field(default_factory=dict)

    @property
    def numbers(self) -> dict:
        """{name: value} of what an SSD takes."""
        return {part.name: getattr(self, part.name) for part in fields(SSDNumbers)}


@dataclass(frozen=True)
class RCNNVariant(RCNNNumbers):
    """A Mask R-CNN's numbers and its backbone's: a variant's name, image_size in pixels, open by default, channels of
    the images, whether maps get norms of their own, and other options as `swins.backbone` takes them; cascade: whether
    it has the three stages of a Cascade Mask R-CNN."""

    backbone: str = "swin_tiny_patch4_window7_224"
    image_size: int | tuple = ANY
    in_chans: int = 3
    norms: bool = True
    options: dict = field(default_factory=dict)
    cascade: bool = False

    @property
    def numbers(self) -> dict:
        """{name: value} of what a Mask R-CNN takes."""
        return {part.name: getattr(self, part.name) for part in fields(RCNNNumbers)}


RESNET_A = SSDVariant(
    levels=("P3", "P4", "P5"), extras=((256, 512), (128, 256), (128, 256)), rescale=True, backbone="resnet50"
)
RESNET_B = SSDVariant(
    levels=("P3",),
    extras=((256, 512, 2, 1), (256, 512, 2, 1), (128, 256, 2, 1), (128, 256, 1, 0), (128, 256, 1, 0)),
    options={"strides": (1, 2, 1, 2), "stages": 3},
)
SWIN = SSDVariant(backbone="swin_tiny_patch4_window7_224", image_size=336, options={"drop_path_rate": 0.2})
SWIN_A = replace(SWIN, merged=True, extras=((512, 512), (256, 256), (128, 256)))
SWIN_B = replace(
    SWIN,
    levels=("P4",),
    expand=True,
    extras=((512, 512), (256, 512), (256, 256), (128, 256), (128, 256)),
    extra_norm="layer",
)
# Ours, for pictures of 64 and 128 pixels, as garments' canvases: the demo's Swin, whose last map is enlarged like B's:
# from 32x32 cells on, all but 1 % of garments of a fifth to two thirds of the side overlap a default box by half, from
# 16x16 on 78 %. The larger one has patches of 4 pixels, so that both cost the same; it takes no weights of the demo's.
MINI = SSDVariant(
    levels=("P2",), expand=True, extras=((32, 64),) * 5, backbone="swin_mini_patch2_window4_28", image_size=64
)
# Or as it is, 16x16 cells whose boxes fit such garments: features for classes are the deepest there are.
MINI_FITTED = replace(
    MINI,
    expand=False,
    extras=((64, 128), (64, 128)),
    preset="garments",
    options={"norms": True},
)
MINI_128 = replace(MINI, levels=("P3",), image_size=128, options={"patch_size": 4})
SUFFIXES = {"": "none", "_fpn": "fpn", "_pan": "pan", "_dense_fpn": "dense_fpn"}  # of names, and their necks

# Swin-Transformer-Object-Detection's configurations; mmdet's mask-rcnn_r50_fpn
RCNN_TINY = RCNNVariant(options={"drop_path_rate": 0.2, "size_rule": "open_mmlab"})
RCNN_SMALL = replace(RCNN_TINY, backbone="swin_small_patch4_window7_224")
RCNN_BASE = replace(
    RCNN_TINY,
    backbone="swin_base_patch4_window7_224",
    options={"drop_path_rate": 0.3, "size_rule": "open_mmlab"},
)
RCNNS = {
    "mask_rcnn_swin_tiny_fpn": RCNN_TINY,
    "mask_rcnn_swin_small_fpn": RCNN_SMALL,
    "cascade_mask_rcnn_swin_tiny_fpn": replace(RCNN_TINY, cascade=True),
    "cascade_mask_rcnn_swin_small_fpn": replace(RCNN_SMALL, cascade=True),
    "cascade_mask_rcnn_swin_base_fpn": replace(RCNN_BASE, cascade=True),
    "mask_rcnn_resnet50_fpn": RCNNVariant(backbone="resnet50", norms=False),
    # Ours, for canvases of garments: maps of strides 2, 4 and 8, so that anchors are of 16, 32 and 64 pixels.
    "mask_rcnn_swin_mini_fpn": RCNNVariant(
        width=64, hidden=128, backbone="swin_mini_patch2_window4_28", options={"size_rule": "open_mmlab"}
    ),
}

DETECTORS = {
    f"{name}{suffix}": replace(row, neck=neck)
    for name, row in {
        "ssd300_resnet50_a": RESNET_A,
        "ssd300_resnet50_b": RESNET_B,
        "ssd336_swin_tiny_a": SWIN_A,
        "ssd336_swin_tiny_b": SWIN_B,
    }.items()
    for suffix, neck in SUFFIXES.items()
} | {"ssd64_swin_mini": MINI_FITTED, "ssd64_swin_mini_b": MINI, "ssd128_swin_mini_b": MINI_128, **RCNNS}
