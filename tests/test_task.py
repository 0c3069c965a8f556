"""A kind of work that is one file of tests/, angles.py: everything that there is for classification works for it."""

import csv
import dataclasses
import json
import pathlib

import angles
import keras
import numpy as np
import pytest
from PIL import Image
from shared_fixtures import ROOT, needs_tensorflow
from training import log, quiet

import swins
from swins import task
from swins.errors import SwinsError
from swins.task import task_named, task_of
from swins.train import loop

RECIPE = pathlib.Path(angles.__file__)


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    """The data set, and a picture of a bar."""
    folder = tmp_path_factory.mktemp("bars")
    parts = {"train": angles.bars(200, 0), "val": angles.bars(40, 1)}
    arrays = {
        f"{part}_{kind}": array
        for part, pair in parts.items()
        for kind, array in zip(("images", "degrees"), pair, strict=True)
    }
    np.savez(folder / "bars.npz", **arrays)
    Image.fromarray(arrays["val_images"][0]).save(folder / "bar.png")
    return folder


@pytest.fixture(scope="module")
def trained(bars, tmp_path_factory):
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    loop.train(angles.RECIPE, bars, folder, say=quiet)
    return folder


@pytest.mark.backends
def test_it_trains_and_the_best_is_the_least_error(trained):
    rows, result = log(trained), json.loads((trained / "result.json").read_text())
    assert list(rows[0]) == [
        "epoch",
        "learning_rate",
        "loss",
        "val_loss",
        "val_error",
        "val_images",
        "unreadable",
        "seconds",
    ]
    errors = [float(row["val_error"]) for row in rows]
    assert len(rows) == 3 and errors[-1] < 20  # 45 is guessed
    assert result["task"] == "angles" and result["error"] == errors[-1] and result["recipe"]["recipe"] == "AngleRecipe"
    assert result["best"]["error"] == min(errors) and (trained / "best.keras").is_file()


@pytest.mark.slow
def test_killed_on_its_way_it_ends_as_if_it_had_not_been(bars, trained, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    recipe, step = dataclasses.replace(angles.RECIPE, checkpoint_steps=2), loop.Progress.on_train_batch_end

    def killed(self, batch, logs=None):
        step(self, batch, logs)
        if self.run.step in kills:
            kills.remove(self.run.step)
            raise Killed

    kills = {5, 13, 27}
    monkeypatch.setattr(loop.Progress, "on_train_batch_end", killed)
    while kills:
        with pytest.raises(Killed):
            loop.train(recipe, bars, tmp_path / "run", say=quiet)
    loop.train(recipe, bars, tmp_path / "run", say=quiet)
    for ours, theirs in zip(log(tmp_path / "run"), log(trained), strict=True):
        for column in ("loss", "val_loss", "val_error"):
            assert float(ours[column]) == pytest.approx(float(theirs[column]), rel=1e-4)


def test_it_is_evaluated_and_predicted(bars, trained, command, tmp_path):
    table, predictions = tmp_path / "results.csv", tmp_path / "predictions.csv"
    arguments = ("--data", bars, "--results", table, "--predictions", predictions, "--quiet")
    code, out, err = command("eval", trained, *arguments)
    result = json.loads((trained / "result.json").read_text())
    assert code == 0 and json.loads(out)["error"] == pytest.approx(result["error"], abs=1e-3), err
    with open(table, newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["model"], row["protocol"], row["images"]) == ("bars", "run", "40")
    assert predictions.read_text().startswith("file,degrees,truth\nval[0],")
    # a table of classifiers is another one; options of theirs are refused
    code, _, err = command("eval", trained, "--data", bars, "--results", ROOT / "in1k_eval" / "results.csv", "--quiet")
    assert code == 1 and "a results table has the columns" in err
    code, _, err = command("eval", trained, "--data", bars, "--class-order", "sorted", "--quiet")
    assert code == 1 and "--class-order: not of angles" in err
    truth = angles.rows(bars, "val")[0][2]
    code, out, err = command(
        "predict", bars / "bar.png", "-m", trained, "-o", tmp_path / "drawn", "--json", tmp_path / "r.json"
    )
    (answer,) = json.loads((tmp_path / "r.json").read_text())
    assert (
        code == 0
        and abs((answer["degrees"] - truth + 90) % 180 - 90) < 25
        and (tmp_path / "drawn" / "bar.png").is_file()
    )
    assert swins.load(trained)(str(bars / "bar.png")).to_json() == {
        "degrees": pytest.approx(answer["degrees"], abs=1e-3)
    }


@pytest.mark.slow
@needs_tensorflow
def test_it_is_exported_with_a_certificate(bars, trained, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = command("export", trained, "--to", "saved_model", "onnx", "-o", "out")
    assert code == 0 and "direction run without swins differ from Keras by" in out, err
    proof = json.loads((tmp_path / "out" / "certificate.json").read_text())
    record = proof["exports"]["saved_model"]
    assert proof["task"] == "angles" and record["output"] == "direction" and record["serving_bytes"] <= 1e-5
    assert max(proof["targets"]["model.onnx"]["difference"].values()) <= 1e-5
    card = (tmp_path / "out" / "README.md").read_text()
    assert "kind of work `angles`" in card and "mean error in degrees" in card and "$" not in card
    for place in ("out", "out/saved_model"):
        result = swins.load(tmp_path / place)(str(bars / "bar.png"))
        assert result.degrees == pytest.approx(swins.load(trained)(str(bars / "bar.png")).degrees, abs=1e-2)
    code, out, err = command("verify", "out")
    assert code == 0 and "saved_model" in out and "mean error in degrees" in out, err


def test_kinds_of_work_that_are_not_known_are_refused(trained):
    with pytest.raises(SwinsError, match="unknown task 'angle': the closest are angles"):
        task_named("angle")
    assert task_named(None).name == "classification"  # what was written before there were others
    with pytest.raises(SwinsError, match=r"x.keras: holds a Sequential, of no kind of work that is known here"):
        task_of(keras.Sequential([keras.Input((2,))]), where="x.keras")


def test_a_run_of_another_kind_has_no_list_of_classes(trained):
    with pytest.raises(SwinsError, match="a run of angles, whose results have no such list of classes"):
        swins.class_names(trained)


def test_a_swin_of_another_kind_of_work_is_not_a_classifier(monkeypatch):
    """Whenever its Task was registered, and by classification's own rule."""
    model = swins.SwinTransformer(image_size=8, embed_dim=8, depths=(1,), num_heads=(1,), name="bars")
    monkeypatch.setattr(task, "TASKS", dict(reversed(task.TASKS.items())))
    assert task.task_of(model).name == "angles"


@pytest.mark.slow
def test_a_score_without_a_value_is_none_everywhere(bars, tmp_path, monkeypatch):
    """In the log, the result, the curves and tables; the best is one that has a number."""
    values = iter((None, 30.0, None, 20.0, 40.0))
    graded = dataclasses.replace(angles.ANGLES, score=lambda records: {"error": next(values)})
    monkeypatch.setitem(task.TASKS, "angles", graded)
    recipe, lines = dataclasses.replace(angles.RECIPE, epochs=3), []
    result = loop.train(recipe, bars, tmp_path / "run", say=lines.append)
    assert [row["val_error"] for row in log(tmp_path / "run")] == ["none", "30.000000", "none"]
    assert "val_error none" in lines[-1] and (tmp_path / "run" / "curves.png").is_file()
    assert result["error"] is None and result["best"] == {"epoch": 2, "error": 30.0}
    assert json.loads((tmp_path / "run" / "result.json").read_text())["error"] is None
    unmeasured = dataclasses.replace(angles.ANGLES, score=lambda records: {"error": None})
    monkeypatch.setitem(task.TASKS, "angles", unmeasured)
    result = loop.train(dataclasses.replace(recipe, epochs=1), bars, tmp_path / "none", say=quiet)
    assert result["best"] is None and not (tmp_path / "none" / "best.keras").exists()
    error = angles.ANGLES.headline
    assert error.better(1, 2) and error.better(1, None) and not error.better(None, 1) and not error.better(None, None)
    assert error.text(None) == "none" and error.text(1.5) == "1.5"


def test_it_may_have_further_tables_and_options(bars, trained, command, tmp_path, monkeypatch):
    """Of predictions, beside theirs; of prediction; and say how its results are listed."""
    more = dataclasses.replace(
        angles.ANGLES,
        score=lambda records: {"error": None},
        tables=lambda records, facts: {"halves": (["half", "count"], [["left", len(records)], ["right", None]])},
        predict_options=("threshold",),
        select=lambda result, options: angles.Angle(min(result.degrees, options.get("threshold", 1000))),
        listing=lambda rows, facts: [[name, result.degrees] for name, result in rows],
    )
    monkeypatch.setitem(task.TASKS, "angles", more)
    table, predictions = tmp_path / "results.csv", tmp_path / "p.csv"
    code, out, err = command("eval", trained, "--data", bars, "--results", table, "--predictions", predictions)
    assert code == 0 and json.loads(out)["error"] is None and f"wrote {tmp_path / 'p_halves.csv'}" in err, err
    assert (tmp_path / "p_halves.csv").read_text() == "half,count\nleft,40\nright,none\n"
    with open(table, newline="") as file:
        assert next(csv.DictReader(file))["error"] == "none"
    arguments = ("predict", bars / "bar.png", "-m", trained, "--json", tmp_path / "r.json", "--overwrite")
    answers = []
    for options in ((), ("--threshold", "0.25")):
        assert command(*arguments, *options)[0] == 0
        ((name, degrees),) = json.loads((tmp_path / "r.json").read_text())
        assert name == str(bars / "bar.png")
        answers.append(degrees)
    assert answers[0] > answers[1] == 0.25
    monkeypatch.setitem(task.TASKS, "angles", angles.ANGLES)
    code, _, err = command(*arguments, "--threshold", "0.25")
    assert code == 1 and "--threshold: not of angles; leave out" in err
    code, _, err = command(*arguments, "--threshold", "2")
    assert code == 2 and "must be from 0 to 1; got 2" in err
