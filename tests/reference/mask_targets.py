"""What mmdetection makes the mask head's targets of masks and regions -> mask_targets.npz beside this file.

Command: PYTHONPATH=FOLDER_OF_mmcv_ops_stub:tests python tests/reference/mask_targets.py, in an environment with mmdet
3.3.0 (see instance_augment.py; 5 seconds). Regions are those of tests/instance_cases.py.
"""

import pathlib

import mmcv_ops_stub  # noqa: F401 (before mmdet)
import numpy as np
import torch
from instance_cases import CANVASES, regions
from mmdet.structures.mask import BitmapMasks
from mmdet.structures.mask.mask_target import mask_target_single
from mmengine.config import Config

SIDE = 28


def main():
    targets = {}
    for canvas in CANVASES:
        masks, boxes, sources = regions(canvas)
        bitmaps = BitmapMasks(masks.astype(np.uint8), *canvas)
        found = mask_target_single(
            torch.from_numpy(boxes), torch.from_numpy(sources), bitmaps, Config({"mask_size": SIDE})
        )
        targets[f"{canvas[0]}x{canvas[1]}"] = np.packbits(found.numpy().astype(bool))
    np.savez_compressed(pathlib.Path(__file__).with_suffix(".npz"), **targets)


if __name__ == "__main__":
    main()
