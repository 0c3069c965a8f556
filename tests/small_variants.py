"""Rows of dense networks as the embedded ones are, of three blocks in place of six: mechanisms are tested on them.

Import it and the names are `swins.create`'s in this process; blocks are shifted in the first stage, not in the second.
"""

from dataclasses import replace

from swins.detector_configs import DETECTORS
from swins.segmenter_configs import SEGMENTERS

BLOCKS = {"depths": (2, 1), "num_heads": (2, 4), "embed_dim": 16}
SSD, MASK_RCNN, UPERNET = "ssd64_swin_nano_b", "mask_rcnn_swin_nano_fpn", "upernet_swin_nano"


def smaller(row):
    """A row on so many blocks."""
    return replace(row, options={**row.options, **BLOCKS})


DETECTORS[SSD] = smaller(DETECTORS["ssd64_swin_mini_b"])
DETECTORS[MASK_RCNN] = smaller(replace(DETECTORS["mask_rcnn_swin_mini_fpn"], width=16, hidden=32))
SEGMENTERS[UPERNET] = smaller(replace(SEGMENTERS["upernet_swin_mini"], width=16, auxiliary=16))
