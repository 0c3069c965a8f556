"""Mask R-CNN and Cascade Mask R-CNN in plain PyTorch, under the names of the programs that write their files.

Imports nothing of swins or Keras. Every number is read off the tensors, and a file is loaded strictly: what is not in
it, or not in the network, is an error. RoIAlign and suppression are torchvision's. Letters: B images, (H, W) cells of a
map, C channels, R regions, K classes.
"""

import math
import re

import torch
from pickled_files import Refusal, load_file
from torch import nn
from torch.nn import functional as F
from torch_backbones import Named, backbone
from torchvision.ops import batched_nms, roi_align

STRIDES = (4, 8, 16, 32, 64)
RATIOS = (0.5, 1.0, 2.0)  # of anchors, height over width
SCALE = 8  # side of an anchor over its map's stride
LIMIT = math.log(1000 / 16)
STDS = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))
FINEST = 56  # side in pixels of regions that begin to be of the second map, halved


def convolution(inputs, outputs, side, norm=False):
    """A convolution inside a module of its own, with or without a batch norm, as mmcv names them."""
    conv = nn.Conv2d(inputs, outputs, side, padding=side // 2, bias=not norm)
    return Named(conv=conv, bn=nn.BatchNorm2d(outputs)) if norm else Named(conv=conv)


def under(state, prefix):
    """What a state dict has under a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


class BoxHead(nn.Module):
    """Features of regions (R, C, 7, 7) -> class scores before softmax (R, K + 1), deltas (R, 4K)."""

    def __init__(self, state):
        super().__init__()
        convs = sorted(name for name in state if name.endswith(".conv.weight"))
        dense = sorted(name for name in state if re.fullmatch(r"shared_fcs\.\d\.weight", name))
        shapes = [state[name].shape for name in convs]
        self.shared_convs = nn.ModuleList([convolution(shape[1], shape[0], 3, norm=True) for shape in shapes])
        self.shared_fcs = nn.ModuleList([nn.Linear(*reversed(state[name].shape)) for name in dense])
        self.fc_cls = nn.Linear(*reversed(state["fc_cls.weight"].shape))
        self.fc_reg = nn.Linear(*reversed(state["fc_reg.weight"].shape))

    def forward(self, x):
        for part in self.shared_convs:
            x = part.bn(part.conv(x)).relu()
        x = x.flatten(1)
        for dense in self.shared_fcs:
            x = dense(x).relu()
        return self.fc_cls(x), self.fc_reg(x)


class MaskHead(nn.Module):
    """Features of regions (R, C, 14, 14) -> masks before the sigmoid (R, K, 28, 28)."""

    def __init__(self, state):
        super().__init__()
        convs = sorted(name for name in state if name.endswith(".conv.weight"))
        self.convs = nn.ModuleList([convolution(state[n].shape[1], state[n].shape[0], 3) for n in convs])
        inputs, outputs = state["upsample.weight"].shape[:2]
        self.upsample = nn.ConvTranspose2d(inputs, outputs, 2, stride=2)
        classes, inputs = state["conv_logits.weight"].shape[:2]
        self.conv_logits = nn.Conv2d(inputs, classes, 1)

    def forward(self, x):
        for part in self.convs:
            x = part.conv(x).relu()
        return self.conv_logits(self.upsample(x).relu())


def heads(state, module):
    """The heads of a module's name: one, or one a stage of a cascade."""
    inside = under(state, f"{module}.")
    if not inside:
        return None
    numbers = sorted({int(match[1]) for name in inside if (match := re.match(r"(\d)\.", name))})
    make = BoxHead if module.endswith("bbox_head") else MaskHead
    return nn.ModuleList([make(under(inside, f"{k}.")) for k in numbers]) if numbers else make(inside)


class Detector(nn.Module):
    """A whole detector of two stages, made for the tensors of a file."""

    def __init__(self, state):
        super().__init__()
        self.backbone = backbone(under(state, "backbone."))
        laterals = [n for n in sorted(state) if re.fullmatch(r"neck\.lateral_convs\.\d\.conv\.weight", n)]
        width = len(state[laterals[0]])
        self.neck = Named(
            lateral_convs=nn.ModuleList([convolution(state[n].shape[1], width, 1) for n in laterals]),
            fpn_convs=nn.ModuleList([convolution(width, width, 3) for _ in laterals]),
        )
        self.rpn_head = Named(
            rpn_conv=nn.Conv2d(width, width, 3, padding=1),
            rpn_cls=nn.Conv2d(width, len(RATIOS), 1),
            rpn_reg=nn.Conv2d(width, 4 * len(RATIOS), 1),
        )
        parts = {name: heads(state, f"roi_head.{name}") for name in ("bbox_head", "mask_head")}
        self.roi_head = Named(**{name: part for name, part in parts.items() if part is not None})

    def stages(self, name):
        """Heads of a name, one for each stage."""
        part = getattr(self.roi_head, name, None)
        return list(part) if isinstance(part, nn.ModuleList) else [part] if part is not None else []

    def pyramid(self, images):
        """[(B, C, H, W)] of five levels, fine to coarse."""
        maps = self.backbone(images)
        sums = [part.conv(x) for part, x in zip(self.neck.lateral_convs, maps, strict=True)]
        for i in reversed(range(len(sums) - 1)):
            sums[i] = sums[i] + F.interpolate(sums[i + 1], scale_factor=2, mode="nearest")
        maps = [part.conv(x) for part, x in zip(self.neck.fpn_convs, sums, strict=True)]
        return [*maps, maps[-1][:, :, ::2, ::2]]

    def objectness(self, maps):
        """Of each map: scores before the sigmoid (B, 3, H, W), deltas (B, 12, H, W)."""
        hidden = [self.rpn_head.rpn_conv(x).relu() for x in maps]
        return [self.rpn_head.rpn_cls(x) for x in hidden], [self.rpn_head.rpn_reg(x) for x in hidden]

    def regions(self, maps, boxes, side):
        """Features of the regions of one image: (R, 4) -> (R, C, side, side)."""
        extent = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        levels = (extent.sqrt() / FINEST + 1e-6).log2().floor().clamp(0, 3)
        features = boxes.new_zeros(len(boxes), maps[0].shape[1], side, side)
        for i, (x, stride) in enumerate(zip(maps[:4], STRIDES[:4], strict=True)):
            if (chosen := levels == i).any():
                features[chosen] = roi_align(x, [boxes[chosen]], side, 1 / stride, -1, aligned=True)
        return features


def anchors(size, stride):
    """(H*W*3, 4) corners: row, column, ratio."""
    root = torch.tensor(RATIOS).sqrt()
    width, height = SCALE * stride / root, SCALE * stride * root
    sides = torch.stack([-width, -height, width, height], -1) / 2
    y, x = torch.meshgrid(*(torch.arange(side) * float(stride) for side in size), indexing="ij")
    return (torch.stack([x, y, x, y], -1)[:, :, None] + sides).reshape(-1, 4)


def moved(boxes, deltas, stds, size):
    """Boxes (..., 4) moved by deltas (..., 4), within an image of (height, width)."""
    deltas = deltas * deltas.new_tensor(stds)
    sides = boxes[..., 2:] - boxes[..., :2]
    centre = (boxes[..., 2:] + boxes[..., :2]) / 2 + deltas[..., :2] * sides
    half = sides * deltas[..., 2:].clamp(-LIMIT, LIMIT).exp() / 2
    limits = boxes.new_tensor(size[::-1])
    corners = [corner.clamp(min=0).minimum(limits) for corner in (centre - half, centre + half)]
    return torch.cat(corners, -1)


def proposed(scores, deltas, size, most=1000):
    """Proposals of one image from `objectness`, the best first: (n, 4)."""
    boxes, probabilities, levels = [], [], []
    for i, (s, d, stride) in enumerate(zip(scores, deltas, STRIDES, strict=True)):
        p = s[0].permute(1, 2, 0).reshape(-1).sigmoid()
        order = p.argsort(descending=True, stable=True)[:most]
        d = d[0].permute(1, 2, 0).reshape(-1, 4)[order]
        boxes.append(moved(anchors(s.shape[2:], stride)[order], d, (1, 1, 1, 1), size))
        probabilities.append(p[order])
        levels.append(torch.full_like(p[order], i))
    boxes, probabilities, levels = map(torch.cat, (boxes, probabilities, levels))
    kept = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(-1)
    boxes, probabilities, levels = boxes[kept], probabilities[kept], levels[kept]
    return boxes[batched_nms(boxes, probabilities, levels, 0.7)[:most]]


def scored(detector, maps, boxes, size):
    """The stages' box heads on proposals -> (boxes of the last stage, mean class scores, its deltas)."""
    everything, boxes_heads = [], detector.stages("bbox_head")
    for k, head in enumerate(boxes_heads):
        scores, deltas = head(detector.regions(maps, boxes, 7))
        everything.append(scores)
        if k < len(boxes_heads) - 1:
            best = scores[:, :-1].argmax(-1)
            own = deltas.view(len(boxes), -1, 4)[torch.arange(len(boxes)), best]
            boxes = moved(boxes, own, STDS[k], size)
    return boxes, sum(everything) / len(everything), deltas


def answers(detector, maps, boxes, size):
    """What is found in one image: boxes (n, 4), scores (n,), labels (n,), masks (n, 28, 28) or none."""
    boxes, scores, deltas = scored(detector, maps, boxes, size)
    stds = STDS[len(detector.stages("bbox_head")) - 1]
    moves = moved(boxes[:, None], deltas.view(len(boxes), -1, 4), stds, size)
    probabilities = scores.softmax(-1)[:, :-1]
    places, labels = torch.where(probabilities > 0.05)
    candidates, values = moves[places, labels], probabilities[places, labels]
    kept = batched_nms(candidates, values, labels, 0.5)[:100]
    boxes, labels = candidates[kept], labels[kept]
    found = {"boxes": boxes, "scores": values[kept], "labels": labels}
    if masks := detector.stages("mask_head"):
        features = detector.regions(maps, boxes, 14)
        parts = [head(features).sigmoid()[torch.arange(len(boxes)), labels] for head in masks]
        found["masks"] = sum(parts) / len(parts)
    return found


def state_of(content):
    """The tensors of a detector in a file's nested dicts."""
    if "rpn_head.rpn_cls.weight" in content:
        return content
    inner = (state_of(part) for part in content.values() if isinstance(part, dict))
    return next((state for state in inner if state is not None), None)


def load_detector(path):
    """The Detector of a file, loaded strictly, to evaluate."""
    state = state_of(load_file(path))
    if state is None:
        raise Refusal("the file holds no detector under mmdet's names")
    detector = Detector(state)
    try:
        detector.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise Refusal(f"the file and a detector of its numbers differ: {error}") from error
    return detector.eval()


def steps(detector, image, size, regions):
    """{name: array} of every step for one image (1, 3, H, W) of a size, and what is found in it; channels last.

    Heads are run on the first `regions` proposals, "proposals".
    """
    maps = detector.pyramid(image)
    scores, deltas = detector.objectness(maps)
    boxes = proposed(scores, deltas, size)
    out = {"all_proposals": boxes, "proposals": boxes[:regions]}
    for name, values in {"map": maps, "objectness": scores, "deltas": deltas}.items():
        out |= {f"{name}_{i}": x.permute(0, 2, 3, 1) for i, x in enumerate(values)}
    for k, head in enumerate(detector.stages("bbox_head")):
        out[f"class_{k}"], out[f"box_{k}"] = head(detector.regions(maps, out["proposals"], 7))
    for k, head in enumerate(detector.stages("mask_head")):
        out[f"mask_{k}"] = head(detector.regions(maps, out["proposals"], 14)).permute(0, 2, 3, 1)
    out |= {f"found_{name}": x for name, x in answers(detector, maps, boxes, size).items()}
    return {name: x.numpy() for name, x in out.items()}
