"""The Mask R-CNN that the repository brings: its recipe's, small, and it outlines garments."""

import json

import numpy as np
import pytest
from conftest import ROOT

import swins
from swins import recipes
from swins.data.garments import Garments

DEMO = ROOT / "demo" / "mask_rcnn_swin_mini_fpn"
RECIPE = ROOT / "recipes" / "mask_rcnn_garments_swin_mini.py"


def test_it_is_its_recipes_and_small():
    result = json.loads((DEMO / "result.json").read_text())
    assert recipes.today(result["recipe"]) == json.loads(json.dumps(recipes.as_json(recipes.load(RECIPE))))
    assert (DEMO / "model.keras").stat().st_size <= 6 * 2**20
    for name in ("AP50", "mask_AP50"):
        assert f"{100 * result[name]:.2f}" in RECIPE.read_text()
    for name in ("AP", "mask_AP"):
        assert f"{100 * result[name]:.1f}" in (ROOT / "README.md").read_text()


@pytest.mark.slow
def test_it_outlines_garments():
    """Of 50 canvases: most garments have a mask that is theirs, pixel for pixel, wherever the name is right or not."""
    garments = Garments(
        ROOT / "demo/fashion_mnist", "val", count=50, size=64, objects=(1, 2), scale=(21, 48), colour=False
    )
    canvases = [garments[i] for i in range(len(garments))]
    results = swins.load(DEMO)([canvas.image for canvas in canvases])
    overlaps = []
    for canvas, result in zip(canvases, results, strict=True):
        found = result.masks[result.scores >= 0.5][:, None]
        both = (found & canvas.masks).sum((2, 3)) / np.maximum((found | canvas.masks).sum((2, 3)), 1)
        overlaps.extend(both.max(0, initial=0))
    assert np.mean(np.array(overlaps) >= 0.75) >= 0.85
