"""Backbones of detectors in plain PyTorch, under the names of the programs that write detectors' files.

Imports nothing of swins or Keras. Numbers are read off the tensors. Letters: B images, (H, W) cells of a map, C its
channels, M side of a window, N tokens of one, K windows.
"""

import math
import re

import torch
import torchvision
from torch import nn
from torch.nn import functional as F


class Named(nn.Module):
    """Modules by name, with nothing to compute."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


class Attention(nn.Module):
    """Attention in windows: (windows, N, C), mask (K, N, N) -> (windows, N, C)."""

    def __init__(self, channels, heads, side):
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * side - 1) ** 2, heads))
        rows, columns = (axis.flatten() for axis in torch.meshgrid(*[torch.arange(side)] * 2, indexing="ij"))
        down, right = rows[:, None] - rows, columns[:, None] - columns
        self.register_buffer("relative_position_index", (down + side - 1) * (2 * side - 1) + right + side - 1)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x, mask):
        count, n, channels = x.shape
        q, k, v = self.qkv(x).view(count, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = q @ k.transpose(-1, -2) / math.sqrt(channels // self.heads)
        weights = weights + self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        if mask is not None:
            per_image = weights.view(-1, len(mask), self.heads, n, n) + mask[:, None]
            weights = per_image.view(count, self.heads, n, n)
        y = weights.softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(count, n, channels))


def cut(x, side):
    """(B, H, W, C) -> windows (B*K, N, C)."""
    b, h, w, c = x.shape
    return x.view(b, h // side, side, w // side, side, c).transpose(2, 3).reshape(-1, side * side, c)


def joined(windows, side, size):
    """What `cut` cut: (B*K, N, C) -> (B, H, W, C)."""
    (h, w), c = size, windows.shape[-1]
    return windows.view(-1, h // side, w // side, side, side, c).transpose(2, 3).reshape(-1, h, w, c)


def apart(size, side, shift):
    """What keeps regions of a rolled map apart: (K, N, N), 0 or -100."""
    regions = torch.zeros(1, *size, 1)
    spans = [slice(0, -side), slice(-side, -shift), slice(-shift, None)]
    for i, rows in enumerate(spans):
        for j, columns in enumerate(spans):
            regions[:, rows, columns] = 3 * i + j
    ids = cut(regions, side)[..., 0]
    return (ids[:, :, None] != ids[:, None]) * -100.0


class Block(nn.Module):
    """A block of Swin on maps of any size, padded up to windows: (B, H, W, C) -> the same."""

    def __init__(self, channels, heads, side, hidden, shifted):
        super().__init__()
        self.side, self.shift = side, side // 2 if shifted else 0
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.put(Attention(channels, heads, side), nn.Linear(channels, hidden), nn.Linear(hidden, channels))

    def forward(self, x):
        x = x + self.windows(self.norm1(x))
        first, second = self.layers_of()
        return x + second(F.gelu(first(self.norm2(x))))

    def windows(self, x):
        h, w, side = *x.shape[1:3], self.side
        x = F.pad(x, (0, 0, 0, -w % side, 0, -h % side))
        size, mask = x.shape[1:3], None
        if self.shift:
            x = x.roll((-self.shift, -self.shift), (1, 2))
            mask = apart(size, side, self.shift)
        x = joined(self.attention()(cut(x, side), mask), side, size)
        return x.roll((self.shift, self.shift), (1, 2))[:, :h, :w]


class MicrosoftBlock(Block):
    """A block under the names of Swin-Transformer-Object-Detection."""

    def put(self, attention, first, second):
        self.attn, self.mlp = attention, Named(fc1=first, fc2=second)

    def attention(self):
        return self.attn

    def layers_of(self):
        return self.mlp.fc1, self.mlp.fc2


class MMDetBlock(Block):
    """A block under mmdet's names."""

    def put(self, attention, first, second):
        self.attn = Named(w_msa=attention)
        self.ffn = Named(layers=nn.ModuleList([nn.ModuleList([first]), second]))

    def attention(self):
        return self.attn.w_msa

    def layers_of(self):
        return self.ffn.layers[0][0], self.ffn.layers[1]


class Merging(nn.Module):
    """2x2 neighbours become one cell of twice the channels; the column is the slow axis of the four."""

    def __init__(self, channels):
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * channels), nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x):
        return self.reduction(self.norm(self.stacked(F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2)))))

    def stacked(self, x):
        return torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1)


class MMDetMerging(Merging):
    """As mmdet unfolds it: all four neighbours of a channel lie together, the row is the slow axis."""

    def stacked(self, x):
        return torch.stack([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], -1).flatten(-2)


class Swin(nn.Module):
    """Images (B, 3, H, W) -> normed maps of each stage, [(B, C, H, W)]; under a program's names, which are given."""

    STAGES, PROJECTION, BLOCK, MERGING = "layers", "proj", MicrosoftBlock, Merging

    def __init__(self, state):
        super().__init__()
        kernel = state[f"patch_embed.{self.PROJECTION}.weight"]
        width, channels, self.patch, _ = kernel.shape
        projection = nn.Conv2d(channels, width, self.patch, self.patch)
        self.patch_embed = Named(**{self.PROJECTION: projection, "norm": nn.LayerNorm(width)})
        places = [re.match(rf"{self.STAGES}\.(\d+)\.blocks\.(\d+)\.", name) for name in state]
        blocks = {(int(place[1]), int(place[2])) for place in places if place}
        stages, self.count = nn.ModuleList(), 1 + max(s for s, _ in blocks)
        for s in range(self.count):
            dim, parts = width * 2**s, {}
            rows = []
            for b in range(sum(stage == s for stage, _ in blocks)):
                begin = f"{self.STAGES}.{s}.blocks.{b}."
                table = next(x for n, x in state.items() if n.startswith(begin) and n.endswith("bias_table"))
                hidden = next(
                    x for n, x in state.items() if n.startswith(begin) and re.search(r"(fc1|0\.0)\.weight$", n)
                )
                side = (math.isqrt(table.shape[0]) + 1) // 2
                rows.append(self.BLOCK(dim, table.shape[1], side, len(hidden), b % 2))
            parts["blocks"] = nn.ModuleList(rows)
            if s < self.count - 1:
                parts["downsample"] = self.MERGING(dim)
            stages.append(Named(**parts))
            if f"norm{s}.weight" in state:
                self.add_module(f"norm{s}", nn.LayerNorm(dim))
        self.add_module(self.STAGES, stages)

    def forward(self, images):
        h, w = images.shape[2:]
        images = F.pad(images, (0, -w % self.patch, 0, -h % self.patch))
        x = getattr(self.patch_embed, self.PROJECTION)(images).permute(0, 2, 3, 1)
        x, maps = self.patch_embed.norm(x), []
        for s, stage in enumerate(getattr(self, self.STAGES)):
            for block in stage.blocks:
                x = block(x)
            norm = getattr(self, f"norm{s}", None)
            maps.append((norm(x) if norm else x).permute(0, 3, 1, 2))
            if hasattr(stage, "downsample"):
                x = stage.downsample(x)
        return maps


class MMDetSwin(Swin):
    """Swin under mmdet's names."""

    STAGES, PROJECTION, BLOCK, MERGING = "stages", "projection", MMDetBlock, MMDetMerging


class ResNet(torchvision.models.ResNet):
    """torchvision's ResNet of bottlenecks, whose names mmdet has: images -> maps of each stage."""

    def __init__(self, state):
        depths = [len({n.split(".")[1] for n in state if n.startswith(f"layer{s}.")}) for s in (1, 2, 3, 4)]
        super().__init__(torchvision.models.resnet.Bottleneck, depths)
        self.fc = nn.Identity()

    def forward(self, images):
        x, maps = self.maxpool(self.relu(self.bn1(self.conv1(images)))), []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            maps.append(x)
        return maps


def backbone(state):
    """The backbone that a file's tensors are of, by their names without "backbone."."""
    if any(name.startswith("stages.") for name in state):
        return MMDetSwin(state)
    return (Swin if any(name.startswith("layers.") for name in state) else ResNet)(state)
