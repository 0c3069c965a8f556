"""The UPerNet that the repository brings: its recipe's, small, and it says of each pixel which garment it is of."""

import json

import numpy as np
import pytest
from conftest import ROOT

import swins
from swins import recipes
from swins.data.garments import Garments

DEMO = ROOT / "demo" / "upernet_swin_mini"
RECIPE = ROOT / "recipes" / "upernet_garments_swin_mini.py"


def test_it_is_its_recipes_and_small():
    result = json.loads((DEMO / "result.json").read_text())
    assert recipes.today(result["recipe"]) == json.loads(json.dumps(recipes.as_json(recipes.load(RECIPE))))
    assert (DEMO / "model.keras").stat().st_size <= 4 * 2**20
    assert f"mIoU {100 * result['mIoU']:.2f}" in RECIPE.read_text()
    for page in ("README.md", "docs/segmentation.md"):
        assert f"mIoU {100 * result['mIoU']:.1f}" in (ROOT / page).read_text()


@pytest.mark.slow
def test_it_knows_garments_pixels():
    """Of 50 canvases: where a garment is, whatever it is called, and mostly which."""
    garments = Garments(
        ROOT / "demo/fashion_mnist", "val", count=50, size=64, objects=(1, 2), scale=(21, 48), colour=False
    )
    canvases = [garments[i] for i in range(len(garments))]
    ours = np.stack([result.mask for result in swins.load(DEMO)([canvas.image for canvas in canvases])])
    theirs = np.stack([canvas.semantic for canvas in canvases])
    covered = ((ours > 0) & (theirs > 0)).sum() / ((ours > 0) | (theirs > 0)).sum()
    assert covered >= 0.95 and (ours == theirs)[theirs > 0].mean() >= 0.7
