"""Recipes: what they say, their settings, and the results that are committed."""

import dataclasses
import json
import math

import numpy as np
import pytest
from PIL import Image
from shared_fixtures import ROOT
from training import log

from swins import recipes
from swins.errors import SwinsError
from swins.recipes import AdamW, Cosine, Poly, Sgd, Steps
from swins.task import task_of_recipe
from swins.tasks.classification import Classification, Data
from swins.train.schedules import rates_of


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.py")), ids=lambda p: p.stem)
def test_recipes_say_what_they_are(path):
    recipe = recipes.load(path)
    text = path.read_text()
    for line in ("Command", "Hardware", "Expected", "Obtained", f"swins train recipes/{path.name}"):
        assert line in text, line
    assert f"`{path.name}`" in (ROOT / "recipes" / "README.md").read_text() or f"{path.stem}.py" in text
    assert recipes.flat_settings(recipe)["model.name"] == recipe.model.name


@pytest.mark.parametrize("path", sorted((ROOT / "recipes/results").glob("*/")), ids=lambda p: p.name)
def test_committed_results_are_of_their_recipes(path):
    source = ROOT / "recipes" / f"{path.name}.py"
    result, rows = json.loads((path / "result.json").read_text()), log(path)
    now = json.loads(json.dumps(recipes.as_json(recipes.load(source))))
    # settings that came later leave everything as it was
    assert dict.fromkeys(now) | recipes.today(result["recipe"]) == now
    headline = task_of_recipe(recipes.load(source)).headline
    value = result[headline.name]
    assert len(rows) == result["recipe"]["epochs"] and abs(float(rows[-1][f"val_{headline.name}"]) - value) < 1e-6
    shown = f"{100 * value:.2f}" if headline.percent else headline.text(value)
    assert f"{headline.words} {shown}" in source.read_text().partition("Obtained")[2]
    with Image.open(path / "curves.png") as picture:
        picture.verify()


def test_settings_are_read_by_their_type():
    recipe = recipes.with_settings(
        Classification(),
        [
            "optim.learning_rate=5e-4", "model.window_size=(7, 7, 14, 7)", "augment.scale=None", "epochs=12",
            "model.dtype=mixed_bfloat16", "model.image_size=[192, 256]", "optim.ema=0", "schedule.warmup_epochs=1.5",
        ],
    )  # fmt: skip
    assert recipe.optim.learning_rate == 5e-4 and recipe.model.window_size == (7, 7, 14, 7)
    assert recipe.augment.scale is None and recipe.epochs == 12 and recipe.model.dtype == "mixed_bfloat16"
    assert recipe.model.image_size == (192, 256) and recipe.optim.ema == 0.0 and recipe.schedule.warmup_epochs == 1.5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "optim.learning_rat=1",
            r"unknown setting.*closest are optim.learning_rate.*known: optim.learning_rate, optim.p",
        ),
        ("lr=1", "known: model.name"),
        ("optim.learning_rate=fast", r"optim.learning_rate takes float \(finite\); got 'fast'"),
        ("epochs=1.5", "epochs takes int"),
        ("model.remat=1", "model.remat takes bool"),
        ("epochs", "NAME=VALUE"),
        ("augment.flip=2", "augment.flip must be a probability, from 0 to 1; got 2.0"),
        ("data.batch=1023", "even; got 1023"),
        ("optim.accumulate=3", "multiple of optim.accumulate"),
        ("seed=-1", "seed must be at least 0; got -1"),
        ("augment.mixup=-0.5", "augment.mixup must be at least 0; got -0.5"),
        ("data.std=(0.2, 0.0, 0.2)", r"data.std must be numbers above 0, one a channel; got \(0.2, 0.0, 0.2\)"),
        ("augment.rand_augment=rand-m9-x1", "rand_augment is a text such as"),
        ("augment.ratio=(0.75,)", r"augment.ratio must be a pair of numbers above 0, the smaller first; got \(0.75,\)"),
        ("augment.scale=(0.1, 1, 2)", r"augment.scale must be a pair .*; got \(0.1, 1, 2\)"),
        ("augment.ratio=(0, 1)", "augment.ratio must be a pair of numbers above 0"),
        ("model.start=reich", "model.start must be None or torch, of fresh weights; got 'reich'"),
        ("seed=5000000000", r"seed takes int \(below 2\*\*32\); got '5000000000'"),
        (
            "augment.scale=('a', 1)",
            r"augment.scale must be a pair of numbers above 0, the smaller first; got \('a', 1\)",
        ),
        ("data.std=('x',)", r"data.std must be numbers above 0, one a channel; got \('x',\)"),
        ("optim.learning_rate=1e999", r"optim.learning_rate takes float \(finite\); got '1e999'"),
        ("optim.no_decay=bias", "optim.no_decay takes tuple; got 'bias'"),  # not b, i, a and s
        ("optim.beta_2=1", "optim.beta_2 must be from 0 to below 1; got 1.0"),  # the root of 0 / 0
        ("optim.learning_rate=3e38", "learning rates, scaled to the batch, .*must be finite; got 3e[+]38"),
        ("model.weights=x;model.start=torch", "of fresh weights; got torch and model.weights='x'"),
    ],
)
def test_wrong_settings_are_refused(text, said):
    with pytest.raises(SwinsError, match=said):
        recipes.with_settings(Classification(), text.split(";"))


HOSTILE = (
    None, True, False, 0, 1, -1, 2**31, 2**32, 2**64, -(2**64), 10**400, 10**5000,
    0.0, -0.0, 0.5, 1.0, -0.5, 1.5, 1e-320, 1e30, 3e38, 1e39, 1e308, math.inf, -math.inf, math.nan, 1j,
    "", "x", "1", "nan", "float32", "rand-m9", "rand-m1e9", "rand-mstd0", "rand-m-1", "\ud800", "\x00", b"", b"x",
    (), (0,), (1,), (-1, 1), (0.1, 1), (1, 0.1), (math.nan, 1), (0.5, math.nan), (math.inf, math.inf), (1, 10**400),
    ("a", 1), ("x",), ("",), (None,), (None, None), (True, True), ((1, 1), (2, 2)), ((1,),), (((1,),),), ((), ()),
    [], [1, 2], [[7, 7], 7], ["a"], {}, {"a": 1}, {1, 2}, object(), Classification, int, lambda: 1, np.float64(0.5),
    np.float64("nan"), np.int64(3), np.array([1, 2]), np.array(1.0), range(2),
)  # fmt: skip
BASES = {
    "Cosine": Classification(optim=AdamW(per_images=0), schedule=Cosine(warmup_epochs=0)),
    "Steps": Classification(optim=Sgd(), schedule=Steps(warmup_epochs=0)),
    "Poly": Classification(optim=Sgd(), schedule=Poly(warmup_epochs=0)),
}
FIELDS = [
    (base, name)
    for base, recipe in BASES.items()
    for name in sorted(recipes.flat_settings(recipe))
    if "." in name or name not in ("optim", "schedule")
    if base == "Cosine" or name.startswith(("optim.", "schedule."))
]


def with_value(recipe, name, value):
    """The recipe with one setting as it would be written in a file."""
    section, _, leaf = name.rpartition(".")
    if not section:
        return dataclasses.replace(recipe, **{leaf: value})
    return dataclasses.replace(recipe, **{section: dataclasses.replace(getattr(recipe, section), **{leaf: value})})


@pytest.mark.parametrize(("base", "name"), FIELDS)
def test_every_field_checks_itself(base, name):
    """A value is refused by name, or it is one that a run can be of, and that its record holds."""
    easy, accepted = BASES[base], 0
    for value in HOSTILE:
        try:
            recipe = with_value(easy, name, value)
        except SwinsError as error:
            assert name.rpartition(".")[2] in str(error) and len(str(error)) < 500, value
            continue
        accepted += 1
        kept = recipes.flat_settings(recipe)[name]
        assert json.loads(json.dumps(recipes.as_json(recipe), allow_nan=False))[name] == json.loads(json.dumps(kept))
        if name.startswith(("optim.", "schedule.", "data.batch", "epochs")):
            rates = rates_of(dataclasses.replace(recipe, epochs=min(recipe.epochs, 1000)), 10)
            assert all(math.isfinite(float(rates(step))) for step in (0, 5, 1000)), value
        recipe.model.options()
    assert 0 < accepted < len(HOSTILE)
    assert with_value(easy, name, recipes.flat_settings(easy)[name]) == easy


@pytest.mark.parametrize(("base", "name"), FIELDS)
def test_every_field_checks_what_is_set(base, name):
    for text in ("", "1e999", "nan", "-1", "None", "(", "{[]: 1}", "9" * 5000, "(" * 3000, "1+1j", "('a', 1)", "\x00"):
        try:
            recipe = recipes.with_settings(BASES[base], [f"{name}={text}"])
        except SwinsError as error:
            assert len(str(error)) < 700 + len(text), text
        else:
            json.dumps(recipes.as_json(recipe), allow_nan=False)


def test_a_class_is_chosen_by_its_name():
    recipe = recipes.with_settings(
        Classification(), ["schedule=Steps", "schedule.epochs=(30, 60)", "optim=Sgd", "optim.ema=0.9"]
    )
    assert recipe.schedule == Steps(epochs=(30, 60)) and recipe.optim == Sgd(ema=0.9)
    again = recipes.with_settings(recipe, ["optim=AdamW", "optim.beta_1=0.8"])
    assert again.optim == AdamW(ema=0.9, beta_1=0.8)  # what was set, and both have, stays
    assert recipes.as_json(again)["recipe"] == "Classification" and recipes.as_json(again)["schedule"] == "Steps"
    for text, said in (
        ("optim=Lion", "unknown optim 'Lion': known: AdamW, Sgd"),
        ("optim.momentum=0.9", "unknown setting 'optim.momentum'.*known: optim.learning_rate"),
    ):
        with pytest.raises(SwinsError, match=said):
            recipes.with_settings(dataclasses.replace(again, optim=AdamW()), [text])
    with pytest.raises(SwinsError, match=r"optim.nesterov needs optim.momentum above 0"):
        Classification(optim=Sgd(momentum=0.0, nesterov=True))


def test_rates_follow_their_schedules():
    """Against the formulas of PyTorch's MultiStepLR and PolynomialLR, after a linear warm-up by updates."""
    steps = Classification(
        data=Data(batch=64),
        optim=Sgd(learning_rate=0.1, per_images=32),
        schedule=Steps(warmup_rate=0.01, warmup_epochs=1, warmup_updates=5, epochs=(3, 5), factor=0.1),
        epochs=8,
    )
    rates = rates_of(steps, 10)
    wanted = [0.02 + (0.2 - 0.02) * i / 15 if i < 15 else 0.2 * 0.1 ** ((i >= 30) + (i >= 50)) for i in range(80)]
    np.testing.assert_allclose([float(rates(i)) for i in range(80)], wanted, rtol=1e-6)
    poly = dataclasses.replace(steps, schedule=Poly(warmup_rate=0.0, warmup_epochs=0, warmup_updates=20, power=0.9))
    rates = rates_of(poly, 10)
    wanted = [0.2 * i / 20 if i < 20 else 0.2 * (1 - (i - 20) / 60) ** 0.9 for i in range(80)]
    np.testing.assert_allclose([float(rates(i)) for i in range(80)], wanted, rtol=1e-5)
    constant = rates_of(dataclasses.replace(steps, schedule=Steps(warmup_epochs=0)), 10)
    assert {round(float(constant(i)), 7) for i in (0, 40, 79)} == {0.2}
    copy = type(rates).from_config(rates.get_config())
    assert float(copy(33)) == float(rates(33))


@pytest.mark.parametrize("value", [3, None, Data(), {"learning_rate": 1.0}])
def test_a_section_is_of_its_class(value):
    with pytest.raises(SwinsError, match="optim takes AdamW or Sgd; got"):
        Classification(optim=value)


def test_everything_that_is_wrong_is_said_at_once():
    with pytest.raises(SwinsError) as refused:
        recipes.with_settings(
            Classification(), ["epochs=0", "data.std=(0,)", "optim.ema=1", "augment.flip=7", "model.dtype=int8"]
        )
    for name in ("epochs", "data.std", "optim.ema", "augment.flip", "model.dtype"):
        assert f"{name} must be" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("optim.lr", "optim.learning_rate"),
        ("lr", "optim.learning_rate"),
        ("optim.wd", "optim.weight_decay"),
        ("bs", "data.batch"),
        ("batch_size", "data.batch"),
        ("optim.batch_size", "data.batch"),
        ("data.image_size", "model.image_size"),
        ("img_size", "model.image_size"),
        ("optim.epochs", "epochs"),
        ("epoch", "epochs"),
        ("warmup", "schedule.warmup_epochs"),
        ("optim.warmup_steps", "schedule.warmup_epochs"),
        ("model.classes", "model.num_classes"),
        ("drop_path", "model.drop_path_rate"),
        ("optim.clip_grad", "optim.clip_norm"),
        ("label_smoothing", "augment.smoothing"),
        ("optim.beta1", "optim.beta_1"),
        ("data.num_workers", "data.threads"),
        ("random_seed", "seed"),
        ("augment.mix_up", "augment.mixup"),
        ("optim.decay", "optim.weight_decay"),
        ("Optim.Learning_Rate", "optim.learning_rate"),
    ],
)
def test_the_name_that_was_meant_is_suggested(name, meant):
    with pytest.raises(SwinsError, match=f"unknown setting '{name}': the closest are {meant}, "):
        recipes.with_settings(Classification(), [f"{name}=1"])


def test_files_that_are_no_recipes(tmp_path):
    with pytest.raises(SwinsError, match="no such recipe"):
        recipes.load(tmp_path / "none.py")
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(SwinsError, match="defines RECIPE"):
        recipes.load(tmp_path / "empty.py")
    with pytest.raises(SwinsError, match="is a Python file"):
        (tmp_path / "a.txt").write_text("")
        recipes.load(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("RECIPE = Classification(epoch=3)", r"a.py, line 2: .*unexpected keyword argument 'epoch'.*--print"),
        ("RECIPE = Classificatoin()", r"line 2: name 'Classificatoin' is not defined"),
        ("from swins.recipes import Lion", r"line 2: cannot import name 'Lion'"),
        ("RECIPE = (", r"'\(' was never closed"),
    ],
)
def test_a_mistyped_recipe_is_told_where(tmp_path, text, said):
    (tmp_path / "a.py").write_text(f"from swins.tasks.classification import Classification\n{text}\n")
    with pytest.raises(SwinsError, match=said):
        recipes.load(tmp_path / "a.py")


def test_recipes_of_before_are_told_where_their_classes_are(tmp_path):
    (tmp_path / "old.py").write_text("from swins.train.recipe import Model, Recipe\nRECIPE = Recipe(Model('x'))\n")
    with pytest.raises(SwinsError, match=r"has no Model any more: import AdamW and Cosine from swins.recipes"):
        recipes.load(tmp_path / "old.py")
