"""Every network of diffusion as a row.

Source: RuslanGreenhead/swin_transformer, configs/diffusion_unet_SwinT.yaml, for the first; the others are ours.
"""

from swins.swin_unet_numbers import SwinUNetVariant

DENOISERS = {
    # The reference's: 52,999,457 parameters. Without a null class it takes no guidance; null_class=True adds one.
    "swin_unet_patch4_window7_224": SwinUNetVariant(
        in_chans=1,
        null_class=False,
        drop_path_rate=0.2,
        size_rule="open_mmlab",  # shifts where one window covers the map too
        merging="convolution",
        skips="inputs",
        decoder_order="encoder",
        conditioning="additive",
    ),
    # Ours, for 28-pixel grey images: the embedded model.
    "swin_unet_mini_patch2_window7_28": SwinUNetVariant(
        28, 2, 1, embed_dim=64, depths=(2, 2), num_heads=(4, 8), window_size=7, time_dim=48
    ),
    # The same for small pictures in colour.
    "swin_unet_mini_patch2_window8_32": SwinUNetVariant(
        32, 2, 3, embed_dim=64, depths=(2, 2), num_heads=(4, 8), window_size=8, time_dim=48
    ),
    # Ours, for CIFAR-10.
    "swin_unet_patch2_window4_32": SwinUNetVariant(
        32, 2, 3, embed_dim=96, depths=(2, 2, 4), num_heads=(3, 6, 12), window_size=4
    ),
}
