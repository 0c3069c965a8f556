"""UPerNet in PyTorch: transformers' own, and in plain PyTorch under the names of Open-MMLab's programs.

Imports nothing of swins or Keras. Every number is read off the tensors, and a file is loaded strictly: what is not in
it, or not in the network, is an error. Letters: B images, (H, W) cells of a map, C channels, K classes.
"""

import math
import os
import re
import shutil

import torch
from pickled_files import Refusal, load_file
from torch import nn
from torch.nn import functional as F
from torch_backbones import backbone

SIGN = re.compile(r"decode_head\.fpn_bottleneck\.(?:conv|batch_norm)\.weight")
UNUSED = re.compile(r"relative_position_index$|backbone\.(?:swin\.)?layernorm\.")  # what transformers itself drops


def under(state, prefix):
    """What a state dict has under a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def enlarged(x, other):
    """A map at the size of another one."""
    return F.interpolate(x, other.shape[2:], mode="bilinear", align_corners=False)


class ConvNorm(nn.Module):
    """Convolution, batch norm, ReLU, of the kernel's shape that a file has."""

    def __init__(self, kernel):
        super().__init__()
        outputs, inputs, side, _ = kernel.shape
        self.conv = nn.Conv2d(inputs, outputs, side, padding=side // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x):
        return self.bn(self.conv(x)).relu()


class Pooled(nn.Module):
    """A map's averages in parts, brought to a width; the names count the pool."""

    def __init__(self, parts, kernel):
        super().__init__()
        self.add_module("0", nn.AdaptiveAvgPool2d(parts))
        self.add_module("1", ConvNorm(kernel))

    def forward(self, x):
        return getattr(self, "1")(getattr(self, "0")(x))


def classifier(state):
    """The convolution to classes."""
    classes, inputs = state["conv_seg.weight"].shape[:2]
    return nn.Conv2d(inputs, classes, 1)


class UPerHead(nn.Module):
    """Maps [(B, C, H, W)] fine to coarse -> scores of classes (B, K, H, W) before softmax."""

    def __init__(self, state, bins):
        super().__init__()

        def several(name):
            count = sum(bool(re.fullmatch(rf"{name}\.\d+\.conv\.weight", key)) for key in state)
            return nn.ModuleList([ConvNorm(state[f"{name}.{i}.conv.weight"]) for i in range(count)])

        self.psp_modules = nn.ModuleList(
            [Pooled(parts, state[f"psp_modules.{i}.1.conv.weight"]) for i, parts in enumerate(bins)]
        )
        self.bottleneck = ConvNorm(state["bottleneck.conv.weight"])
        self.lateral_convs, self.fpn_convs = several("lateral_convs"), several("fpn_convs")
        self.fpn_bottleneck = ConvNorm(state["fpn_bottleneck.conv.weight"])
        self.conv_seg = classifier(state)

    def forward(self, maps):
        x = maps[-1]
        top = self.bottleneck(torch.cat([x, *(enlarged(part(x), x) for part in self.psp_modules)], 1))
        sums = [lateral(y) for lateral, y in zip(self.lateral_convs, maps[:-1], strict=True)] + [top]
        for i in reversed(range(len(sums) - 1)):
            sums[i] = sums[i] + enlarged(sums[i + 1], sums[i])
        sums = [smooth(y) for smooth, y in zip(self.fpn_convs, sums[:-1], strict=True)] + [top]
        return self.conv_seg(self.fpn_bottleneck(torch.cat([enlarged(y, sums[0]) for y in sums], 1)))


class FCNHead(nn.Module):
    """Maps -> scores of classes of the last but one."""

    def __init__(self, state):
        super().__init__()
        self.convs = nn.ModuleList([ConvNorm(state["convs.0.conv.weight"])])
        self.conv_seg = classifier(state)

    def forward(self, maps):
        return self.conv_seg(self.convs[0](maps[-2:][0]))


class UPerNet(nn.Module):
    """Images (B, C, H, W) -> scores of classes (B, K, h, w), of the finest map's cells."""

    def __init__(self, state, bins):
        super().__init__()
        self.backbone = backbone(under(state, "backbone."))
        self.decode_head = UPerHead(under(state, "decode_head."), bins)
        auxiliary = under(state, "auxiliary_head.")
        self.auxiliary_head = FCNHead(auxiliary) if auxiliary else None

    def forward(self, images):
        maps = self.backbone(images)
        if self.auxiliary_head is not None:
            self.auxiliary_head(maps)
        return self.decode_head(maps)


def state_of(content):
    """The tensors of a segmenter in a file's nested dicts, or None."""
    if any(map(SIGN.fullmatch, content)):
        return content
    inner = (state_of(part) for part in content.values() if isinstance(part, dict))
    return next((state for state in inner if state is not None), None)


def plain_upernet(request):
    """The UPerNet of a file of Open-MMLab's names -> (model, function of a batch)."""
    state = state_of(load_file(request["file"]))
    if state is None:
        raise Refusal("the file holds no UPerNet under mmsegmentation's names")
    model = UPerNet(state, request["bins"])
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise Refusal(f"the file and a UPerNet of its numbers differ: {error}") from error
    return model, model


def numbers_of(state):
    """What SwinConfig takes of the tensors of a backbone, of either generation of transformers' names."""
    kernel = next(x for n, x in state.items() if n.endswith("patch_embeddings.projection.weight"))
    tables, pattern = {}, re.compile(r"(?:.*\.)?encoder\.layers\.(\d+)\.blocks\.(\d+)\..*position_bias_table")
    for name, value in state.items():
        if match := pattern.fullmatch(name):
            tables[int(match[1]), int(match[2])] = value.shape
    stages = range(1 + max(s for s, _ in tables))
    hidden = next(x for n, x in state.items() if re.search(r"blocks\.0\.(?:intermediate\.dense|mlp\.fc1)\.weight", n))
    return {
        "patch_size": kernel.shape[2],
        "num_channels": kernel.shape[1],
        "embed_dim": kernel.shape[0],
        "depths": [sum(stage == s for stage, _ in tables) for s in stages],
        "num_heads": [tables[s, 0][1] for s in stages],
        "window_size": (math.isqrt(tables[0, 0][0]) + 1) // 2,
        "mlp_ratio": hidden.shape[0] / hidden.shape[1],
        "out_features": [f"stage{s + 1}" for s in stages],
    }


def transformers_upernet(request):
    """transformers' UPerNet, which loads a file itself -> (model, function of a batch)."""
    import transformers

    file = request["file"]
    state = state_of(load_file(file))
    if state is None:
        raise Refusal("the file holds no UPerNet under transformers' names")
    auxiliary = under(state, "auxiliary_head.")
    config = transformers.UperNetConfig(
        backbone_config=transformers.SwinConfig(**numbers_of(under(state, "backbone."))),
        hidden_size=len(state["decode_head.fpn_bottleneck.conv.weight"]),
        pool_scales=request["bins"],
        num_labels=len(state["decode_head.classifier.weight"]),
        use_auxiliary_head=bool(auxiliary),
    )
    if auxiliary:
        config.auxiliary_channels, config.auxiliary_in_channels = auxiliary["convs.0.conv.weight"].shape[:2]
    folder = os.path.join(request["out"], "model")
    os.mkdir(folder)
    config.save_pretrained(folder)
    safe = file.lower().endswith(".safetensors")
    shutil.copyfile(file, os.path.join(folder, "model.safetensors" if safe else "pytorch_model.bin"))
    model, info = transformers.UperNetForSemanticSegmentation.from_pretrained(
        folder, output_loading_info=True, local_files_only=True
    )
    wrong = [k for k in (*info["missing_keys"], *info["unexpected_keys"]) if not UNUSED.search(k)]
    if wrong or info["mismatched_keys"]:
        raise Refusal(f"transformers' UPerNet does not take this file: {wrong}; {info['mismatched_keys']}")
    return model, lambda batch: run(model, batch)


def run(model, batch):
    """Scores of classes of the finest map's cells; the auxiliary head is run too."""
    maps = model.backbone.forward_with_filtered_kwargs(batch).feature_maps
    if model.auxiliary_head is not None:
        model.auxiliary_head(maps)
    return model.decode_head(maps)


def parameters_of(model):
    """How many numbers a model computes its output from."""
    return sum(p.numel() for name, p in model.named_parameters() if not UNUSED.search(name))


PROGRAMS = {"torch": plain_upernet, "transformers": transformers_upernet}
