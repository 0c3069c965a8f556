"""Small Swins of timm, torchvision and transformers, and what these give at sizes that windows do not tile.

python size_rules_reference.py FOLDER NUMBERS SIZES writes a file a model, as its program saves it (transformers in
folders, and beside each the names that it has in memory, as .pth), and outputs.npz: "NAME/HEIGHTxWIDTH/logits", or
"/P2" to "/P5" of a backbone; nothing where the program raises. NUMBERS are JSON: embed_dim, depths, num_heads. Images
of a size are `pictures(size)`. Every parameter is moved at random. Runs in a process of its own.
"""
# pylint: disable=unexpected-keyword-arg  # transformers' configurations take more than their code shows

import json
import sys
from functools import partial

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from timm.models import swin_transformer, swin_transformer_v2
from torchvision.models import swin_transformer as tv

CLASSES = 5
OUT, NUMBERS, SIZES = sys.argv[1], *map(json.loads, sys.argv[2:4])
SIZES = [tuple(size) for size in SIZES]
STAGES = [f"stage{s}" for s in (1, 2, 3, 4)]
outputs = {}


def pictures(size):
    return np.random.default_rng(size).standard_normal((1, *size, 3), dtype="float32")


def perturb(model):
    """Move every parameter."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.2 if parameter.ndim == 1 or name.endswith("logit_scale") else parameter[0].numel() ** -0.5
            spread = 0.5 if name.endswith("bias_table") else spread
            parameter.add_(torch.randn_like(parameter) * spread)
        for module in model.modules():
            if isinstance(module, tv.ShiftedWindowAttentionV2):  # which sets the middle to 0 in every call
                third = len(module.qkv.bias) // 3
                module.qkv.bias[third : 2 * third] = 0
    return model.eval()


@torch.inference_mode()
def run(name, build, state, sizes):
    """A fresh model for each size: one of transformers' V1 is not the same after a small image."""
    for size in sizes:
        try:
            model = build(size)
            model.load_state_dict(state)
            y = model.eval()(torch.from_numpy(pictures(size)).permute(0, 3, 1, 2).contiguous())
        except (RuntimeError, AssertionError):
            continue
        where = f"{name}/{size[0]}x{size[1]}"
        if hasattr(y, "feature_maps"):
            for level, feature_map in zip(("P2", "P3", "P4", "P5"), y.feature_maps, strict=True):
                outputs[f"{where}/{level}"] = feature_map.permute(0, 2, 3, 1).numpy()
        elif hasattr(y, "pooler_output"):
            outputs[f"{where}/logits"] = y.pooler_output.numpy()
        else:
            outputs[f"{where}/logits"] = getattr(y, "logits", y).numpy()


def timm():
    for name, module, build, window in (
        ("timm_v1", swin_transformer, "SwinTransformer", 7),
        ("timm_v2", swin_transformer_v2, "SwinTransformerV2", 8),
    ):
        numbers = {**NUMBERS, "num_classes": CLASSES, "window_size": window}
        model = perturb(getattr(module, build)(img_size=32 * window, **numbers))
        save_file(model.state_dict(), f"{OUT}/{name}.safetensors")
        whole = [s for s in SIZES if name == "timm_v2" or min(s) >= 224]  # V1's tables shrink with clipped windows
        run(
            name,
            lambda size, m=module, b=build, n=numbers: getattr(m, b)(img_size=size, **n),
            model.state_dict(),
            whole,
        )


def torchvision():
    for name, window, more in (
        ("torchvision_v1", 7, {}),
        ("torchvision_v2", 8, {"block": tv.SwinTransformerBlockV2, "downsample_layer": tv.PatchMergingV2}),
    ):
        numbers = [NUMBERS["embed_dim"], list(NUMBERS["depths"]), list(NUMBERS["num_heads"]), [window, window]]

        def build(size, numbers=numbers, more=more):
            return tv.SwinTransformer([4, 4], *numbers, num_classes=CLASSES, **more)

        model = perturb(build(None))
        torch.save(model.state_dict(), f"{OUT}/{name}.pth")
        run(name, build, model.state_dict(), SIZES)


def hugging_face():
    v1 = partial(transformers.SwinConfig, **NUMBERS, image_size=224, window_size=7)
    v2 = partial(transformers.Swinv2Config, **NUMBERS, window_size=8)
    classify_v1, classify_v2 = transformers.SwinForImageClassification, transformers.Swinv2ForImageClassification
    donut = transformers.DonutSwinConfig(**NUMBERS, image_size=224, window_size=7)
    for name, build, config in (
        ("hugging_face_v1", classify_v1, v1(num_labels=CLASSES)),
        ("hugging_face_v2", classify_v2, v2(image_size=256, num_labels=CLASSES)),
        ("made_for_224", classify_v2, v2(image_size=224, num_labels=CLASSES)),
        ("backbone_v1", transformers.SwinBackbone, v1(out_features=STAGES)),
        ("backbone_v2", transformers.Swinv2Backbone, v2(image_size=256, out_features=STAGES)),
        ("donut", transformers.DonutSwinModel, donut),
    ):
        model = perturb(build(config))
        model.save_pretrained(f"{OUT}/{name}")
        torch.save(model.state_dict(), f"{OUT}/{name}.pth")
        run(name, lambda size, b=build, c=config: b(c), model.state_dict(), SIZES)
    perturb(transformers.SwinBackbone(v1(out_features=["stem", "stage4"]))).save_pretrained(f"{OUT}/backbone_stem")


def composites():
    """Larger models around a backbone; `run` as the backbone that they hold."""
    config = transformers.SwinConfig(**NUMBERS, image_size=224, window_size=7, out_features=STAGES)
    few = {"hidden_dim": 32, "feature_size": 32, "mask_feature_size": 32, "num_attention_heads": 4, "num_queries": 5}
    few |= {"dim_feedforward": 32, "encoder_feedforward_dim": 32, "decoder_layers": 2, "encoder_layers": 1}
    detr = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4}
    detr |= {"decoder_attention_heads": 4, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    sides = {"fpn_feature_size": 32, "mask_feature_size": 32, "decoder_config": transformers.DetrConfig(**detr)}
    upernet = {"hidden_size": 16, "auxiliary_in_channels": 4 * NUMBERS["embed_dim"], "auxiliary_channels": 8}
    for name, model, part in (
        (
            "upernet",
            transformers.UperNetForSemanticSegmentation(transformers.UperNetConfig(backbone_config=config, **upernet)),
            "backbone",
        ),
        (
            "mask2former",
            transformers.Mask2FormerForUniversalSegmentation(
                transformers.Mask2FormerConfig(backbone_config=config, **few)
            ),
            "model.pixel_level_module.encoder",
        ),
        (
            "maskformer",
            transformers.MaskFormerForInstanceSegmentation(
                transformers.MaskFormerConfig(backbone_config=config, **sides)
            ),
            "model.pixel_level_module.encoder",
        ),
    ):
        backbone = perturb(model.get_submodule(part))
        model.save_pretrained(f"{OUT}/{name}")
        torch.save(model.state_dict(), f"{OUT}/{name}.pth")
        run(name, lambda size, b=backbone: type(b)(b.config), backbone.state_dict(), SIZES[:2])
    donut = transformers.DonutSwinModel.from_pretrained(f"{OUT}/donut")
    inside = {f"encoder.{name}": value for name, value in donut.state_dict().items()}
    torch.save({**inside, "decoder.lm_head.weight": torch.ones(2, 2)}, f"{OUT}/donut_encoder.pth")


if __name__ == "__main__":
    torch.manual_seed(0)
    for write in (timm, torchvision, hugging_face, composites):
        write()
    np.savez(f"{OUT}/outputs.npz", **outputs)
