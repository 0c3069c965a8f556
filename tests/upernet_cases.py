"""Small UPerNets with the references' weights: rows, state dicts, and files of every layout."""

import json
import pathlib

import numpy as np
from shared_fixtures import script

import swins
from swins import detector_checkpoints, windows
from swins.convert import upernet_layouts
from swins.segmenter_configs import SEGMENTERS
from swins.tags import PRETRAINED, VARIANTS
from swins.weights import checkpoint_files, upernet_rules
from swins.weights.detector_layouts import MICROSOFT, MMDET
from swins.weights.upernet_rules import HUGGING_FACE, SMP

SCRIPT = str(pathlib.Path(__file__).parent / "reference" / "upernets.py")  # of transformers
REFERENCE = script("tests/reference/upernet_mmseg.py")
NAME, BACKBONE = "upernet_swin_pico", "swin_pico"
SWIN = swins.Variant(embed_dim=8, depths=(1, 2, 1, 1), num_heads=(1, 2, 4, 8), window_size=7)
ROW = swins.UPerNetVariant(
    num_classes=5, width=8, auxiliary=6, backbone=BACKBONE, options={"size_rule": "open_mmlab", "drop_path_rate": 0.1}
)
LAYOUTS = (MMDET, MICROSOFT, HUGGING_FACE, SMP)


def registered():
    """Add the small variants, until the generator goes on."""
    before = [(table, dict(table)) for table in (VARIANTS, PRETRAINED, SEGMENTERS)]
    swins.register_variant(BACKBONE, SWIN)
    swins.register_variant(NAME, ROW)
    yield
    for table, content in before:
        table.clear()
        table.update(content)


def expected():
    """What mmsegmentation gives, by name."""
    with np.load(REFERENCE.FILE) as file:
        return dict(file)


def raw_state():
    """The state dict that mmsegmentation's network had, under its own names (layout M)."""
    state = {}
    for name, shape in json.loads(str(expected()["shapes"])).items():
        if name.endswith("relative_position_index"):
            state[name] = windows.relative_index((7, 7)).astype("int64")
        elif name.endswith("num_batches_tracked"):
            state[name] = np.zeros(shape, "int64")
        else:
            state[name] = REFERENCE.seeded(name, tuple(shape))
    return state


def in_layout(model, layout):
    """A network's state dict as a program's files have it."""
    return upernet_layouts.in_layout(detector_checkpoints.state_dict(model, upernet_rules.table_of), layout)


def write(state, path):
    """A file of a state dict -> its path."""
    checkpoint_files.write(state, path)
    return path
