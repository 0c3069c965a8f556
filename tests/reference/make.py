"""Make the .npz beside this file from timm, so that parity is tested where torch is not.

Command: python tests/reference/make.py [main | main_v2 | main_resize ...], by default all (timm 1.0.31, torch 2.15.0).
Every parameter is moved at random first: fresh
models hide errors behind constant norms and near-zero tables. Each file holds inputs, the state dict ("state/...") and
the outputs.
"""

import pathlib
import sys

import numpy as np
import torch
from timm.layers import resize_rel_pos_bias_table
from timm.models import swin_transformer_v2 as v2
from timm.models import swin_transformer_v2_cr as cr
from timm.models.swin_transformer import PatchMerging, SwinTransformer, SwinTransformerBlock, WindowAttention

HERE = pathlib.Path(__file__).parent
BLOCKS = {  # name: (height, width), window, shift; where the map has fewer tokens than the window, timm clips
    "plain": ((8, 8), 4, 0),
    "shifted": ((8, 8), 4, 2),
    "padded_shifted": ((9, 11), 4, 2),
    "clipped": ((3, 10), 4, 2),
}
MODELS = {  # name: constructor arguments
    "mini": {"img_size": 28, "patch_size": 2, "window_size": 4, "depths": (2, 2), "num_heads": (2, 4)},
    "oblong": {"img_size": (32, 20), "patch_size": 2, "window_size": 4, "depths": (2, 2), "num_heads": (2, 4)},
    "odd": {"img_size": (18, 14), "patch_size": 2, "window_size": 3, "depths": (2, 1, 2), "num_heads": (1, 2, 4)},
    "per_stage": {
        "img_size": 24,
        "patch_size": 2,
        "window_size": ((6, 6), (7, 7)),
        "depths": (2, 2),
        "num_heads": (2, 2),
    },
}
BLOCKS_V2 = {  # name: (height, width), window, shift, window of pretraining
    "plain": ((8, 8), 4, 0, 0),
    "padded_shifted": ((9, 11), 4, 2, 0),
    "pretrained": ((8, 8), 4, 2, 3),
    "clipped": ((3, 10), 4, 2, 6),
    "one_wide": ((1, 6), 3, 1, 0),
}
MODELS_V2 = {
    "mini": {"img_size": 28, "patch_size": 2, "window_size": 4, "depths": (2, 2), "num_heads": (2, 4)},
    "pretrained": {
        "img_size": (20, 32),
        "patch_size": 2,
        "window_size": 4,
        "depths": (2, 2),
        "num_heads": (2, 4),
        "pretrained_window_sizes": (3, 2),
    },
}

TABLES = (  # window, new window
    *(((7, 7), (12, 12)), ((12, 12), (7, 7)), ((7, 7), (14, 14)), ((13, 13), (16, 16)), ((2, 2), (16, 16))),
    *(((7, 7), (6, 9)), ((6, 9), (7, 7)), ((4, 7), (8, 7)), ((1, 3), (5, 1)), ((3, 5), (3, 5))),
)
RESIZED = {  # name: class, constructor arguments, set_input_size arguments; V2 is told its old windows
    "v1": (SwinTransformer, {}, {"img_size": 48, "window_size": 12}),
    "v1_clipped": (SwinTransformer, {"img_size": (10, 26)}, {"img_size": (30, 20), "window_size": 7}),
    "v2": (v2.SwinTransformerV2, {"pretrained_window_sizes": (7, 7)}, {"img_size": 48, "window_size": 12}),
    "v2_explicit": (v2.SwinTransformerV2, {"pretrained_window_sizes": (3, 2)}, {"img_size": 20, "window_size": 5}),
}
BLOCKS_CR = {  # name: (height, width), window, shift
    "plain": ((8, 8), (4, 4), 0),
    "padded_shifted": ((9, 11), (4, 3), 1),
    "clipped": ((3, 10), (4, 4), 2),
}
MODELS_CR = {
    "mini": {"img_size": 32, "depths": (2, 2), "num_heads": (2, 4)},
    "stages": {"img_size": (48, 32), "depths": (2, 1), "num_heads": (2, 4), "extra_norm_stage": True},
    "period": {"img_size": 32, "depths": (3, 2), "num_heads": (2, 4), "extra_norm_period": 2, "window_size": 4},
}


def perturb(module):
    with torch.no_grad():
        for name, p in module.named_parameters():
            spread = 0.2 if p.ndim == 1 else 0.5 if name.endswith("bias_table") else p[0].numel() ** -0.5
            p.add_(torch.randn_like(p) * spread)
    return module.eval()


def write(name, module, **arrays):
    state = {f"state/{k}": v.numpy() for k, v in module.state_dict().items()}
    np.savez_compressed(HERE / f"{name}.npz", **state, **{k: np.asarray(v) for k, v in arrays.items()})


@torch.no_grad()
def main():
    torch.manual_seed(0)
    attention = perturb(WindowAttention(16, num_heads=4, window_size=(3, 5)))
    x = torch.randn(4, 15, 16)
    write("attention", attention, x=x, y=attention(x), index=attention.relative_position_index)
    for name, (size, window, shift) in BLOCKS.items():
        block = perturb(SwinTransformerBlock(16, size, num_heads=2, window_size=window, shift_size=shift))
        x = torch.randn(2, *size, 16)
        mask = block.attn_mask if block.attn_mask is not None else torch.zeros(0)
        write(f"block_{name}", block, x=x, y=block(x), mask=mask, window=block.window_size, shift=block.shift_size)
    merging = perturb(PatchMerging(8))
    x = torch.randn(2, 5, 7, 8)
    write("merging", merging, x=x, y=merging(x))
    for name, arguments in MODELS.items():
        model = perturb(SwinTransformer(in_chans=3, num_classes=7, embed_dim=16, **arguments))
        height, width = model.patch_embed.img_size
        x = torch.randn(2, 3, height, width)
        pyramid = {f"P{i}": y.permute(0, 2, 3, 1) for i, y in enumerate(model.forward_intermediates(x)[1])}
        features = model.forward_head(model.forward_features(x), pre_logits=True)
        write(f"model_{name}", model, x=x.permute(0, 2, 3, 1), y=model(x), features=features, **pyramid)


@torch.no_grad()
def main_v2():
    torch.manual_seed(1)
    for name, (size, window, shift, pretrained) in BLOCKS_V2.items():
        block = perturb(
            v2.SwinTransformerV2Block(
                16, size, num_heads=2, window_size=window, shift_size=shift, pretrained_window_size=pretrained
            )
        )
        x = torch.randn(2, *size, 16)
        sizes = {"window": block.window_size, "shift": block.shift_size, "pretrained": pretrained}
        write(f"v2_block_{name}", block, x=x, y=block(x), coordinates=block.attn.relative_coords_table, **sizes)
    merging = perturb(v2.PatchMerging(8))
    x = torch.randn(2, 5, 7, 8)
    write("v2_merging", merging, x=x, y=merging(x))
    for name, arguments in MODELS_V2.items():
        model = perturb(v2.SwinTransformerV2(in_chans=3, num_classes=7, embed_dim=16, **arguments))
        height, width = model.patch_embed.img_size
        x = torch.randn(2, 3, height, width)
        write(f"v2_model_{name}", model, x=x.permute(0, 2, 3, 1), y=model(x))


@torch.no_grad()
def main_cr():
    torch.manual_seed(3)
    for name, (size, window, shift) in BLOCKS_CR.items():
        pair = (shift, shift)
        block = cr.SwinTransformerV2CrBlock(16, 2, size, window, pair)
        perturb(block)
        x = torch.randn(2, *size, 16)
        coordinates = block.attn.relative_coordinates_log
        sizes = {"window": block.window_size, "shift": block.shift_size, "coordinates": coordinates}
        write(f"cr_block_{name}", block, x=x, y=block(x), **sizes)
    for name, arguments in MODELS_CR.items():
        model = perturb(cr.SwinTransformerV2Cr(patch_size=2, num_classes=7, embed_dim=16, **arguments))
        height, width = model.patch_embed.img_size
        x = torch.randn(2, 3, height, width)
        pyramid = {f"P{i}": y.permute(0, 2, 3, 1) for i, y in enumerate(model.forward_intermediates(x)[1])}
        write(f"cr_model_{name}", model, x=x.permute(0, 2, 3, 1), y=model(x), **pyramid)


@torch.no_grad()
def main_resize():
    """Tables by both interpolations, and models after timm's set_input_size, whose "state/..." is that of before."""
    torch.manual_seed(2)
    arrays = {}
    for i, (old, new) in enumerate(TABLES):
        sides, shape = [[2 * m - 1 for m in window] for window in (old, new)], ((2 * new[0] - 1) * (2 * new[1] - 1), 3)
        table = torch.randn(sides[0][0] * sides[0][1], 3) * 0.5
        image = table.T.reshape(1, 3, *sides[0])  # as Microsoft's load_pretrained, but for windows that are not square
        microsoft = torch.nn.functional.interpolate(image, size=sides[1], mode="bicubic").reshape(3, -1).T
        timm = resize_rel_pos_bias_table(table, new, shape, old)
        values = {"windows": (old, new), "table": table, "timm": timm, "microsoft": microsoft}
        arrays |= {f"{i}/{key}": np.asarray(value) for key, value in values.items()}
    np.savez_compressed(HERE / "tables.npz", **arrays)
    for name, (family, changes, sizes) in RESIZED.items():
        numbers = {"img_size": 28, "patch_size": 2, "window_size": 7, "depths": (2, 2), "num_heads": (2, 4), **changes}
        model = perturb(family(in_chans=3, num_classes=7, embed_dim=16, **numbers))
        state = {f"state/{k}": v.numpy().copy() for k, v in model.state_dict().items()}
        model.set_input_size(**sizes)
        height, width = model.patch_embed.img_size
        x = torch.randn(2, 3, height, width)
        np.savez_compressed(HERE / f"resized_{name}.npz", **state, x=x.permute(0, 2, 3, 1), y=model(x))


if __name__ == "__main__":
    for command in sys.argv[1:] or ("main", "main_v2", "main_cr", "main_resize"):
        {"main": main, "main_v2": main_v2, "main_cr": main_cr, "main_resize": main_resize}[command]()
