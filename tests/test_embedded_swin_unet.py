"""The diffusion model that the repository brings: its recipe's, small, and its samples are what was asked for."""

import json

import numpy as np
import pytest
from conftest import ROOT

import swins
from swins import recipes
from swins.tasks.diffusion_sampling import ImageSampler

DEMO = ROOT / "demo" / "swin_unet_mini_patch2_window7_28"
RECIPE = ROOT / "recipes" / "diffusion_fashion_mnist.py"
CLASSIFIER = ROOT / "demo/fashion_mnist/swin_mini_patch2_window4_28.fashion_mnist.safetensors"


def test_it_is_its_recipes_and_small():
    result = json.loads((DEMO / "result.json").read_text())
    assert recipes.today(result["recipe"]) == json.loads(json.dumps(recipes.as_json(recipes.load(RECIPE))))
    assert (DEMO / "model.keras").stat().st_size <= 6 * 2**20


@pytest.mark.slow
def test_its_samples_are_recognised():
    """40 images of ten classes, by the embedded classifier, which was trained apart."""
    sampler: ImageSampler = swins.load(DEMO)
    samples = sampler(count=40, steps=20, seed=1)
    answers = swins.load(CLASSIFIER, variant="swin_mini_patch2_window4_28.fashion_mnist")(list(samples.images))
    assert np.mean([answer.names[0] == name for answer, name in zip(answers, samples.names, strict=True)]) >= 0.8
