"""Training runs: what they leave, killed ones, and what goes wrong."""

import dataclasses
import json
import math
import os
import pathlib
import re
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image
from shared_fixtures import NAME, ROOT, needs_tensorflow
from training import CLASSES, SMALL, changed, log, quiet

import swins
from swins import devices
from swins.data import layouts, split
from swins.errors import SwinsError
from swins.images import Preprocess
from swins.tasks import classification
from swins.tasks.classification import CLASSIFICATION
from swins.train import checkpoints, folder, loop, progress


@pytest.mark.core
@pytest.mark.backends
@pytest.mark.usefixtures("curves")
def test_a_run_learns_and_leaves_what_it_says(idx, tmp_path):
    recipe = changed(SMALL, model={"compile": None}, optim={"learning_rate": 5e-3}, schedule={"warmup_epochs": 1})
    recipe = dataclasses.replace(changed(recipe, data={"batch": 10}), epochs=6)
    told = []
    result = loop.train(recipe, idx, tmp_path / "run", say=told.append)
    assert any("28x28 grey pixels" in line for line in told)
    assert not [line for line in told if line != line.rstrip(", ")]
    rows = log(tmp_path / "run")
    assert [row["epoch"] for row in rows] == list("123456")
    assert float(rows[-1]["loss"]) < 0.9 * float(rows[0]["loss"])
    assert result["top1"] == float(rows[-1]["val_top1"]) > 0.2
    kept = {p.name for p in (tmp_path / "run").iterdir()}
    assert kept - {".lock"} == {
        "recipe.json",
        "log.csv",
        "curves.png",
        "checkpoints",
        "model.keras",
        "result.json",
        "best.keras",
        "facts.json",
    }
    with Image.open(tmp_path / "run" / "curves.png") as picture:
        assert picture.size == (1200, 320)
    # the file holds the averaged weights that were validated
    model = keras.saving.load_model(tmp_path / "run" / "model.keras")
    _, validation = layouts.find_splits(idx)
    facts = result["preprocess"]
    prepare = Preprocess((28, 28), (28, 28), True, tuple(facts["mean"]), tuple(facts["std"]))
    logits = model.predict(prepare([image for _, image, _ in map(validation.__getitem__, range(70))]), verbose=0)
    labels = [validation[i][2] for i in range(70)]
    assert np.mean(logits.argmax(1) == labels) == pytest.approx(result["top1"], abs=1e-6)
    # started again it has nothing to do, says the same, and leaves what is there as it is
    before = {path: path.read_bytes() for path in (tmp_path / "run").glob("*.*")}
    assert loop.train(recipe, idx, tmp_path / "run", say=quiet) == json.loads(json.dumps(result))
    assert {path: path.read_bytes() for path in (tmp_path / "run").glob("*.*")} == before


@pytest.mark.slow
def test_accumulated_micro_batches_are_the_whole_batch(idx, tmp_path, command):
    steps = []
    for accumulate in (1, 4):
        recipe = changed(SMALL, optim={"accumulate": accumulate, "ema": 0.8}, augment={"pad": 0, "flip": 0.0})
        result = loop.train(recipe, idx, tmp_path / f"{accumulate}", say=quiet)
        rows = log(tmp_path / f"{accumulate}")
        steps.append([(float(r["loss"]), float(r["val_loss"]), r["learning_rate"]) for r in rows])
        assert result["parameters"] > 0
    for one, four in zip(*steps, strict=True):
        np.testing.assert_allclose(one[:2], four[:2], rtol=2e-5)
        assert one[2] == four[2]
    # both folders are evaluated, though no published variant has their channels and blocks
    code, out, err = command("eval", "--all", tmp_path, "--data", idx, "--quiet")
    assert code == 0 and out.count('"images": 70') == 2, err


@pytest.mark.slow
@needs_tensorflow
def test_killed_in_every_phase_a_run_ends_as_if_it_had_not_been(idx, tmp_path):
    command = [sys.executable, "-P", str(ROOT / "tests" / "killed.py"), str(idx), str(tmp_path), "0"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told["ends"] == [0, *[-9] * 8, 0]
    assert told["made"] == ["best.keras"]  # half a model.keras is none
    one, other = ({key: result[key] for key in ("top1", "top5", "best")} for result in told["results"])
    assert one == other and one["best"]["top1"] >= one["top1"]
    whole, killed = ([line.rsplit(",", 1)[0] for line in log.splitlines()] for log in told["logs"])  # but the seconds
    assert whole == killed and len(whole) == 5


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_the_run(idx, tmp_path):
    ruinous = {"optim": {"learning_rate": 1e30, "clip_norm": 0.0}, "schedule": {"warmup_rate": 1e30, "min_rate": 1e30}}
    recipe = dataclasses.replace(changed(SMALL, **ruinous), checkpoint_steps=1)
    with pytest.raises(SwinsError, match=r"the loss is (nan|inf) at step \d+.*lower optim.learning_rate"):
        loop.train(recipe, idx, tmp_path / "run", say=quiet)
    for path in checkpoints.Checkpoints(tmp_path / "run" / "checkpoints").paths():
        checkpoints.read(path)
    # the last update gave it, in an epoch of one step: it is seen when the epoch is validated
    last = changed(recipe, data={"batch": 200})
    with pytest.raises(SwinsError, match=r"the validation loss is (nan|inf) after step 1; .*lower optim.learning_rate"):
        loop.train(dataclasses.replace(last, epochs=1), idx, tmp_path / "last", say=quiet)
    assert not {"model.keras", "best.keras"} & {path.name for path in (tmp_path / "last").iterdir()}


@pytest.mark.slow
def test_a_run_goes_on_from_before_its_loss_became_no_number(idx, tmp_path, monkeypatch):
    recipe, broken = dataclasses.replace(SMALL, checkpoint_steps=1, epochs=1), []

    class Ruined(loop.Progress):
        def on_train_batch_end(self, batch, logs=None):
            if self.run.step == 5 and not broken:
                broken.append(True)
                logs = {"loss": float("nan")}
            super().on_train_batch_end(batch, logs)

    monkeypatch.setattr(loop, "Progress", Ruined)
    with pytest.raises(SwinsError, match=r"the loss is nan at step 6; .*go on from there, without --overwrite"):
        loop.train(recipe, idx, tmp_path / "run", say=quiet)
    kept = checkpoints.Checkpoints(tmp_path / "run" / "checkpoints")
    assert [p.name for p in kept.paths()] == ["step-00000004.npz"]  # not 5, whose update gave it
    told = []
    loop.train(changed(recipe, optim={"learning_rate": 1e-3}), idx, tmp_path / "run", say=told.append)
    assert any("going on after step 4" in text for text in told) and len(log(tmp_path / "run")) == 1


@pytest.mark.slow
def test_asked_to_end_a_run_saves_its_state_and_goes_on(idx, tmp_path, monkeypatch):
    recipe = dataclasses.replace(SMALL, epochs=1)
    whole = loop.train(recipe, idx, tmp_path / "whole", say=quiet)

    class Asked(loop.Progress):
        def on_train_batch_end(self, batch, logs=None):
            if self.run.step == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            super().on_train_batch_end(batch, logs)

    monkeypatch.setattr(loop, "Progress", Asked)
    before, told = signal.getsignal(signal.SIGTERM), []
    with pytest.raises(SystemExit) as ended:
        loop.train(recipe, idx, tmp_path / "run", say=told.append)
    assert ended.value.code == 128 + signal.SIGTERM and signal.getsignal(signal.SIGTERM) == before
    assert "the state after step 5 is saved" in told[-1]
    monkeypatch.undo()
    result = loop.train(recipe, idx, tmp_path / "run", say=told.append)
    assert any("going on after step 5" in text for text in told)
    (mine,), (other,) = log(tmp_path / "run"), log(tmp_path / "whole")
    for column in ("loss", "val_loss"):
        assert float(mine[column]) == pytest.approx(float(other[column]), rel=1e-4)
    assert result["images"] == whole["images"]
    loop.train(recipe, idx, tmp_path / "run", say=told.append)
    assert "all epochs are done: nothing is left to train" in told


def network(recipe, num_classes):
    """The network of a recipe for so many classes."""
    return classification.network(recipe, split.Split("none", [], tuple(map(str, range(num_classes)))))


def one_epoch(**changes):
    return dataclasses.replace(SMALL, epochs=1, **changes)


def rows_but_seconds(folder):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in log(folder)]


@pytest.mark.slow
@pytest.mark.parametrize("problem", ["unreadable", "memory", "interrupt"])
def test_what_happens_in_validation_loses_no_epoch(idx, tmp_path, monkeypatch, problem):
    """The state is saved before; the epoch is validated on the way back, to the row that it would have had."""
    whole = loop.train(one_epoch(), idx, tmp_path / "whole", say=quiet)

    def broken(self):
        if problem == "unreadable":
            raise SwinsError("more than 7 images cannot be read")
        if problem == "memory":
            raise MemoryError("x")
        signal.raise_signal(signal.SIGINT)
        heed(self)

    heed = loop.Progress.heed
    expected = {"unreadable": SwinsError, "memory": SwinsError, "interrupt": KeyboardInterrupt}[problem]
    monkeypatch.setattr(loop.Progress, "heed", broken)
    told = []
    with pytest.raises(expected):
        loop.train(one_epoch(), idx, tmp_path / "run", say=told.append)
    assert checkpoints.Checkpoints(tmp_path / "run" / "checkpoints").steps() == [10]
    assert not (tmp_path / "run" / "log.csv").exists() and not (tmp_path / "run" / "best.keras").exists()
    if problem == "interrupt":
        assert "the state after step 10 is saved" in told[-1]
    monkeypatch.undo()
    result = loop.train(one_epoch(), idx, tmp_path / "run", say=told.append)
    assert "epoch 1 is trained and not yet validated" in told
    assert result["images"] == whole["images"] and len(log(tmp_path / "run")) == 1
    for column, value in rows_but_seconds(tmp_path / "whole")[0].items():
        assert float(log(tmp_path / "run")[0][column]) == pytest.approx(float(value), rel=1e-4), column


@pytest.mark.slow
def test_ctrl_c_saves_as_sigterm_does(idx, tmp_path, monkeypatch, capfd):
    class Interrupted(loop.Progress):
        def on_train_batch_end(self, batch, logs=None):
            if self.run.step == 4:
                signal.raise_signal(signal.SIGINT)
            super().on_train_batch_end(batch, logs)

    monkeypatch.setattr(loop, "Progress", Interrupted)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        loop.train(one_epoch(), idx, tmp_path / "run", say=quiet)
    assert signal.getsignal(signal.SIGINT) == before
    assert "ending after this batch, which is saved; once more ends at once" in capfd.readouterr().err
    assert checkpoints.Checkpoints(tmp_path / "run" / "checkpoints").steps() == [5]

    ending = progress.Ending(devices.ALONE)  # twice is at once
    with ending, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


@pytest.mark.slow
@pytest.mark.backends
@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_the_best_epoch_is_kept(idx, tmp_path, monkeypatch, ema):
    """best.keras has the weights, averaged or not, that gave the best validation; later and worse ones leave it."""
    recipe = dataclasses.replace(changed(SMALL, optim={"ema": ema}), epochs=3)
    tops, validated = [0.25, 0.75, 0.5], []
    fit_validate = loop.Progress.validated

    def graded(self):
        validate = self.validate

        def given(trainee, heed):
            validation = validate(trainee, heed)
            scores = {**validation.scores, "top1": tops[len(self.run.rows)]}
            return dataclasses.replace(validation, scores=scores)

        self.validate = given
        row = fit_validate(self)
        self.validate = validate
        path = tmp_path / "run" / "best.keras"
        validated.append(path.stat().st_mtime_ns)
        return row

    monkeypatch.setattr(loop.Progress, "validated", graded)
    result = loop.train(recipe, idx, tmp_path / "run", say=quiet)
    assert result["best"] == {"epoch": 2, "top1": 0.75} and result["top1"] == 0.5
    assert validated[0] < validated[1] == validated[2]
    best = keras.saving.load_model(tmp_path / "run" / "best.keras")
    facts = result["preprocess"]
    prepare = Preprocess((28, 28), (28, 28), True, tuple(facts["mean"]), tuple(facts["std"]))
    _, validation = layouts.find_splits(idx)
    images, labels = zip(*((image, label) for _, image, label in map(validation.__getitem__, range(70))), strict=True)
    loss = keras.ops.mean(
        keras.losses.sparse_categorical_crossentropy(np.array(labels), best(prepare(list(images))), from_logits=True)
    )
    loss = float(keras.ops.convert_to_numpy(loss))
    assert loss == pytest.approx(float(log(tmp_path / "run")[1]["val_loss"]), rel=1e-4)


def test_tensorboard_is_asked_for_before_anything_is_made(idx, tmp_path, monkeypatch):
    monkeypatch.setattr(loop.importlib.util, "find_spec", lambda name: None if name == "tensorboard" else True)
    monkeypatch.setattr(loop, "task_of_recipe", None)
    with pytest.raises(SwinsError, match=r"--tensorboard needs tensorboard: pip install tensorboard; log.csv has"):
        loop.train(SMALL, idx, tmp_path / "run", tensorboard=True, say=quiet)
    assert not (tmp_path / "run").exists()


def test_the_loss_is_looked_at_seldom_but_before_every_save(tmp_path):
    """Which waits for the device; a loss that became none is told by its own step."""
    looked = []

    class Loss(float):
        def __float__(self):
            looked.append(self)
            return float.__float__(self)

    this = folder.Run(tmp_path, CLASSIFICATION, quiet)
    told = progress.Progress(this, dataclasses.replace(SMALL, checkpoint_steps=7), 100, None, None, None, writes=False)
    told.ending = progress.Ending(devices.ALONE)
    for _ in range(20):
        told.on_train_batch_end(0, {"loss": Loss(1.0)})
    assert len(looked) == 4  # at 7 and 14, which are saved, at 10 and 20
    with pytest.raises(SwinsError, match="the loss is nan at step 23;"):
        for step in range(21, 31):
            told.on_train_batch_end(0, {"loss": Loss(math.nan if step >= 23 else 1.0)})
    assert this.step == 28


def test_what_start_does_is_in_the_file_that_a_run_leaves(tmp_path):
    """Reich's start takes the dropout of position networks away; the model of a run must not have it back."""
    recipe = changed(SMALL, model={"name": "swin_transformer_v2_t", "start": "torch", "image_size": 32})
    recipe = changed(recipe, model={"depths": (1, 1), "num_heads": (1, 2), "embed_dim": 16, "window_size": 4})
    trainee = loop.Trainee(network(recipe, 3), CLASSIFICATION, recipe)
    loop.compile_trainee(trainee, recipe, 10)
    folder.save_model(trainee, tmp_path / "model.keras")
    left = keras.saving.load_model(tmp_path / "model.keras")
    for other in (left, swins.resize(left, image_size=64, window_size=8)):
        rates = [layer.attn.meta_drop.rate for layer in other.layers if "_blocks_" in layer.name]
        assert rates and not any(rates)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("x"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating"),
        RuntimeError("CUDA out of memory."),
    ],
)
def test_too_little_memory_says_what_to_lower(idx, tmp_path, monkeypatch, error):
    def fit(self, *args, **kwargs):
        raise error

    monkeypatch.setattr(keras.Model, "fit", fit)
    with pytest.raises(SwinsError, match=r"out of memory at data.batch=20.*raise optim.accumulate"):
        loop.train(SMALL, idx, tmp_path / "run", say=quiet)


def test_pretrained_weights_are_carried_over_to_other_windows(checkpoint):
    own = dict.fromkeys(("depths", "num_heads", "embed_dim"))
    recipe = changed(SMALL, model={"weights": str(checkpoint), "window_size": 7, **own})
    model = network(recipe, 3)
    assert model.get_layer("stages_0_blocks_0").window_size == (7, 7) and model.output.shape == (None, 3)
    native = network(changed(recipe, model={"window_size": None}), 10)
    path = "stages_0_blocks_0/mlp/fc1/kernel"
    ours, theirs = (next(np.array(v) for v in m.variables if v.path == path) for m in (model, native))
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("text", ["the classroom has no zoom", "bedroom/a.png"])
def test_other_errors_are_not_taken_for_a_want_of_memory(text):
    assert not loop.out_of_memory(RuntimeError(text)) and loop.out_of_memory(RuntimeError("OOM when allocating"))


def test_what_does_not_fit_is_refused(idx, tmp_path):
    for change, said in (
        ({"model": {"num_classes": 3}}, "must be the data's; got 3 and 10"),
        ({"data": {"batch": 400}}, "data.batch must not exceed the training images; got 400 and 200"),
        ({"data": {"mean": (0.1, 0.2)}, "model": {"in_chans": 3}}, "a number a channel"),
        ({"model": {"image_size": (None, None)}}, "image_size"),
        ({"model": {"name": "swin_tinny"}}, "unknown variant"),
        ({"model": {"dtype": "mixed_float16"}}, "model.dtype must be one of float32, mixed_bfloat16"),
    ):
        with pytest.raises(SwinsError, match=said):
            loop.train(changed(SMALL, **change), idx, tmp_path / "run", say=quiet)
        assert not (tmp_path / "run").exists()
    with pytest.raises(SwinsError, match="divided among 4 devices, in 1 micro-batches; got 6; choose a multiple of 4"):
        devices.check_batch("data.batch", 6, 4)


@pytest.mark.slow
def test_the_command(idx, class_folders, tmp_path, command, checkpoint):
    """A recipe of the repository, on a folder of one's own, from weights of one's own."""
    recipe = ROOT / "recipes" / "finetune.py"
    code, out, _ = command("train", recipe, "--print", "--set", "epochs=3")
    assert code == 0 and json.loads(out)["epochs"] == 3 and json.loads(out)["optim.layer_decay"] == 0.8
    arguments = ["train", recipe, "--data", class_folders, "-o", tmp_path / "run"]
    more = (f"model.name={NAME}", f"model.weights={checkpoint}", "epochs=8", "data.batch=12", "data.held_out=0.3")
    for text in (*more, "augment.scale=None", "optim.learning_rate=1e-3", "model.compile=False"):
        arguments += ["--set", text]
    code, out, err = command(*arguments)
    assert code == 0, err
    assert "top-1" in out and "3 classes" in err and "epoch 8" in err
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["top1"] > 0.7
    code, out, err = command("eval", tmp_path / "run" / "model.keras", "--data", class_folders, "--quiet")
    assert code == 0 and json.loads(out)["images"] == 42 and json.loads(out)["protocol"] == "run"
    code, out, err = command("eval", tmp_path / "run", "--data", class_folders, "--split", "val", "--quiet")
    assert code == 0 and f"of {class_folders} the 12 images that the run held out to validate on" in err
    row = json.loads(out)
    assert (row["images"], row["dataset"], row["top1"]) == (12, "data/val", pytest.approx(result["top1"], abs=1e-4))
    code, _, err = command("eval", tmp_path / "run", "--data", class_folders, "--protocol", "ms", "--quiet")
    assert code == 1 and "images are prepared as its training run did" in err
    # what it was trained with is known by its folder
    assert swins.class_names(tmp_path / "run") == list(CLASSES)
    prepare = swins.preprocess(tmp_path / "run")
    assert list(prepare.mean) == result["preprocess"]["mean"] and prepare.resize == (31, 31)
    assert swins.preprocess(tmp_path / "run" / "model.keras", image_size=56).image_size == (56, 56)
    image = next((class_folders / "boots").iterdir())
    code, out, err = command("explain", image, "-m", tmp_path / "run", "--kind", "grad_cam", "-o", tmp_path / "e.png")
    assert code == 0 and re.search("(boots|shirts|trousers) [0-9]+%", out), err
    code, _, err = command("train", recipe)
    assert code == 1 and "needs --data" in err
    code, _, err = command("train", recipe, "--data", class_folders, "--set", "optim.lr=1")
    assert code == 1 and "unknown setting 'optim.lr'" in err and "optim.learning_rate" in err
    assert not pathlib.Path("runs").exists()
