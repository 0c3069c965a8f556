"""What torchvision's augmentations for SSD do to an image's boxes on average -> box_augment.json beside this file.

Command: python tests/reference/box_augment.py (torchvision 0.29.2, torch 2.15.0; a minute). A process of its own.
"""

import json
import pathlib

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

HEIGHT, WIDTH, SIDE = 240, 320, 100
BOXES = [[10, 20, 60, 90], [100, 50, 280, 200], [200, 10, 230, 40], [0, 0, 320, 240], [290, 200, 318, 236]]
COUNT = 6000
torch.manual_seed(0)


def boxes():
    return tv_tensors.BoundingBoxes(
        torch.tensor(BOXES, dtype=torch.float32), format="XYXY", canvas_size=(HEIGHT, WIDTH)
    )


def summary(rows):
    """{name: [mean, deviation]} of the columns of [{name: number}]."""
    return {name: [float(np.mean(v)), float(np.std(v))] for name in rows[0] for v in [[row[name] for row in rows]]}


def crops():
    """Windows of RandomIoUCrop, the whole image among them."""
    transform, image, rows, whole = v2.RandomIoUCrop(), torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8), [], 0
    for _ in range(COUNT):
        p = transform.make_params([image, boxes()])
        if not p:
            whole += 1
            continue
        row = {"area": p["height"] * p["width"] / HEIGHT / WIDTH, "aspect": p["width"] / p["height"]}
        row |= {"left": p["left"] / WIDTH, "top": p["top"] / HEIGHT}
        row |= {f"box {i}": float(kept) for i, kept in enumerate(p["is_within_crop_area"])}
        rows.append(row)
    return {"whole": whole / COUNT, **summary(rows)}


def canvases():
    """Canvases of RandomZoomOut."""
    transform, image, rows = v2.RandomZoomOut(), torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8), []
    for _ in range(COUNT):
        left, top, right, bottom = transform.make_params([image, boxes()])["padding"]
        height, width = HEIGHT + top + bottom, WIDTH + left + right
        rows.append({"area": height * width / HEIGHT / WIDTH, "left": left / WIDTH, "top": top / HEIGHT})
    return summary(rows)


def colours():
    """Means and deviations of RandomPhotometricDistort's channels."""
    transform, rows = v2.RandomPhotometricDistort(), []
    image = torch.from_numpy(np.array(COLOURS, np.uint8)).permute(2, 0, 1)
    for _ in range(COUNT):
        pixels = transform(image).permute(1, 2, 0).numpy().reshape(-1, 3).astype(float)
        row = {f"mean {i}": pixels[:, i].mean() for i in range(3)} | {
            f"deviation {i}": pixels[:, i].std() for i in range(3)
        }
        rows.append({**row, "same": float(np.array_equal(pixels.reshape(-1, 3), np.reshape(COLOURS, (-1, 3))))})
    return summary(rows)


def whole():
    """Everything but colours: what becomes of the boxes of an image."""
    steps = (v2.RandomZoomOut(), v2.RandomIoUCrop(), v2.RandomHorizontalFlip(), v2.Resize((SIDE, SIDE), antialias=True))
    transform = v2.Compose(
        [*steps, v2.ClampBoundingBoxes(), v2.SanitizeBoundingBoxes(min_size=1)]
    )  # rounding passes edges
    rows = []
    for _ in range(COUNT // 2):
        image = tv_tensors.Image(torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8))
        own = transform({"image": image, "boxes": boxes(), "labels": torch.arange(len(BOXES))})
        rows.append(boxes_row(own["boxes"].numpy(), own["labels"].numpy()))
    return summary(rows)


def boxes_row(own, labels):
    """What is told of the boxes of a result."""
    sides = own[:, 2:] - own[:, :2]
    row = {"count": float(len(own)), "area": float(np.prod(sides, 1).sum() / SIDE**2 / max(len(own), 1))}
    row["middle"] = float(own[:, [0, 2]].mean() / SIDE) if len(own) else 0.5
    return row | {f"box {i}": float(i in labels) for i in range(len(BOXES))}


if __name__ == "__main__":
    COLOURS = np.random.default_rng(0).integers(20, 220, (6, 6, 3)).tolist()
    facts = {"size": [HEIGHT, WIDTH], "side": SIDE, "boxes": BOXES, "colours": COLOURS}
    facts |= {"crops": crops(), "canvases": canvases(), "distorted": colours(), "whole": whole()}
    pathlib.Path(__file__).with_suffix(".json").write_text(json.dumps(facts) + "\n")
