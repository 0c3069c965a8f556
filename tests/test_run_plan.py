"""What a run says before it begins: its updates, whether they are enough, and what of its schedule does not fit."""

import contextlib
import dataclasses
import json
import math
import re

import numpy as np
import pytest
from shared_fixtures import ROOT
from training import SMALL, changed

from swins import recipes
from swins.data.split import Split
from swins.errors import SwinsError
from swins.recipes import AdamW, Cosine, Poly, Sgd, Steps
from swins.tasks.classification import CLASSIFICATION, Classification
from swins.train import loop, run_plan
from swins.train.folder import Run
from swins.train.schedules import rates_of

FINETUNE = recipes.load(ROOT / "recipes" / "finetune.py")


def told(recipe, images):
    """The line on the updates of a run."""
    return run_plan.plan(recipe, images, recipe.updates_per_epoch or images // recipe.data.batch)[0]


def test_too_few_updates_are_said_with_settings_that_would_do():
    assert told(FINETUNE, 45) == (
        "45 images, 32 a batch: 1 step an epoch, 10 updates in all: few to learn from; "
        "--set data.batch=8 --set optim.per_images=8 --set epochs=40 makes 200"
    )
    assert told(FINETUNE, 12_800) == "12,800 images, 32 a batch: 400 steps an epoch, 4,000 updates in all"
    assert told(FINETUNE, 320).endswith("few to learn from; --set epochs=20 makes 200")
    counted = dataclasses.replace(FINETUNE, updates_per_epoch=50, epochs=2)
    assert "50 steps an epoch, 100 updates in all: few to learn from; --set epochs=4 makes 200" in told(counted, 45)


@pytest.mark.parametrize("images", [1, 2, 3, 7, 12, 31, 45, 100, 161, 1000])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_what_is_suggested_is_a_recipe_that_has_enough(images, accumulate):
    recipe = changed(FINETUNE, optim={"accumulate": accumulate}, augment={"mixup": 0.2})
    settings = run_plan.settings_text(run_plan.enough(recipe, images)).replace("--set ", "").split()
    other = recipes.with_settings(recipe, settings)
    steps = images // other.data.batch
    assert other.optim.learning_rate * other.data.batch / other.optim.per_images == pytest.approx(1e-4)
    if images > 1:
        assert steps * other.epochs >= run_plan.LEAST_UPDATES
        assert steps >= run_plan.LEAST_STEPS or other.data.batch == 2
        assert not run_plan.enough(other, images)


@pytest.mark.parametrize(
    "schedule",
    [Cosine(warmup_epochs=20), Steps(warmup_epochs=1, epochs=(8, 11)), Poly(warmup_epochs=0, warmup_updates=1000)],
    ids=lambda schedule: type(schedule).__name__,
)
def test_one_epoch_of_any_recipe_has_a_warm_up_that_fits(schedule):
    recipe = recipes.with_settings(
        Classification(optim=AdamW(learning_rate=1e-3, per_images=0), schedule=schedule), ["epochs=1"]
    )
    rates = [float(rates_of(recipe, 50)(step)) for step in range(50)]
    assert int(np.argmax(rates)) == 5 and rates[5] == pytest.approx(1e-3) and all(map(math.isfinite, rates))
    assert rates[:6] == sorted(rates[:6]) and rates[5:] == sorted(rates[5:], reverse=True)
    lines = run_plan.plan(recipe, 5000, 50)
    assert re.search(r"the warm-up of 1?,?\d+ updates? (does not fit|takes all) 50: it is 5, a tenth", lines[1])
    assert ("schedule.epochs [8, 11] come after the last epoch, 1" in " ".join(lines)) == isinstance(schedule, Steps)


def test_a_warm_up_that_fits_is_the_recipes():
    recipe = Classification(optim=Sgd(learning_rate=1.0), schedule=Cosine(warmup_epochs=2), epochs=3)
    rates = rates_of(recipe, 10)
    assert [float(rates(step)) for step in (19, 20)] == pytest.approx([0.95, 1.0], rel=1e-3)
    assert not run_plan.shortened(recipe, 10)


def test_a_run_says_its_plan_before_anything_is_made(idx, tmp_path, monkeypatch):
    lines = []

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop.keras.utils, "set_random_seed", stop)
    recipe = recipes.with_settings(changed(SMALL, schedule={"warmup_epochs": 5}), ["epochs=1"])
    with pytest.raises(KeyboardInterrupt):
        loop.train(recipe, idx, tmp_path / "run", say=lines.append)
    assert lines[0].startswith("200 images, 20 a batch: 10 steps an epoch, 10 updates in all: few to learn from; ")
    assert lines[1] == "the warm-up of 50 updates does not fit 10: it is 1, a tenth"
    with pytest.raises(SwinsError, match=r"got 400 and 200; lower it: --set data.batch=32 --set epochs=34$"):
        loop.train(changed(SMALL, data={"batch": 400}), idx, tmp_path / "run", say=lines.append)


def test_a_run_that_ended_near_guessing_says_so():
    guessed = CLASSIFICATION.guessing({"classes": list("abcde")})
    assert guessed == pytest.approx(1.6094, abs=1e-4) and CLASSIFICATION.guessing({}) is None
    line = run_plan.near_guessing(FINETUNE, 200, 1.552, 1.6, guessed)
    assert line.startswith("the validation loss, 1.552, is near that of guessing, 1.609: the run has learnt little")
    assert line.endswith("with a higher rate: --set optim.learning_rate=0.001")
    line = run_plan.near_guessing(FINETUNE, 4, 1.552, 1.6, guessed)
    assert line.endswith(", in a run of 4 updates: few to learn from; the line at the beginning says what makes 200")
    for loss, guess in ((1.2, guessed), (1.2, None)):
        assert run_plan.near_guessing(FINETUNE, 200, loss, 1.6, guess) == ""
    by_heart = run_plan.near_guessing(FINETUNE, 4, 1.552, 0.8, guessed)
    assert "0.800, is not: what was learnt holds for the images to train on alone" in by_heart
    assert by_heart.endswith(f"--set frozen.epochs={FINETUNE.epochs} --set frozen.learning_rate=0.001")
    whole = dataclasses.replace(FINETUNE, epochs=1, schedule=Cosine(warmup_epochs=1))
    assert run_plan.shortened(whole, 4) == ["the warm-up of 4 updates takes all 4: it is left out"]


def test_a_run_that_learnt_by_heart_says_since_when():
    def rows(*losses):
        return [{"epoch": str(i), "loss": trained, "val_loss": val} for i, (trained, val) in enumerate(losses, 1)]

    last = dataclasses.replace(FINETUNE, keep=None)
    line = run_plan.learnt_by_heart(last, rows(("9.0", "7.0"), ("6.0", "5.8"), ("1.1", "8.0")))
    assert line.startswith("the validation loss, 8.000, was 5.800 after epoch 2 of 3: ") and "keep=best" in line
    assert run_plan.learnt_by_heart(FINETUNE, rows(("6.0", "5.8"), ("1.1", "8.0"))).endswith(
        "or fewer epochs"
    )  # it keeps
    assert not run_plan.learnt_by_heart(last, rows(("6.0", "5.8"), ("1.1", "6.0")))  # hardly risen
    assert not run_plan.learnt_by_heart(last, rows(("6.0", "5.8"), ("7.0", "8.0")))  # diverged
    assert run_plan.chance_in(99).startswith("; by 99 validation images") and not run_plan.chance_in(100)


def test_a_folder_of_another_kind_of_work_is_named_in_a_line(tmp_path):
    split = Split("none", [], ("a", "b"))
    record = recipes.as_json(FINETUNE) | {"recipe": "Detection", "training data": ""}
    (tmp_path / "recipe.json").write_text(json.dumps(record))
    with contextlib.closing(Run(tmp_path, CLASSIFICATION, print)) as run, pytest.raises(SwinsError) as refused:
        run.open(FINETUNE, (split, split), False)
    assert "another kind of work (Detection, now Classification); choose another folder" in str(refused.value)
    assert len(str(refused.value)) < 300
