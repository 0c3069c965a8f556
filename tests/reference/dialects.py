"""Small Swins as other programs save them, and what those programs compute: python dialects.py FOLDER.

torchvision and transformers are the libraries themselves. The others are not installed: their files are made from
timm's models, whose parts that differ are replaced by torch's own (nn.Unfold merges patches), under the names that
their sources have. Runs in a process of its own, without Keras. Every parameter is moved at random.
"""

import os
import re
import sys
from functools import partial

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from timm.models import swin_transformer, swin_transformer_v2, swin_transformer_v2_cr
from torch import nn
from torchvision.models import swin_transformer as tv

SIDE, CLASSES = 64, 5
NUMBERS = {"embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4)}
TIMM = {**NUMBERS, "img_size": SIDE, "window_size": ((4, 4), (4, 4)), "num_classes": CLASSES}
torch.manual_seed(0)
IMAGES = torch.randn(2, 3, SIDE, SIDE)
OUT = sys.argv[1]
outputs = {"images": IMAGES.permute(0, 2, 3, 1).numpy()}


def perturb(model):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("tau"):
                parameter.copy_(torch.linspace(0.001, 0.8, parameter.numel()).view_as(parameter))  # one below the clamp
            elif name.endswith("bias_table"):
                parameter.add_(torch.randn_like(parameter) * 0.5)
            else:
                parameter.add_(
                    torch.randn_like(parameter) * (0.2 if parameter.ndim == 1 else parameter[0].numel() ** -0.5)
                )
    return model.eval()


def run(name, model, images=IMAGES):
    with torch.inference_mode():
        y = model(images)
    outputs[name] = getattr(y, "logits", y).numpy()


def save(name, state):
    save_file({key: value.clone().contiguous() for key, value in state.items()}, f"{OUT}/{name}.safetensors")


def save_pretrained(name, model):
    """Write model.safetensors as transformers does, with the names of files, and move it to one file."""
    model.save_pretrained(f"{OUT}/{name}")
    os.rename(f"{OUT}/{name}/model.safetensors", f"{OUT}/{name}.safetensors")


def rename(state, *rules):
    """Apply (pattern, replacement) to every name."""
    renamed = {}
    for name, value in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def end_of_stage(prefix):
    """timm's merging at the start of stage 1 is written at the end of stage 0."""
    return (rf"^{prefix}1\.downsample", f"{prefix}0.downsample".replace("\\", ""))


class UnfoldMerging(nn.Module):
    """Patch merging as in mmcv and in C. Reich's model: channel-major, on (B, H, W, C)."""

    def __init__(self, dim, post_norm=False):
        super().__init__()
        self.norm = nn.LayerNorm(2 * dim if post_norm else 4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.post_norm = post_norm

    def forward(self, x):
        b, h, w, _ = x.shape
        x = nn.Unfold(2, stride=2)(x.permute(0, 3, 1, 2)).transpose(1, 2)
        x = self.norm(self.reduction(x)) if self.post_norm else self.reduction(self.norm(x))
        return x.view(b, h // 2, w // 2, -1)


def torchvision():
    parts = {
        "torchvision_v1": {},
        "torchvision_v2": {"block": tv.SwinTransformerBlockV2, "downsample_layer": tv.PatchMergingV2},
    }
    for name, more in parts.items():
        model = tv.SwinTransformer([4, 4], 24, [2, 2], [2, 4], [4, 4], num_classes=CLASSES, **more)
        run(name, perturb(model))
        save(name, model.state_dict())


def hugging_face():
    numbers = {**NUMBERS, "image_size": SIDE, "window_size": 4, "num_labels": CLASSES, "encoder_stride": 8}
    for name, config in (("v1", transformers.SwinConfig(**numbers)), ("v2", transformers.Swinv2Config(**numbers))):
        family = "Swin" if name == "v1" else "Swinv2"
        model = perturb(getattr(transformers, f"{family}ForImageClassification")(config))
        run(f"hugging_face_{name}", model)
        save_pretrained(f"hugging_face_{name}", model)
        save(f"hugging_face_{name}_memory", model.state_dict())
        trunk = getattr(model, family.lower())
        outputs[f"hugging_face_{name}_trunk"] = trunk(IMAGES).pooler_output.detach().numpy()
        save_pretrained(f"hugging_face_{name}_trunk", trunk)
        mim = getattr(transformers, f"{family}ForMaskedImageModeling")(config)
        getattr(mim, family.lower()).load_state_dict(trunk.state_dict(), strict=False)
        save_pretrained(f"hugging_face_{name}_mim", mim)
    small = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    save_pretrained("vit", transformers.ViTForImageClassification(transformers.ViTConfig(image_size=32, **small)))


def simmim():
    classes = {"v1": swin_transformer.SwinTransformer, "v2": swin_transformer_v2.SwinTransformerV2}
    for name, build in classes.items():
        model = perturb(build(**{**TIMM, "num_classes": 0}))
        run(f"simmim_{name}", model)
        buffers = {n: b for n, b in model.named_buffers() if b is not None}
        state = rename({**model.state_dict(), **buffers}, end_of_stage(r"layers\."), (r"^", "encoder."))
        decoder = {"decoder.0.weight": torch.zeros(192, 48, 1, 1), "decoder.0.bias": torch.zeros(192)}
        save(f"simmim_{name}", {**state, "encoder.mask_token": torch.zeros(1, 1, 24), **decoder})


def microsoft():
    """V2 with the buffers that Microsoft's files hold, trained first with windows of 6; a V1 detector."""
    model = perturb(swin_transformer_v2.SwinTransformerV2(**TIMM, pretrained_window_sizes=(6, 6)))
    run("microsoft_v2", model)
    buffers = {n: b for n, b in model.named_buffers() if b is not None}
    names = end_of_stage(r"layers\."), (r"^head\.fc", "head")
    torch.save({"model": rename({**model.state_dict(), **buffers}, *names)}, f"{OUT}/microsoft_v2.pth")
    model = perturb(swin_transformer.SwinTransformer(**{**TIMM, "num_classes": 0}))
    run("microsoft_detector", model)
    state = rename(model.state_dict(), end_of_stage(r"layers\."), (r"^norm\.", "norm1."), (r"^", "backbone."))
    more = {"backbone.norm0.weight": torch.ones(24), "backbone.norm0.bias": torch.ones(24), "neck.conv": torch.ones(1)}
    save("microsoft_detector", {**state, **more})


def openmmlab():
    names = [
        (r"patch_embed\.proj\.", "patch_embed.projection."),
        (r"^layers\.", "stages."),
        (r"\.attn\.", ".attn.w_msa."),
        (r"\.mlp\.fc1\.", ".ffn.layers.0.0."),
        (r"\.mlp\.fc2\.", ".ffn.layers.1."),
        (r"^norm\.", "norm1."),
        (r"^(?!head)", "backbone."),
    ]
    end = end_of_stage(r"layers\.")
    builds = {
        "mmpretrain_v1": (swin_transformer.SwinTransformer, CLASSES, False),
        "mmpretrain_v2": (swin_transformer_v2.SwinTransformerV2, CLASSES, True),
        "mmdet": (swin_transformer.SwinTransformer, 0, False),
    }
    for name, (build, classes, v2) in builds.items():
        model = build(**{**TIMM, "num_classes": classes})
        model.layers[1].downsample = UnfoldMerging(24, v2)
        run(name, perturb(model))
        state = rename(model.state_dict(), *([] if v2 else [end]), *names)  # V2 merges at the start of a stage
        if not classes:
            state |= {"backbone.norm0.weight": torch.ones(24), "backbone.norm0.bias": torch.zeros(24)}
            state |= {"rpn_head.rpn_conv.weight": torch.zeros(3), "roi_head.bbox_head.fc_cls.bias": torch.zeros(3)}
        save(name, state)
    torch.save({"meta": {"epoch": 12}, "state_dict": state}, f"{OUT}/mmdet.pth")
    save("mmdet_bare", {k.removeprefix("backbone."): v for k, v in state.items()})


class Tau(nn.Module):
    """timm's attention keeps logit_scale; C. Reich's and old timm's divides by tau, at least 0.01."""

    def __init__(self, heads):
        super().__init__()
        self.tau = nn.Parameter(torch.ones(heads))

    def forward(self, _):
        return -torch.log(self.tau.clamp(min=0.01))


def cr():
    build = partial(swin_transformer_v2_cr.SwinTransformerV2Cr, **{**TIMM, "window_size": (4, 4)})
    for name in ("timm_cr_old", "reich"):
        model = build()
        for module in model.modules():
            if isinstance(module, swin_transformer_v2_cr.WindowMultiHeadAttention):
                nn.utils.parametrize.register_parametrization(module, "logit_scale", Tau(module.num_heads))
        if name == "reich":
            model.stages[1].downsample = UnfoldMerging(24)
            model.stages[1].blocks[-1].norm3 = nn.Identity()
        run(name, perturb(model))
        attention = r"\.attn\.parametrizations\.logit_scale\.0\.tau"
        state = {n: v for n, v in model.state_dict().items() if not n.endswith("logit_scale.original")}
        if name == "timm_cr_old":
            save(name, rename(state, (attention, ".attn.tau"), (r"^head\.fc", "head")))
            continue
        state = {n: v.view(1, -1, 1, 1) if n.endswith("tau") else v for n, v in state.items()}
        state = rename(
            state,
            (attention, ".window_attention.tau"),
            (r"^patch_embed\.proj", "patch_embedding.linear_embedding"),
            (r"^patch_embed\.norm", "patch_embedding.normalization"),
            (r"\.attn\.qkv", ".window_attention.mapping_qkv"),
            (r"\.attn\.proj", ".window_attention.projection"),
            (r"\.attn\.meta_mlp\.fc1", ".window_attention.meta_network.0"),
            (r"\.attn\.meta_mlp\.fc2", ".window_attention.meta_network.2"),
            (r"\.norm(\d)\.", r".normalization_\1."),
            (r"\.mlp\.fc1", ".feed_forward_network.0"),
            (r"\.mlp\.fc2", ".feed_forward_network.3"),
            (r"\.downsample\.norm", ".downsample.normalization"),
            (r"\.downsample\.reduction", ".downsample.linear_mapping"),
            (r"^(?!head)", "model."),
            (r"^head\.fc", "classification_head"),
        )
        state["model.stages.0.blocks.1.attention_mask"] = torch.zeros(16, 16, 16)
        state["model.stages.0.blocks.0.window_attention.relative_coordinates_log"] = torch.zeros(256, 2)
        torch.save({"model": state, "acc": 0.9, "epoch": 3}, f"{OUT}/reich.pth")


for write in (torchvision, hugging_face, simmim, microsoft, openmmlab, cr):
    write()
np.savez(f"{OUT}/outputs.npz", **outputs)
