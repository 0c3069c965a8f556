"""Recipes: what they say, their settings, and the results that are committed."""

import json

import pytest
from conftest import ROOT
from PIL import Image
from training import log

from swins.errors import SwinsError
from swins.train import recipe as recipes
from swins.train.recipe import Recipe


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.py")), ids=lambda p: p.stem)
def test_recipes_say_what_they_are(path):
    recipe = recipes.load(path)
    text = path.read_text()
    for line in ("Command", "Hardware", "Expected", "Obtained", f"swins train recipes/{path.name}"):
        assert line in text, line
    assert f"`{path.name}`" in (ROOT / "recipes" / "README.md").read_text() or f"{path.stem}.py" in text
    assert recipes.settings(recipe)["model.name"] == recipe.model.name


@pytest.mark.parametrize("path", sorted((ROOT / "recipes/results").glob("*")), ids=lambda p: p.name)
def test_committed_results_are_of_their_recipes(path):
    source = ROOT / "recipes" / f"{path.name}.py"
    result, rows = json.loads((path / "result.json").read_text()), log(path)
    now = json.loads(json.dumps(recipes.as_json(recipes.load(source))))
    assert dict.fromkeys(now) | result["recipe"] == now  # settings that came later leave everything as it was
    assert len(rows) == result["recipe"]["epochs"] and float(rows[-1]["val_top1"]) == result["top1"]
    assert f"top-1 {100 * result['top1']:.2f}" in source.read_text().partition("Obtained")[2]
    with Image.open(path / "curves.png") as picture:
        picture.verify()


def test_settings_are_read_by_their_type():
    recipe = recipes.with_settings(
        Recipe(),
        [
            "optim.learning_rate=5e-4", "model.window_size=(7, 7, 14, 7)", "augment.scale=None", "epochs=12",
            "model.dtype=mixed_bfloat16", "model.image_size=[192, 256]", "optim.ema=0", "optim.warmup_epochs=1.5",
        ],
    )  # fmt: skip
    assert recipe.optim.learning_rate == 5e-4 and recipe.model.window_size == (7, 7, 14, 7)
    assert recipe.augment.scale is None and recipe.epochs == 12 and recipe.model.dtype == "mixed_bfloat16"
    assert recipe.model.image_size == (192, 256) and recipe.optim.ema == 0.0 and recipe.optim.warmup_epochs == 1.5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "optim.learning_rat=1",
            r"unknown setting.*closest are optim.learning_rate.*known: optim.learning_rate, optim.w",
        ),
        ("lr=1", "known: model.name"),
        ("optim.learning_rate=fast", "optim.learning_rate takes float; got 'fast'"),
        ("epochs=1.5", "epochs takes int"),
        ("model.remat=1", "model.remat takes bool"),
        ("epochs", "NAME=VALUE"),
        ("epochs=10", "warmup_epochs must be from 0 to below epochs; got 20 and 10"),
        ("augment.flip=2", "probabilities"),
        ("data.batch=1023", "even; got 1023"),
        ("optim.accumulate=3", "multiple of optim.accumulate"),
        ("seed=-1", "seed, data.threads.*must be at least 0; got -1"),
        ("augment.mixup=-0.5", "must be at least 0"),
        ("data.std=(0.2, 0.0, 0.2)", "data.std must be above 0"),
        ("augment.rand_augment=rand-m9-x1", "rand_augment is a text such as"),
        ("augment.ratio=(0.75,)", r"scale and ratio are pairs above 0, the smaller first; got .* and \(0.75,\)"),
        ("augment.scale=(0.1, 1, 2)", "scale and ratio are pairs"),
        ("augment.ratio=(0, 1)", "scale and ratio are pairs"),
        ("model.start=reich", "model.start must be None or torch, of fresh weights; got reich"),
        ("seed=5000000000", r"seed must be below 2\*\*32; got 5000000000"),
    ],
)
def test_wrong_settings_are_refused(text, said):
    with pytest.raises(SwinsError, match=said):
        recipes.with_settings(Recipe(), [text])


def test_files_that_are_no_recipes(tmp_path):
    with pytest.raises(SwinsError, match="no such recipe"):
        recipes.load(tmp_path / "none.py")
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(SwinsError, match="defines RECIPE"):
        recipes.load(tmp_path / "empty.py")
    with pytest.raises(SwinsError, match="is a Python file"):
        (tmp_path / "a.txt").write_text("")
        recipes.load(tmp_path / "a.txt")
