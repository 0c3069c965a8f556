"""transformers' UPerNet on a small Swin, and what it computes: python upernets.py FOLDER SIZES [tiny].

Writes saved/, as save_pretrained does, memory.pth, its state_dict(), and outputs.npz: for each "HEIGHTxWIDTH/" the
steps "P2" to "P5", "psp", "fused", "logits", "auxiliary", all (1, H, W, C), and "loss", on seeded images and masks.
Every parameter and moving statistic is moved at random. `tiny`: the network of upernet-swin-tiny.
"""

import json
import sys

import numpy as np
import torch
import transformers

OUT, SIZES = sys.argv[1], json.loads(sys.argv[2])
SMALL = {"embed_dim": 8, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 4, 8), "image_size": 224, "window_size": 7}
HEAD = {"hidden_size": 8, "auxiliary_in_channels": 32, "auxiliary_channels": 6, "num_labels": 5}
if "tiny" in sys.argv:
    SMALL = {"image_size": 224, "window_size": 7}
    HEAD = {"num_labels": 150}
torch.manual_seed(0)
backbone = transformers.SwinConfig(**SMALL, out_features=[f"stage{s}" for s in (1, 2, 3, 4)])
names = {i: f"class {chr(97 + i)}" for i in range(HEAD["num_labels"])} if HEAD["num_labels"] == 5 else None
config = transformers.UperNetConfig(backbone_config=backbone, **{**HEAD, **({"id2label": names} if names else {})})


def perturb(model):
    """Move every parameter and moving statistic of a model at random."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.2 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
            parameter.add_(torch.randn_like(parameter) * (0.5 if name.endswith("bias_table") else spread))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.3 * torch.randn_like(buffer))
            elif name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand_like(buffer))


def image_and_mask(height, width, classes):
    """A normal image (1, H, W, 3) and a mask of blocks of classes (1, H, W), a tenth of them without one."""
    rng = np.random.default_rng((height, width))
    image = rng.standard_normal((1, height, width, 3), dtype="float32")
    mask = rng.integers(0, classes, (1, height, width))
    return image, np.where(rng.random((1, height, width)) < 0.1, 255, mask)


def steps(state, height, width):
    """{name: array} of what a fresh network of this state computes: transformers' V1 is not the same after an image."""
    model = transformers.UperNetForSemanticSegmentation(config).eval()
    model.load_state_dict(state)
    kept = {}
    for name, module in {
        "psp": model.decode_head.bottleneck,
        "fused": model.decode_head.fpn_bottleneck,
        "logits": model.decode_head,
        "auxiliary": model.auxiliary_head,
    }.items():
        module.register_forward_hook(lambda _, __, y, name=name: kept.update({name: y}))
    inner = model.backbone.forward_with_filtered_kwargs

    def tapped(*arguments, **options):
        y = inner(*arguments, **options)
        kept.update(zip(("P2", "P3", "P4", "P5"), y.feature_maps, strict=True))
        return y

    model.backbone.forward_with_filtered_kwargs = tapped
    image, mask = image_and_mask(height, width, HEAD["num_labels"])
    with torch.inference_mode():
        pixels = torch.from_numpy(image).permute(0, 3, 1, 2).contiguous()
        whole = model(pixels, labels=torch.from_numpy(mask))
    outputs = {name: y.permute(0, 2, 3, 1).numpy() for name, y in kept.items()}
    if "tiny" not in sys.argv:
        outputs["pixels"] = whole.logits.permute(0, 2, 3, 1).numpy()
    return outputs | {"loss": whole.loss.numpy(), "image": image, "mask": mask}


if __name__ == "__main__":
    upernet = transformers.UperNetForSemanticSegmentation(config)
    perturb(upernet)
    upernet.eval().save_pretrained(f"{OUT}/saved")
    torch.save(upernet.state_dict(), f"{OUT}/memory.pth")
    everything = {"parameters": sum(p.numel() for p in upernet.parameters())}
    for height, width in SIZES:
        found = steps(upernet.state_dict(), height, width)
        everything |= {f"{height}x{width}/{name}": y for name, y in found.items()}
    np.savez(f"{OUT}/outputs.npz", **everything)
