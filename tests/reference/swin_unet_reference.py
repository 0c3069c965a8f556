"""What RuslanGreenhead/swin_transformer's diffusion gives: python tests/reference/swin_unet_reference.py SNAPSHOT.

SNAPSHOT is a clone of that repository, bare or not; it is run from a temporary copy and nothing of it is kept. Writes
swin_unet_reference.npz beside this file: of its network in the configuration of its MNIST experiments ("full") and of
the same with 24 channels in place of 96 ("narrow", whose output modules are its own of that width), a part of the
output for two images, its largest number, its parameters' number and a digest of their names and shapes. Weights are
drawn by name, see `seeded`: ours can have the same. And its schedules' betas.

Needs torch, torchvision, timm, einops, matplotlib.
"""

import importlib
import pathlib
import subprocess
import sys
import tempfile
import zlib

import numpy as np

FILE = pathlib.Path(__file__).with_name("swin_unet_reference.npz")
SIZE, CLASSES, STEP = 224, 10, 3  # of the output's rows and columns, every so many are kept
WIDTHS = {"narrow": (24, (3, 6, 12, 24)), "full": (96, (3, 6, 12, 24))}
TIMES, LABELS = (7, 431), (3, 8)


def seeded(name, shape):
    """The parameter of a name: the same numbers on every machine; float32 of a torch shape."""
    u = 2 * np.random.RandomState(zlib.crc32(name.encode())).random_sample(shape) - 1
    if name.endswith("bias"):
        return (0.2 * u).astype("float32")
    if len(shape) == 1:  # a norm's weight
        return (1 + 0.5 * u).astype("float32")
    if name.endswith("rpb_table") or name == "class_emb.weight":
        return u.astype("float32")
    return (u * np.sqrt(3 / np.prod(shape[1:]))).astype("float32")


def images():
    """Two noisy images, (2, 224, 224, 1)."""
    return (4 * np.random.RandomState(0).random_sample((2, SIZE, SIZE, 1)) - 2).astype("float32")


def digest(shapes):
    """A number of {name: shape}."""
    return zlib.crc32("\n".join(f"{name} {tuple(shapes[name])}" for name in sorted(shapes)).encode())


def main(snapshot):
    import torch
    from torch import nn

    out = {}
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "-C", snapshot, "archive", "HEAD"], check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
        sys.path[:0] = [f"{folder}/swin_transformer/diffusion", f"{folder}/swin_transformer"]
        theirs, schedulers = (importlib.import_module(name) for name in ("diffusion_model", "schedulers"))
        for kind, (width, heads) in WIDTHS.items():
            swin = {
                **{"img_size": SIZE, "emb_dim": width, "depths": [2, 2, 6, 2], "n_heads": list(heads)},
                **{"mlp_drop": 0.0, "attn_drop": 0.0, "drop_path": 0.2, "patch_size": 4, "input_dim": 1},
                **{"window_size": 7, "mlp_ratio": 4.0, "qkv_bias": True, "qk_scale": None, "pos_drop": 0.0},
                **{"norm_layer": nn.LayerNorm, "ape": False, "patch_norm": True},
            }
            cfg = {"model": {"condition_dim": 4, "condition_emb_dim": 32, "image_size": SIZE}}
            model = theirs.MetaConditionedModel(
                swin_params=swin, cfg=cfg, out_dim=1, mid_depth=2, time_emb_dim=128, condition=True, condition_dim=4
            ).eval()
            end = model.model.out_proj
            if width != 96:
                end[0], end[1] = theirs.DualUpsample(width), nn.LayerNorm(width // 2)
                end[3], end[4] = theirs.DualUpsample(width // 2), nn.LayerNorm(width // 4)
                end[7] = nn.Conv2d(width // 4, 1, 3, 1, 1)
            shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
            model.load_state_dict({name: torch.tensor(seeded(name, shape)) for name, shape in shapes.items()})
            with torch.no_grad():
                x = torch.tensor(images()).permute(0, 3, 1, 2)
                output = model(x, torch.tensor(TIMES), torch.tensor(LABELS)).numpy()[:, 0]
            out[f"{kind}_output"] = output[:, 1::STEP, 1::STEP]
            out[f"{kind}_largest"] = np.abs(output).max()
            out[f"{kind}_digest"] = digest(shapes)
            out[f"{kind}_parameters"] = sum(int(np.prod(shape)) for shape in shapes.values())
            print(kind, out[f"{kind}_parameters"], out[f"{kind}_largest"], output.std())
        for kind in ("cosine", "linear"):
            for steps in (300, 500):
                out[f"{kind}_{steps}"] = schedulers.DDPMScheduler(steps, kind).betas.numpy()
    np.savez_compressed(FILE, **out)
    print(FILE, FILE.stat().st_size)


if __name__ == "__main__":
    main(sys.argv[1])
