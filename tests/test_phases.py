"""Runs whose backbone is frozen at first: what learns when, at what rate, and after a kill."""

import dataclasses

import keras
import numpy as np
import pytest
from test_run_end import but_seconds
from training import NAME, SMALL, changed, quiet, train_with_a_kill

import swins
from swins.errors import SwinsError
from swins.recipes import Frozen, Sgd, Steps, with_settings
from swins.task import TASKS, registered
from swins.train import loop
from swins.train.phases import Trunk, phase_of_epoch, phase_of_state, phases
from swins.train.run_plan import plan
from swins.train.schedules import rates_of

TWO = dataclasses.replace(changed(SMALL, data={"batch": 100}), epochs=3, frozen=Frozen(1, 1e-2))


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    """Steps as they come: tracing them would take most of the time."""
    if keras.backend.backend() == "tensorflow":
        compiled = loop.Trainee.compile
        monkeypatch.setattr(loop.Trainee, "compile", lambda self, **o: compiled(self, **o, run_eagerly=True))


def test_each_phase_has_its_own_epochs_and_rates():
    head, rest = phases(TWO)
    assert (head.first, head.end, head.frozen) == (0, 1, True) and (rest.first, rest.end, rest.frozen) == (1, 3, False)
    assert float(rates_of(head.recipe, 10)(0)) == pytest.approx(1e-2)
    assert float(rates_of(rest.recipe, 10)(0)) == pytest.approx(2e-3)
    alone = dataclasses.replace(TWO, epochs=2, frozen=Frozen())  # as if it were a run of its own
    assert [float(rates_of(rest.recipe, 10)(i)) for i in range(20)] == [
        float(rates_of(alone, 10)(i)) for i in range(20)
    ]
    assert [phase_of_epoch(TWO, epoch).frozen for epoch in (0, 1, 2)] == [True, False, False]
    # the state after an epoch's last step is still its phase's, which is validated
    assert [phase_of_state(TWO, step, 2).frozen for step in range(7)] == [True] * 3 + [False] * 4
    assert phases(dataclasses.replace(TWO, frozen=Frozen()))[0].recipe == dataclasses.replace(TWO, frozen=Frozen())


def test_steps_are_counted_from_the_runs_beginning():
    schedule = Steps(warmup_epochs=0, epochs=(1, 3), factor=0.1)
    recipe = dataclasses.replace(TWO, optim=Sgd(learning_rate=1.0), schedule=schedule, epochs=5, frozen=Frozen(2))
    head, rest = phases(recipe)
    both = [float(rates_of(p.recipe, 1)(epoch - p.first)) for p in (head, rest) for epoch in range(p.first, p.end)]
    assert both == pytest.approx([1, 0.1, 0.1, 0.01, 0.01])


def test_one_epoch_of_two_phases_is_the_heads():
    recipe = with_settings(TWO, ["epochs=1", "frozen.epochs=3"])
    assert [(phase.frozen, phase.end) for phase in phases(recipe)] == [(True, 1)]
    assert "frozen.epochs 3 do not fit 1: the backbone never learns" in plan(recipe, 200, 2)


@pytest.mark.backends
@pytest.mark.slow
def test_the_head_learns_first_and_kills_change_nothing(idx, tmp_path, monkeypatch):
    seen, begin, lines = [], loop.begin, []

    def noted(trainee, job, phase):
        seen.append({v.path: np.array(keras.ops.convert_to_numpy(v)) for v in trainee.network.variables})
        begin(trainee, job, phase)

    monkeypatch.setattr(loop, "begin", noted)
    loop.train(TWO, idx, tmp_path / "whole", say=lines.append)
    start, thawed = seen
    moved = {path for path in start if "seed" not in path and np.any(start[path] != thawed[path])}
    assert moved == {"head/kernel", "head/bias"}
    assert [line for line in lines if " weights learn" in line] == [
        "epoch 1: 250 weights learn, but the backbone's; rate up to 0.01",
        "epochs 2 to 3: 7,837 weights learn, all; rate up to 0.002",
    ]
    # what an epoch of the first phase leaves is frozen no more, and has the averages
    end = keras.saving.load_model(tmp_path / "whole" / "model.keras")
    assert len(end.trainable_variables) == len(swins.create(NAME, depths=(1,), num_heads=(3,)).trainable_variables)
    # killed between the phases: the checkpoint is the first one's
    calls = []

    def killed(trainee, job, phase):
        calls.append(phase.frozen)
        if calls == [True, False]:
            raise KeyboardInterrupt
        begin(trainee, job, phase)

    monkeypatch.setattr(loop, "begin", killed)
    with pytest.raises(KeyboardInterrupt):
        loop.train(TWO, idx, tmp_path / "killed", say=quiet)
    loop.train(TWO, idx, tmp_path / "killed", say=quiet)
    assert calls == [True, False, True, False]
    for row, other in zip(but_seconds(tmp_path / "whole"), but_seconds(tmp_path / "killed"), strict=True):
        assert {k: float(v) for k, v in row.items()} == pytest.approx({k: float(v) for k, v in other.items()}, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 3, 5])
def test_killed_within_a_phase_a_run_ends_as_it_would_have(idx, tmp_path, monkeypatch, step):
    recipe = changed(TWO, model={"drop_path_rate": 0.2})
    loop.train(recipe, idx, tmp_path / "whole", say=quiet)
    train_with_a_kill(recipe, idx, tmp_path / "killed", monkeypatch, step)
    for row, other in zip(but_seconds(tmp_path / "whole"), but_seconds(tmp_path / "killed"), strict=True):
        assert {k: float(v) for k, v in row.items()} == pytest.approx({k: float(v) for k, v in other.items()}, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("classification", NAME),
        ("detection", "ssd64_swin_mini"),
        ("instances", "mask_rcnn_swin_mini_fpn"),
        ("segmentation", "upernet_swin_mini"),
    ],
)
def test_every_kind_of_network_has_a_backbone_to_freeze(task, name):
    registered()
    network = swins.create(name, num_classes=3)
    trunk, count = Trunk(TASKS[task].trunk(network)), len(network.trainable_variables)
    trunk.freeze(True)
    left = {variable.path for variable in network.trainable_variables}
    assert 0 < len(left) == count - len(trunk.variables) and not any("stages_" in path for path in left)
    with trunk.thawed():
        assert len(network.trainable_variables) == count
    assert len(network.trainable_variables) == len(left)
    trunk.freeze(False)
    assert len(network.trainable_variables) == count


def test_what_has_no_backbone_is_refused(idx, tmp_path, monkeypatch):
    task = dataclasses.replace(TASKS["classification"], trunk=lambda network: [])
    monkeypatch.setattr(loop, "task_of_recipe", lambda _: task)
    with pytest.raises(SwinsError, match=r"frozen.epochs is of networks with a backbone; .* has none; leave it out"):
        loop.train(TWO, idx, tmp_path / "run", say=quiet)
    assert not (tmp_path / "run").exists()
