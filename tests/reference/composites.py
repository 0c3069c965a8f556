"""Swins inside transformers' larger models, and their maps: python composites.py FOLDER.

Writes for each model NAME.pth, its state_dict() in memory, NAME/, as save_pretrained does, and to maps.npz "NAME/P2" to
"NAME/P5", (1, H, W, C): the maps that its backbone gives of `images.npy` (1, 224, 224, 3), normed where it norms them.
Every parameter is moved at random.
"""

import pathlib
import sys

import numpy as np
import torch
import transformers

OUT = pathlib.Path(sys.argv[1])
NUMBERS = {"embed_dim": 8, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 4, 8), "image_size": 224, "window_size": 7}
STAGES = [f"stage{s}" for s in (1, 2, 3, 4)]
IMAGE = np.random.default_rng(0).standard_normal((1, 224, 224, 3), dtype="float32")
PIXELS = torch.from_numpy(IMAGE).permute(0, 3, 1, 2).contiguous()
SMALL = {"encoder_layers": 1, "decoder_layers": 1, "encoder_feedforward_dim": 16, "dim_feedforward": 16}


def perturb(model):
    """Move every parameter of a model at random."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.2 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
            parameter.add_(torch.randn_like(parameter) * (0.5 if name.endswith("bias_table") else spread))
    return model.eval()


def models():
    """{name: (model, its backbone, function of the backbone's maps)}."""
    config = transformers.SwinConfig(**NUMBERS, out_features=STAGES)
    upernet = transformers.UperNetForSemanticSegmentation(
        transformers.UperNetConfig(backbone_config=config, hidden_size=8, auxiliary_in_channels=32)
    )
    mask2former = transformers.Mask2FormerForUniversalSegmentation(
        transformers.Mask2FormerConfig(
            backbone_config=config,
            feature_size=32,
            mask_feature_size=32,
            hidden_dim=32,
            num_attention_heads=2,
            num_queries=4,
            **SMALL,
        )
    )
    detr = transformers.DetrConfig(
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        num_queries=4,
    )
    maskformer = transformers.MaskFormerForInstanceSegmentation(
        transformers.MaskFormerConfig(
            fpn_feature_size=32,
            mask_feature_size=32,
            backbone_config=transformers.MaskFormerSwinConfig(**NUMBERS, out_features=STAGES),
            decoder_config=detr,
        )
    )
    text = transformers.MBartConfig(
        d_model=16,
        decoder_layers=1,
        decoder_ffn_dim=16,
        decoder_attention_heads=2,
        vocab_size=32,
        is_decoder=True,
        add_cross_attention=True,
    )
    donut = transformers.VisionEncoderDecoderModel(
        encoder=transformers.DonutSwinModel(transformers.DonutSwinConfig(**NUMBERS)),
        decoder=transformers.MBartForCausalLM(text),
    )
    return {
        "upernet": (upernet, upernet.backbone),
        "mask2former": (mask2former, mask2former.model.pixel_level_module.encoder),
        "maskformer": (maskformer, maskformer.model.pixel_level_module.encoder),
        "donut": (donut, donut.encoder),
    }


def maps_of(name, backbone):
    """The maps (1, C, H, W) that a backbone gives, fine to coarse; of Donut's those before each merging."""
    if name != "donut":
        return backbone(PIXELS).feature_maps
    kept = []
    for stage in backbone.encoder.layers:
        stage.blocks[-1].register_forward_hook(lambda _, __, y: kept.append(y[0] if isinstance(y, tuple) else y))
    backbone(PIXELS)
    sides = [int(y.shape[1] ** 0.5) for y in kept]
    return [y.unflatten(1, (side, side)).permute(0, 3, 1, 2) for side, y in zip(sides, kept, strict=True)]


maps = {}
with torch.inference_mode():
    for name, (model, backbone) in models().items():
        perturb(model)
        torch.save(model.state_dict(), OUT / f"{name}.pth")
        model.save_pretrained(OUT / name)
        for level, y in zip(("P2", "P3", "P4", "P5"), maps_of(name, backbone), strict=True):
            maps[f"{name}/{level}"] = y.permute(0, 2, 3, 1).numpy()
np.savez(OUT / "maps.npz", **maps)
np.save(OUT / "images.npy", IMAGE)
