"""The README's Python runs as printed."""

import pathlib
import re

import numpy as np
import pytest
from conftest import needs_tensorflow

import swins
from swins.convert import pretrained
from swins.export import run as exporting

README = pathlib.Path(__file__).parents[1] / "README.md"


def block(first_line):
    """The Python block of the README that starts so."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    return next(code for code in blocks if code.startswith(first_line))


def test_ten_lines(perturbed, monkeypatch, tmp_path, rng):
    from PIL import Image

    monkeypatch.setattr(pretrained, "fetch", lambda name: perturbed("swin_tiny_patch4_window7_224"))
    monkeypatch.chdir(tmp_path)
    Image.fromarray(rng.integers(0, 256, (300, 400, 3), "uint8")).save("photo.jpg")
    code = block("import keras, swins")
    assert len([line for line in code.splitlines() if line]) == 10
    names = {}
    exec(code, names)
    assert names["logits"].shape == (1, 1000)
    assert names["pets"].output.shape == (None, 37)
    assert list(names["pyramid"].output) == ["P2", "P3", "P4", "P5"]
    assert names["mine"].count_params() > 80e6


def test_resize_lines(perturbed, monkeypatch):
    monkeypatch.setattr(pretrained, "fetch", lambda name: perturbed("swin_tiny_patch4_window7_224"))
    names = {"swins": swins}
    exec(block("base = swins.create"), names)
    for name in ("large", "authors"):
        assert names[name].input.shape == (None, 384, 384, 3)
        assert names[name].get_layer("stages_3_blocks_1").window_size == (12, 12)
    assert names["wide"].input.shape == (None, 240, 272, 3)
    assert names["every"].input.shape == (None, None, None, 3)


@needs_tensorflow
@pytest.mark.filterwarnings("ignore:pkg_resources is deprecated")  # tensorflow_hub 0.16.1 imports it
@pytest.mark.filterwarnings("ignore:.*declare_namespace:DeprecationWarning")  # pkg_resources again
def test_hub_lines(exported, tmp_path, monkeypatch):
    (tmp_path / "artefacts").mkdir()
    (tmp_path / "artefacts" / "my_swin").symlink_to(exported)
    monkeypatch.chdir(tmp_path)
    names = {
        "images": np.zeros((2, 28, 28, 1), "float32"),
        "files": exporting.photographs((28, 28)),
    }
    exec(block("import tensorflow_hub"), names)
    assert (names["logits"].shape, names["scores"].shape) == ((2, 10), (3, 10))
