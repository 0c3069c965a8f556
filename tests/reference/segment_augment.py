"""What mmsegmentation's transforms make of images and masks, and its scores -> segment_augment.json beside this file.

Command: PYTHONPATH=FOLDER_OF_mmcv_ops_stub:tests python tests/reference/segment_augment.py, in an environment with
mmsegmentation 1.2.2, mmcv-lite 2.1.0, OpenCV (see dense's oracles; a minute). Of scaled images and masks a digest is
kept; of crops and colours, which are random, means and deviations of many.
"""

import json
import pathlib
import random

import mmcv_ops_stub  # noqa: F401 (before mmseg)
import numpy as np
import segment_cases as cases
import torch
from instance_cases import digest
from mmcv.transforms import RandomResize
from mmseg.datasets.transforms import PhotoMetricDistortion, RandomCrop
from mmseg.evaluation import IoUMetric
from mmseg.utils import register_all_modules

FILE = pathlib.Path(__file__).with_suffix(".json")
DRAWS = 4000


def state_of(image, mask):
    return {
        "img": image,
        "img_shape": image.shape[:2],
        "gt_seg_map": mask,
        "seg_fields": ["gt_seg_map"],
    }


def spread(rows):
    """{name: (mean, deviation)} of rows of numbers."""
    return {name: [float(f([row[name] for row in rows])) for f in (np.mean, np.std)] for name in rows[0]}


def resized():
    kept = []
    for seed, size in enumerate(cases.SIZES):
        for ratio in cases.RATIOS:
            scale = RandomResize(
                scale=(cases.LONG, cases.SHORT), ratio_range=(ratio, ratio), resize_type="Resize", keep_ratio=True
            )
            state = scale(state_of(*cases.noise(size, seed)))
            kept.append(
                {
                    "size": list(state["img"].shape[:2]),
                    "image": digest(state["img"]),
                    "mask": digest(state["gt_seg_map"]),
                }
            )
    return kept


def crops():
    mask, rows = cases.uneven(), []
    place = np.stack(np.indices(mask.shape), -1).astype(np.int32)
    crop = RandomCrop(crop_size=cases.CROP, cat_max_ratio=0.75)
    for _ in range(DRAWS):
        state = crop(state_of(place, mask))
        part, (top, left) = state["gt_seg_map"], state["img"][0, 0]
        shares = {f"share {k}": float((part == k).mean()) for k in (0, 1, 2, 255)}
        rows.append({"top": float(top), "left": float(left), **shares})
    return spread(rows)


def distorted():
    image, rows = cases.colours()[..., ::-1].copy(), []
    for _ in range(DRAWS):
        pixels = PhotoMetricDistortion()({"img": image.copy()})["img"][..., ::-1].reshape(-1, 3).astype(float)
        row = {f"mean {i}": pixels[:, i].mean() for i in range(3)}
        row |= {f"deviation {i}": pixels[:, i].std() for i in range(3)}
        row |= {f"pixel {i} {j}": pixels[i, j] for i in (2, 3, 9) for j in range(3)}
        rows.append({**row, "same": float((pixels == image[..., ::-1].reshape(-1, 3)).all())})
    return spread(rows)


def scores():
    pairs = [(torch.tensor(guess), torch.tensor(truth)) for truth, guess in cases.predictions()]
    areas = [IoUMetric.intersect_and_union(guess, truth, 6, 255) for guess, truth in pairs]
    metrics = IoUMetric.total_area_to_metrics(*(sum(part) for part in zip(*areas, strict=True)), ["mIoU"])
    return {name: np.where(np.isnan(v), None, v).tolist() for name, v in metrics.items()} | {
        "means": {name: float(np.nanmean(v)) for name, v in metrics.items()}
    }


def main():
    register_all_modules()
    np.random.seed(0)
    random.seed(0)
    kept = {"resized": resized(), "crops": crops(), "distorted": distorted(), "scores": scores()}
    lines = [f"{json.dumps(name)}: {json.dumps(part)}" for name, part in kept.items()]
    FILE.write_text("{" + ",\n".join(lines) + "}\n")


if __name__ == "__main__":
    main()
