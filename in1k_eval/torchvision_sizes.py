"""torchvision's Swin with every parameter moved, its file and its logits at many sizes; alone in its process.

Usage: python in1k_eval/torchvision_sizes.py MODEL FOLDER SIZE ...; a SIZE is HEIGHTxWIDTH. Writes FOLDER/weights.pth
and FOLDER/HEIGHTxWIDTH.npy from the images in FOLDER/HEIGHTxWIDTH_images.npy, (B, H, W, C).
"""

import pathlib
import sys

import numpy as np
import torch
import torchvision


@torch.inference_mode()
def main(name, folder, sizes):
    torch.manual_seed(5)
    model = getattr(torchvision.models, name)().eval()
    for key, p in model.named_parameters():
        spread = 0.2 if p.ndim == 1 else 0.5 if key.endswith("bias_table") else p[0].numel() ** -0.5
        p.add_(torch.randn_like(p) * spread)
        if key.endswith("qkv.bias") and "_v2_" in name:
            p[len(p) // 3 : -(len(p) // 3)] = 0  # as its forward pass does, which changes the parameter
    torch.save(model.state_dict(), folder / "weights.pth")
    for size in sizes:
        images = torch.from_numpy(np.load(folder / f"{size}_images.npy")).permute(0, 3, 1, 2)
        np.save(folder / f"{size}.npy", model(images.contiguous()).numpy())


if __name__ == "__main__":
    main(sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3:])
