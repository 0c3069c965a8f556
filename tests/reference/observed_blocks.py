"""What blocks of the programs that Swins come from are seen to do with their maps: windows, shifts, masks."""

import itertools
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F


def image(size, seed):
    """A picture of noise: (1, H, W, 3) float32."""
    return np.random.default_rng(seed).standard_normal((1, *size, 3)).astype("float32")


@dataclass
class Watch:
    """Hooks on a model's blocks: the map (H, W, C) that each was given, and the windows and mask its attention got."""

    maps: list = field(default_factory=list)
    calls: list = field(default_factory=list)

    def __post_init__(self):
        self.given = None

    def attach(self, model):
        for block in model.modules():
            if type(block).__name__ in ("SwinTransformerBlock", "SwinBlock", "SwinBlockV2"):
                block.register_forward_pre_hook(self.block, with_kwargs=True)
                if hasattr(block, "norm1") and type(block).__name__ != "SwinBlockV2" and not is_post_norm(block):
                    block.norm1.register_forward_hook(lambda _, args, out: self.maps.append(self.shaped(out)))
        for layer in model.modules():
            if type(layer).__name__ in ("WindowMSA", "WindowMSAV2", "WindowAttention", "WindowMultiHeadAttention"):
                layer.register_forward_pre_hook(self.attention, with_kwargs=True)

    def shaped(self, x):
        return x.detach()[0].reshape(*self.given, -1).clone()

    def block(self, block, args, kwargs):
        x = args[0]
        if x.ndim == 4:  # ChristophReich1996's (B, C, H, W)
            self.given, x = tuple(x.shape[2:]), x.permute(0, 2, 3, 1)
        elif len(args) > 1 and isinstance(args[1], tuple):
            self.given = args[1]
        else:
            self.given = (block.H, block.W) if hasattr(block, "H") else block.input_resolution
        if is_post_norm(block):
            self.maps.append(self.shaped(x))

    def attention(self, _, args, kwargs):
        x, mask = args[0].detach(), kwargs.get("mask")
        x = x.flatten(2).transpose(1, 2) if x.ndim == 4 else x
        self.calls.append((x.clone(), mask))

    def blocks(self):
        return [geometry(x, windows, mask) for x, (windows, mask) in zip(self.maps, self.calls, strict=True)]


def is_post_norm(block):
    """Whether a block's attention gets its input itself (V2), not normed (V1)."""
    return hasattr(block, "normalization_1") or any(
        name.endswith("logit_scale") for name, _ in block.named_parameters()
    )


def cut(x, window):
    """(H, W, C) -> windows (K, M * M', C)."""
    (h, w, c), (m, n) = x.shape, window
    return x.reshape(h // m, m, w // n, n, c).transpose(1, 2).reshape(-1, m * n, c)


def fill(x, window):
    """Zeros below and to the right, until windows tile."""
    return F.pad(x, (0, 0, 0, -x.shape[1] % window[1], 0, -x.shape[0] % window[0]))


def roll(x, shift):
    return torch.roll(x, [-s for s in shift], (0, 1))


def expected_mask(size, window, shift):
    """-1 where two tokens of a window come from regions that the shift brought together: (K, N, N)."""
    ids = torch.zeros(*size)
    rows, columns = (
        (slice(0, -m), slice(-m, -s or None), slice(-s if s else side, None))
        for side, m, s in zip(size, window, shift, strict=True)
    )
    for number, (row, column) in enumerate(itertools.product(rows, columns)):
        ids[row, column] = number
    ids = cut(ids[..., None], window)[..., 0]
    return -(ids[:, :, None] != ids[:, None, :]).float()


def geometry(x, windows, mask):
    """The window, shift, order and mask value with which a map (H, W, C) became these windows, bit for bit."""
    h, w, tokens = *x.shape[:2], windows.shape[1]
    shapes = [(m, tokens // m) for m in range(1, tokens + 1) if tokens % m == 0]
    shapes = sorted(shapes, key=lambda s: abs(s[0] - s[1]))
    for window in [(h, w)] if (h * w == tokens and len(windows) == 1) else shapes:
        for shift in itertools.product(range(window[0]), range(window[1])):
            orders = {"pad_then_roll": roll(fill(x, window), shift), "roll_then_pad": fill(roll(x, shift), window)}
            fits = [name for name, y in orders.items() if torch.equal(cut(y, window), windows)]
            if fits:
                size = fill(x, window).shape[:2]
                value = 0.0 if mask is None else mask.min().item()
                same = mask is None or torch.equal(mask, -value * expected_mask(size, window, shift))
                return {
                    "map": [h, w],
                    "window": list(window),
                    "shift": list(shift),
                    "order": fits[0] if len(fits) == 1 else "either",
                    "mask": value if same else "another",
                }
    raise ValueError(f"no rule gives windows {tuple(windows.shape)} of a map {tuple(x.shape)}")


# Writing
