"""How a run ends: the best epoch, early stopping, what its log has, and the time that is left."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from training import SMALL, changed, log, quiet, train_with_a_kill

from swins.devices import ALONE
from swins.errors import SwinsError
from swins.recipes import Frozen, with_settings
from swins.tasks.classification import CLASSIFICATION
from swins.train import folder, loop
from swins.train.folder import Run
from swins.train.pace import Pace
from swins.train.progress import Ending, Progress

TOPS = [0.75, 0.75, 0.5, 0.75, 0.5]
LOSSES = [2.0, 1.5, 1.0, 1.5, 1.0]  # the second is better than the first, and the fourth no better than the second
PATIENT = dataclasses.replace(changed(SMALL, data={"batch": 100}), epochs=5, patience=2, keep="best")


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    """Steps as they come: tracing them would take most of the time."""
    if keras.backend.backend() == "tensorflow":
        compiled = loop.Trainee.compile
        monkeypatch.setattr(loop.Trainee, "compile", lambda self, **o: compiled(self, **o, run_eagerly=True))


@pytest.fixture
def graded(monkeypatch):
    """Validations whose top-1 are TOPS, one an epoch, and whose losses LOSSES."""
    validated = loop.Progress.validated

    def given(self):
        validate = self.validate

        def scored(trainee, heed):
            validation = validate(trainee, heed)
            place = self.run.unvalidated["epoch"] - 1
            scores = {**validation.scores, "top1": TOPS[place]}
            return dataclasses.replace(validation, loss=LOSSES[place], scores=scores)

        self.validate = scored
        try:
            return validated(self)
        finally:
            self.validate = validate

    monkeypatch.setattr(loop.Progress, "validated", given)


def but_seconds(run_folder):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in log(run_folder)]


@pytest.mark.slow
def test_patience_ends_a_run_and_the_best_epoch_is_kept(idx, tmp_path, graded, monkeypatch):
    lines = []
    result = loop.train(PATIENT, idx, tmp_path / "run", say=lines.append)
    assert result["epoch"] == 2 and result["top1"] == 0.75 and result["best"] == {"epoch": 2, "top1": 0.75}
    assert [row["epoch"] for row in log(tmp_path / "run")] == list("1234")
    assert "stopped early: no epoch of the last 2 was better than epoch 2" in lines
    files = [(tmp_path / "run" / name).read_bytes() for name in ("model.keras", "best.keras")]
    assert files[0] == files[1]
    # started again it is done, and with more patience it goes on
    assert loop.train(PATIENT, idx, tmp_path / "run", say=quiet) == json.loads(json.dumps(result))
    # killed, and started again, it is the same run
    train_with_a_kill(PATIENT, idx, tmp_path / "killed", monkeypatch, step=5)
    for row, other in zip(but_seconds(tmp_path / "run"), but_seconds(tmp_path / "killed"), strict=True):
        assert {k: float(v) for k, v in row.items()} == pytest.approx({k: float(v) for k, v in other.items()}, rel=1e-4)
    other = json.loads((tmp_path / "killed" / "result.json").read_text())
    assert {k: other[k] for k in ("epoch", "top1", "best")} == {k: result[k] for k in ("epoch", "top1", "best")}
    more = with_settings(PATIENT, ["patience=4", "keep=None"])
    result = loop.train(more, idx, tmp_path / "run", say=quiet)
    assert len(log(tmp_path / "run")) == 5 and result["epoch"] == 5 and result["top1"] == 0.5
    assert {c["setting"] for c in result["changes"]} == {"patience", "keep"}


@pytest.mark.slow
def test_killed_between_the_last_epoch_and_its_end_a_run_stops_as_early(idx, tmp_path, graded, monkeypatch):
    finish = loop.finish

    def end(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "finish", end)
    with pytest.raises(KeyboardInterrupt):
        loop.train(PATIENT, idx, tmp_path / "run", say=quiet)
    monkeypatch.setattr(loop, "finish", finish)
    lines = []
    assert loop.train(PATIENT, idx, tmp_path / "run", say=lines.append)["epoch"] == 2
    assert len(log(tmp_path / "run")) == 4 and not any(line.startswith("epoch 5") for line in lines)
    (tmp_path / "run" / "best.keras").unlink()
    (tmp_path / "run" / "result.json").unlink()
    with pytest.raises(SwinsError, match=r"best.keras is gone; --set keep=None"):
        loop.train(PATIENT, idx, tmp_path / "run", say=quiet)


def test_patience_waits_where_no_epoch_has_a_score(tmp_path):
    run = Run(tmp_path, CLASSIFICATION, quiet)
    run.rows = [{"epoch": epoch, "val_top1": "none"} for epoch in (1, 2, 3)]
    run.step = 6
    assert run.waited(PATIENT) == 0 and not run.ended(PATIENT, 2)
    assert run.last_row(PATIENT)["epoch"] == 3
    run.best = {"epoch": 1, "top1": 0.5}
    assert run.ended(PATIENT, 2) and run.last_row(PATIENT)["epoch"] == 1
    run.unvalidated = {"epoch": 4}
    assert not run.ended(PATIENT, 2)  # before it is validated nobody knows


@pytest.mark.slow
@pytest.mark.backends
def test_the_accuracy_of_training_is_that_of_its_steps(idx, tmp_path, monkeypatch):
    """The mean over an epoch's images, each judged by the weights that it then moved; a kill does not lose it."""
    recipe = dataclasses.replace(changed(SMALL, data={"batch": 50}), epochs=1)
    judged, step = [], loop.Trainee.compute_metrics

    def noted(self, x, y, y_pred, sample_weight=None):
        labels, answers = (np.asarray(keras.ops.convert_to_numpy(a)).argmax(-1) for a in (y["target"], y_pred))
        judged.append(labels == answers)
        return step(self, x, y, y_pred, sample_weight)

    if keras.backend.backend() != "jax":  # whose step is traced
        monkeypatch.setattr(loop.Trainee, "compute_metrics", noted)
    loop.train(recipe, idx, tmp_path / "run", say=quiet)
    (row,) = log(tmp_path / "run")
    assert list(row)[:6] == ["epoch", "learning_rate", "loss", "top1", "val_loss", "val_top1"]
    if judged:
        assert len(judged) == 4 and float(row["top1"]) == pytest.approx(np.concatenate(judged).mean(), abs=1e-6)
    train_with_a_kill(recipe, idx, tmp_path / "killed", monkeypatch, step=2)
    assert log(tmp_path / "killed")[0]["top1"] == row["top1"]


def test_top5_is_of_more_than_five_classes():
    records = [{"label": 1, "top": [0, 1, 2, 3, 4]}, {"label": 2, "top": [2, 0, 1, 3, 4]}]
    for count, names in ((2, ["top1"]), (5, ["top1"]), (6, ["top1", "top5"]), (1000, ["top1", "top5"])):
        facts = {"classes": list(map(str, range(count)))}
        assert list(CLASSIFICATION.scored(records, facts)) == names
        assert [score.name for score in CLASSIFICATION.scores_of(facts)] == names
    assert [score.name for score in CLASSIFICATION.scores_of({})] == ["top1", "top5"]


def test_the_time_that_is_left_is_said(tmp_path):
    """From measured steps, the first ones left out; at most, where a run may stop early."""
    lines, run = [], Run(tmp_path, CLASSIFICATION, quiet)
    run.say = lines.append
    told = Progress(run, dataclasses.replace(SMALL, epochs=3), 20, None, None, Ending(ALONE), writes=False)
    times = iter([60.0, 61.0, 61.0, 65.0, 65.0, 66.0])  # seconds after 10 and 20 steps, and around two validations
    told.pace = Pace(lambda: next(times))
    for _ in range(20):
        told.on_train_batch_end(0, {"loss": 1.0})
    assert lines == ["0.1 s a step, of 10 measured; about 0:00:04 left"]
    told.pace.begins_validation()
    told.pace.validated(20)
    assert told.left() == "about 0:00:08 left"  # 40 steps of 0.1 s; of two validations of 4 s, compiled, not more
    told.pace.begins_validation()
    told.pace.validated(20)
    assert told.left() == "about 0:00:06 left"  # two validations of 1 s
    told.recipe = dataclasses.replace(told.recipe, patience=1)
    assert told.left() == "at most 0:00:06 left"
    told.recipe = dataclasses.replace(told.recipe, frozen=Frozen(epochs=2))
    assert told.left() == "about 0:00:03 left to the end of epoch 2"
    run.step = 40
    assert told.left() == ""  # steps of all weights are not measured yet
    told.begins_phase()
    run.step = 50
    assert told.left() == ""


def test_of_equal_scores_the_lower_loss_is_better(tmp_path, monkeypatch):
    """Whole, from a state on the way, and from one that a version left that took the first of equals."""
    saved = []
    monkeypatch.setattr(folder, "save_model", lambda model, path: saved.append(path.name))
    numbers = [("0.5", 2.0), ("0.6", 1.5), ("0.6", 1.5), ("none", 0.1), ("0.6", 1.2), ("0.5", 0.2), ("0.6", 1.3)]
    rows = [{"epoch": i, "val_top1": t, "val_loss": f"{v:.6f}"} for i, (t, v) in enumerate(numbers, 1)]

    def best_of(done, best, wanted):
        run = Run(tmp_path, CLASSIFICATION, quiet)
        run.rows, run.best = rows[:done], best
        for row in rows[done:]:
            run.keep_best(None, row, writes=True)
            run.rows = [*run.rows, row]
        assert run.best == {"epoch": wanted, "top1": 0.6}

    best_of(0, None, 5)
    assert saved == ["best.keras"] * 3  # of epochs 1, 2 and 5
    best_of(3, {"epoch": 2, "top1": 0.6}, 5)
    best_of(6, {"epoch": 2, "top1": 0.6}, 7)  # whose weights best.keras has: those of epoch 5 are gone
