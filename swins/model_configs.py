"""Every variant as a row.

Names and values are timm's (1.0.31); the test suite compares them. Sources: arXiv:2103.14030 (V1), table 7;
arXiv:2111.14725 (S3), whose only difference from V1 is a window per stage; arXiv:2111.09883 (V2);
ChristophReich1996/Swin-Transformer-V2 for its own; arXiv:1512.03385 (ResNet), table 1, strides as torchvision's.
"""

from dataclasses import replace

from swins.plans import Variant, VariantV2, VariantV2CR
from swins.resnet_plan import VariantResNet

TINY = Variant()
SMALL = replace(TINY, depths=(2, 2, 18, 2))
BASE = replace(SMALL, embed_dim=128, num_heads=(4, 8, 16, 32))
LARGE = replace(SMALL, embed_dim=192, num_heads=(6, 12, 24, 48))
TINY_V2 = VariantV2()
SMALL_V2 = replace(TINY_V2, depths=(2, 2, 18, 2))
BASE_V2 = replace(SMALL_V2, embed_dim=128, num_heads=(4, 8, 16, 32))
LARGE_V2 = replace(SMALL_V2, embed_dim=192, num_heads=(6, 12, 24, 48))
TINY_CR = VariantV2CR()
SMALL_CR = replace(TINY_CR, depths=(2, 2, 18, 2))
BASE_CR = replace(SMALL_CR, embed_dim=128, num_heads=(4, 8, 16, 32))
LARGE_CR = replace(SMALL_CR, embed_dim=192, num_heads=(6, 12, 24, 48))
HUGE_CR = replace(SMALL_CR, embed_dim=352, num_heads=(11, 22, 44, 88), extra_norm_period=6)
GIANT_CR = VariantV2CR(512, (2, 2, 42, 2), (16, 32, 64, 128), extra_norm_period=6)
TINY_REICH = VariantV2CR(window_size=7, meta_dim=256, extra_norm="none", drop_path_rate=0.2)
BASE_REICH = replace(TINY_REICH, embed_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32))

VARIANTS = {
    "swin_tiny_patch4_window7_224": TINY,
    "swin_small_patch4_window7_224": SMALL,
    "swin_base_patch4_window7_224": BASE,
    "swin_base_patch4_window12_384": replace(BASE, window_size=12, image_size=384),
    "swin_large_patch4_window7_224": LARGE,
    "swin_large_patch4_window12_384": replace(LARGE, window_size=12, image_size=384),
    # S3: a window per stage is the whole difference.
    "swin_s3_tiny_224": replace(TINY, window_size=(7, 7, 14, 7)),
    "swin_s3_small_224": replace(SMALL, window_size=(14, 14, 14, 7)),
    "swin_s3_base_224": replace(TINY, window_size=(7, 7, 14, 7), depths=(2, 2, 30, 2)),
    # V2: weights trained at 192 pixels are used at 256 and 384, and remember their windows.
    "swinv2_tiny_window8_256": TINY_V2,
    "swinv2_tiny_window16_256": replace(TINY_V2, window_size=16),
    "swinv2_small_window8_256": SMALL_V2,
    "swinv2_small_window16_256": replace(SMALL_V2, window_size=16),
    "swinv2_base_window8_256": BASE_V2,
    "swinv2_base_window16_256": replace(BASE_V2, window_size=16),
    "swinv2_base_window12_192": replace(BASE_V2, window_size=12, image_size=192),
    "swinv2_base_window12to16_192to256": replace(BASE_V2, window_size=16, pretrained_windows=(12, 12, 12, 6)),
    "swinv2_base_window12to24_192to384": replace(
        BASE_V2, window_size=24, image_size=384, pretrained_windows=(12, 12, 12, 6)
    ),
    "swinv2_large_window12_192": replace(LARGE_V2, window_size=12, image_size=192),
    "swinv2_large_window12to16_192to256": replace(LARGE_V2, window_size=16, pretrained_windows=(12, 12, 12, 6)),
    "swinv2_large_window12to24_192to384": replace(
        LARGE_V2, window_size=24, image_size=384, pretrained_windows=(12, 12, 12, 6)
    ),
    # V2-CR: windows follow the image; _ns has a norm after every stage.
    "swinv2_cr_tiny_224": TINY_CR,
    "swinv2_cr_tiny_384": replace(TINY_CR, image_size=384),
    "swinv2_cr_tiny_ns_224": replace(TINY_CR, extra_norm="stages"),
    "swinv2_cr_small_224": SMALL_CR,
    "swinv2_cr_small_384": replace(SMALL_CR, image_size=384),
    "swinv2_cr_small_ns_224": replace(SMALL_CR, extra_norm="stages"),
    "swinv2_cr_small_ns_256": replace(SMALL_CR, extra_norm="stages", image_size=256),
    "swinv2_cr_base_224": BASE_CR,
    "swinv2_cr_base_384": replace(BASE_CR, image_size=384),
    "swinv2_cr_base_ns_224": replace(BASE_CR, extra_norm="stages"),
    "swinv2_cr_large_224": LARGE_CR,
    "swinv2_cr_large_384": replace(LARGE_CR, image_size=384),
    "swinv2_cr_huge_224": replace(HUGE_CR, num_heads=(8, 16, 32, 64)),
    "swinv2_cr_huge_384": replace(HUGE_CR, image_size=384),
    "swinv2_cr_giant_224": GIANT_CR,
    "swinv2_cr_giant_384": replace(GIANT_CR, image_size=384),
    # The same family as ChristophReich1996/Swin-Transformer-V2 has it, named by its functions.
    "swin_transformer_v2_t": TINY_REICH,
    "swin_transformer_v2_s": replace(TINY_REICH, depths=(2, 2, 18, 2)),
    "swin_transformer_v2_b": BASE_REICH,
    "swin_transformer_v2_l": replace(BASE_REICH, embed_dim=192, num_heads=(6, 12, 24, 48)),
    "swin_transformer_v2_h": replace(BASE_REICH, embed_dim=352, num_heads=(11, 22, 44, 88)),
    "swin_transformer_v2_g": replace(BASE_REICH, embed_dim=512, depths=(2, 2, 42, 2), num_heads=(16, 32, 64, 128)),
    # Ours, for 28-pixel grey images: the checkpoint of `make demo`.
    "swin_mini_patch2_window4_28": Variant(
        48, (2, 4), (3, 6), window_size=4, image_size=28, patch_size=2, in_chans=1, num_classes=10, drop_path_rate=0.05
    ),
    # No Swins: backbones of detectors and segmenters that Swins are compared with.
    "resnet50": VariantResNet(),
    "resnet101": VariantResNet(depths=(3, 4, 23, 3)),
}
