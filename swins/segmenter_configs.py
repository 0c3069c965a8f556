"""Every segmenter as a row: a backbone by its variant's name, and what stands on it.

Source: SwinTransformer/Swin-Transformer-Semantic-Segmentation and mmsegmentation, configs/swin and configs/upernet.
"""

from dataclasses import dataclass, field, fields, replace

from swins.checked_numbers import ANY
from swins.upernet_numbers import UPerNetNumbers


@dataclass(frozen=True)
class UPerNetVariant(UPerNetNumbers):
    """A UPerNet's numbers and its backbone's: a variant's name, image_size in pixels, open by default, channels of the
    images, whether maps get norms of their own, and other options as `swins.backbone` takes them."""

    backbone: str = "swin_tiny_patch4_window7_224"
    image_size: int | tuple = ANY
    in_chans: int = 3
    norms: bool = True
    options: dict = field(default_factory=dict)

    @property
    def numbers(self) -> dict:
        """{name: value} of what a UPerNet takes."""
        return {part.name: getattr(self, part.name) for part in fields(UPerNetNumbers)}


TINY = UPerNetVariant(options={"drop_path_rate": 0.3, "size_rule": "open_mmlab"})
BACKBONES = {
    "upernet_swin_tiny": "swin_tiny_patch4_window7_224",
    "upernet_swin_small": "swin_small_patch4_window7_224",
    "upernet_swin_base": "swin_base_patch4_window7_224",
    "upernet_swin_base_window12": "swin_base_patch4_window12_384",
    "upernet_swin_large": "swin_large_patch4_window7_224",
    "upernet_swin_large_window12": "swin_large_patch4_window12_384",
    # Ours: V2, whose computed position bias knows the windows that its weights were trained with.
    "upernet_swinv2_tiny": "swinv2_tiny_window8_256",
    "upernet_swinv2_small": "swinv2_small_window8_256",
    "upernet_swinv2_base": "swinv2_base_window12to16_192to256",
    "upernet_swinv2_large": "swinv2_large_window12to16_192to256",
}
SEGMENTERS = {name: replace(TINY, backbone=backbone) for name, backbone in BACKBONES.items()} | {
    "upernet_resnet50": UPerNetVariant(backbone="resnet50", norms=False),
    # Ours, for canvases of garments: the demo's Swin, whose maps have strides of 2 and 4 pixels.
    "upernet_swin_mini": UPerNetVariant(
        num_classes=11,
        width=48,
        auxiliary=32,
        backbone="swin_mini_patch2_window4_28",
        in_chans=1,
        options={"size_rule": "open_mmlab", "window_size": 8},
    ),
}
