"""Folders as libraries write them: python hub_folders.py STATE.safetensors FOLDER.

transformers' save_pretrained (whole, in parts, with a preprocessor), its Trainer's checkpoint, and timm's hub, of the
model whose state dict is given; and a small V2.
"""

import pathlib
import sys

import torch
import transformers
from safetensors.torch import load_file
from timm.models import save_for_hf
from timm.models.swin_transformer import SwinTransformer

STATE, OUT = load_file(sys.argv[1]), pathlib.Path(sys.argv[2])
NUMBERS = {"embed_dim": 48, "depths": [2, 4], "num_heads": [3, 6], "window_size": 4, "patch_size": 2}
NAMES = [f"garment {i}" for i in range(10)]
PARTS = {  # transformers' names in memory -> timm's
    "swin.embeddings.patch_embeddings.projection": "patch_embed.proj",
    "swin.embeddings.norm": "patch_embed.norm",
    "swin.layernorm": "norm",
    "classifier": "head.fc",
}
BLOCK = {
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.o_proj": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
QKV = ("q_proj", "k_proj", "v_proj")


def timms(name):
    """The tensor that transformers' name stands for."""
    stem, _, last = name.rpartition(".")
    if stem in PARTS:
        return STATE[f"{PARTS[stem]}.{last}"]
    layer, _, rest = stem.removeprefix("swin.encoder.layers.").partition(".")
    if rest.startswith("downsample"):
        return STATE[f"layers.{int(layer) + 1}.{rest}.{last}"]
    number, _, part = rest.removeprefix("blocks.").partition(".")
    block = f"layers.{layer}.blocks.{number}"
    if last == "relative_position_bias_table":
        return STATE[f"{block}.attn.{last}"]
    if (word := part.rpartition(".")[2]) in QKV:
        return STATE[f"{block}.attn.qkv.{last}"].chunk(3)[QKV.index(word)]
    return STATE[f"{block}.{BLOCK[part]}.{last}"]


def hugging_face():
    names = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}
    config = transformers.SwinConfig(**NUMBERS, image_size=28, num_channels=1, **names)
    model = transformers.SwinForImageClassification(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(timms(name))
    model.save_pretrained(OUT / "transformers")
    model.save_pretrained(OUT / "shards", max_shard_size="700KB")
    model.save_pretrained(OUT / "pickled")
    (OUT / "pickled" / "model.safetensors").unlink()
    torch.save(model.state_dict(), OUT / "pickled" / "pytorch_model.bin")  # as transformers did before safetensors
    model.save_pretrained(OUT / "trainer")
    half = {"image_mean": [0.5], "image_std": [0.5]}
    transformers.ViTImageProcessor(size={"height": 28, "width": 28}, **half).save_pretrained(OUT / "trainer")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):  # what a Trainer adds
        torch.save({"state": torch.zeros(3)}, OUT / "trainer" / name)
    numbers = {"embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "image_size": 64, "window_size": 4}
    v2 = transformers.Swinv2Config(**numbers, pretrained_window_sizes=[6, 6], num_labels=5)
    transformers.Swinv2ForImageClassification(v2).save_pretrained(OUT / "v2")


def timm():
    numbers = {**NUMBERS, "img_size": 28, "in_chans": 1, "num_classes": 10}
    model = SwinTransformer(**numbers)
    model.load_state_dict(STATE)
    model.pretrained_cfg = {
        "architecture": "swin_mini_patch2_window4_28",
        "input_size": (1, 28, 28),
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "mean": (0.286,),
        "std": (0.353,),
        "num_classes": 10,
        "first_conv": "patch_embed.proj",
        "classifier": "head.fc",
    }
    labels = {"label_names": NAMES, "label_descriptions": {NAMES[9]: "the last garment"}}
    save_for_hf(model, OUT / "timm", model_config=labels, safe_serialization="both")


hugging_face()
timm()
