"""Swins inside transformers' larger models: found wherever they sit, and equal to the backbones there."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
from keras import ops
from upernet_cases import SWIN

import swins
from swins.tags import PRETRAINED, VARIANTS

SCRIPT = pathlib.Path(__file__).parent / "reference" / "composites.py"
LEFT_OUT = {
    "upernet": "auxiliary_head, decode_head",
    "mask2former": "class_predictor, pixel_level_module, transformer_module",
    "maskformer": "class_predictor, mask_embedder, pixel_level_module, transformer_module",
    "donut": "decoder, enc_to_dec_proj",
}


@pytest.fixture(scope="module")
def composites(tmp_path_factory):
    """A folder of transformers' models, with maps.npz, what their backbones give."""
    folder = tmp_path_factory.mktemp("composites")
    subprocess.run([sys.executable, SCRIPT, folder], check=True, capture_output=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", LEFT_OUT)
@pytest.mark.parametrize("ending", ["", ".pth"], ids=["disk", "memory"])
def test_a_swin_is_found_wherever_it_sits(composites, name, ending, monkeypatch):
    """Donut's encoder norms no map; it follows the rule of a classifier."""
    monkeypatch.setitem(VARIANTS, "swin_pico", SWIN)
    monkeypatch.setitem(PRETRAINED, "swin_pico", ())
    with pytest.warns(UserWarning, match=f"only its Swin was taken; left out {LEFT_OUT[name]}$"):
        pyramid = swins.backbone(composites / f"{name}{ending}", norms=name != "donut", image_size=224)
    with np.load(composites / "maps.npz") as file:
        for level, ours in pyramid(np.load(composites / "images.npy")).items():
            theirs = file[f"{name}/{level}"]
            assert np.abs(ops.convert_to_numpy(ours) - theirs).max() <= 1e-5 * np.abs(theirs).max(), level
