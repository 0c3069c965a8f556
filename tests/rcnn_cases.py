"""Small detectors that have mmdet's seeded weights: rows, state dicts and files of every layout."""

import json
from dataclasses import replace

import numpy as np
from shared_fixtures import script

import swins
from swins import windows
from swins.detector_configs import DETECTORS
from swins.tags import PRETRAINED, VARIANTS

REFERENCE = script("tests/reference/mask_rcnn_reference.py")
SWIN = swins.Variant(embed_dim=8, depths=(1, 1, 2, 1), num_heads=(1, 2, 2, 4), window_size=7)
ROW = swins.RCNNVariant(num_classes=5, width=16, hidden=24, backbone="swin_pico", options={"size_rule": "open_mmlab"})
ROWS = {"mask": ROW, "cascade": replace(ROW, cascade=True)}
NAMES = {"mask": "mask_rcnn_swin_pico_fpn", "cascade": "cascade_mask_rcnn_swin_pico_fpn"}


def registered():
    """Add the small variants, until the generator goes on."""
    before = [(table, dict(table)) for table in (VARIANTS, PRETRAINED, DETECTORS)]
    swins.register_variant("swin_pico", SWIN)
    for kind, row in ROWS.items():
        swins.register_variant(NAMES[kind], row)
    yield
    for table, content in before:
        table.clear()
        table.update(content)


def expected():
    """What mmdet gives, by name."""
    with np.load(REFERENCE.FILE) as file:
        return dict(file)


def raw_state(kind, reference):
    """The state dict that mmdet's network of a kind had, under its own names (layout M)."""
    state = {}
    for name, shape in json.loads(str(reference[f"{kind}/shapes"])).items():
        if name.endswith("relative_position_index"):
            state[name] = windows.relative_index((7, 7)).astype("int64")
        elif name.endswith("num_batches_tracked"):
            state[name] = np.zeros(shape, "int64")
        else:
            state[name] = REFERENCE.seeded(name, tuple(shape))
    return state
