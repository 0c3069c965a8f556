"""The state of a run in files: damaged ones, and what goes on with what."""

import contextlib
import dataclasses
import json
import re
import shutil
import zipfile

import keras
import numpy as np
import pytest
from training import SMALL, changed, quiet, write_idx

from swins.data.layouts import find_splits
from swins.data.split import Split
from swins.devices import ALONE
from swins.errors import SwinsError
from swins.images import read_idx
from swins.tasks import classification
from swins.tasks.classification import CLASSIFICATION
from swins.train import checkpoints, loop
from swins.train.folder import Run
from swins.train.progress import Progress


def trainee_of(recipe):
    """A compiled Trainee of a recipe for ten classes."""
    network = classification.network(recipe, Split("ten", [], tuple("0123456789")))
    trainee = loop.Trainee(network, CLASSIFICATION, recipe)
    loop.compile_trainee(trainee, recipe, 10)
    return trainee


@pytest.fixture
def model(idx):
    return trainee_of(SMALL)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(model, tmp_path):
    kept, told = checkpoints.Checkpoints(tmp_path), []
    for step in (1, 2, 3):
        model.optimizer.iterations.assign(step)
        kept.save(model, step, {"rows": []})
    assert [p.name for p in kept.paths()] == ["step-00000003.npz", "step-00000002.npz"]
    with zipfile.ZipFile(tmp_path / "step-00000003.npz") as archive:
        largest = max(archive.infolist(), key=lambda part: part.file_size)
    data = bytearray((tmp_path / "step-00000003.npz").read_bytes())
    data[largest.header_offset + largest.compress_size // 2] ^= 255
    (tmp_path / "step-00000003.npz").write_bytes(data)
    assert kept.sound(told.append) == 2 and kept.load(model, 2)["step"] == 2
    assert int(model.optimizer.iterations) == 2 and "step-00000003.npz is damaged" in told[0]
    assert [p.name for p in kept.paths()] == ["step-00000002.npz"]
    assert (tmp_path / "step-00000003.damaged").is_file()
    (tmp_path / "step-00000002.npz").write_bytes(b"PK half")
    with pytest.raises(SwinsError, match="none of its 1 checkpoints can be read"):
        kept.sound(told.append)


@pytest.mark.parametrize("error", [NotImplementedError("compression"), RuntimeError("encrypted"), OSError(22, "seek")])
def test_every_damage_of_an_archive_falls_back(model, tmp_path, monkeypatch, error):
    kept, sound = checkpoints.Checkpoints(tmp_path), checkpoints.read
    for step in (1, 2):
        kept.save(model, step, {})

    def read(path):
        if path.name.endswith("2.npz"):
            raise error
        return sound(path)

    monkeypatch.setattr(checkpoints, "read", read)
    assert kept.sound(quiet) == 1


def test_a_file_that_cannot_be_read_now_is_not_damaged(model, tmp_path, monkeypatch):
    kept = checkpoints.Checkpoints(tmp_path)
    for step in (1, 2):
        kept.save(model, step, {})

    def read(path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(checkpoints, "read", read)
    with pytest.raises(SwinsError, match=r"step-00000002.npz cannot be read .*start again when it can"):
        kept.sound(quiet)
    assert len(kept.paths()) == 2


def rewritten(path, change):
    """A checkpoint whose list of [path, shape] and arrays went through a function."""
    facts, arrays = checkpoints.read(path)
    facts["variables"], arrays = change(facts["variables"], arrays)
    parts = {f"{i:05d}": array for i, array in enumerate(arrays)}
    np.savez(path, **parts, facts=np.frombuffer(json.dumps(facts).encode(), "uint8"))


def test_variables_are_known_by_their_paths(model, tmp_path):
    """In another order they load all the same; two of one shape that were named otherwise are no others' values."""
    kept = checkpoints.Checkpoints(tmp_path)
    rng = np.random.default_rng(0)
    for weight in model.trainable_variables:
        weight.assign(rng.normal(size=weight.shape))
    kept.save(model, 1, {})
    values = [np.array(v) for v in checkpoints.variables_of(model)]
    rewritten(kept.path(1), lambda names, arrays: (names[::-1], arrays[::-1]))  # seeds of one block among them
    for weight in model.trainable_variables:
        weight.assign(np.zeros(weight.shape))
    kept.load(model, 1)
    for variable, value in zip(checkpoints.variables_of(model), values, strict=True):
        np.testing.assert_array_equal(variable, value, err_msg=variable.path)

    def renamed(names, arrays):
        return [[name.replace("norm1", "norm_1"), shape] for name, shape in names], arrays

    rewritten(kept.path(1), renamed)
    with pytest.raises(SwinsError, match=r"variables are not this model's .*- stages_0_.*norm1/.*--overwrite or in"):
        kept.load(model, 1)


def test_checkpoints_of_before_are_read(tmp_path):
    """Seeds were numbered by how many the process had made, and nothing was said of an epoch's validation."""
    kept, recipe = checkpoints.Checkpoints(tmp_path), changed(SMALL, model={"depths": (2,), "drop_path_rate": 0.2})
    model = trainee_of(recipe)
    kept.save(model, 20, {"rows": [{"epoch": 1}], "seconds": 3.0})

    def numbered(names, arrays):
        assert any("seed_generator" in name for name, _ in names)
        return [[re.sub(r"seed_generator(_\d+)?/", "seed_generator_41/", n), shape] for n, shape in names], arrays

    rewritten(kept.path(20), numbered)
    this = Run(tmp_path.parent, CLASSIFICATION, quiet)
    this.checkpoints = kept
    this.restore(model, ALONE)
    assert (this.step, this.unvalidated, this.best) == (20, None, None)


def test_weights_that_are_no_numbers_are_not_saved(model, tmp_path):
    model.trainable_variables[0].assign(model.trainable_variables[0] * float("nan"))
    with pytest.raises(SwinsError, match="after step 3 1 variables are no numbers, such as patch_embed/proj/kernel"):
        checkpoints.Checkpoints(tmp_path / "c").save(model, 3, {})
    assert not (tmp_path / "c").exists()


def test_only_what_a_run_wrote_is_deleted(tmp_path, idx):
    folder, splits = tmp_path / "run", find_splits(idx)
    folder.mkdir()
    (folder / ".recipe.json.partial").write_text("{")  # killed before it began
    Run(folder, CLASSIFICATION, quiet).open(SMALL, splits, overwrite=False)
    (folder / "thesis.tex").write_text("mine")
    (folder / "checkpoints").mkdir()
    Run(folder, CLASSIFICATION, quiet).open(dataclasses.replace(SMALL, epochs=3), splits, overwrite=True)
    assert {p.name for p in folder.iterdir()} - {".lock"} == {"recipe.json", "thesis.tex"}
    (folder / "recipe.json").write_text('{"cake": 1}')
    for overwrite in (False, True):
        with pytest.raises(SwinsError, match="is no record of a run"):
            Run(folder, CLASSIFICATION, quiet).open(SMALL, splits, overwrite)
    assert (folder / "thesis.tex").is_file()
    (folder / "recipe.json").write_text("")  # a power cut
    with pytest.raises(SwinsError, match="is no record of a run"):
        Run(folder, CLASSIFICATION, quiet).open(SMALL, splits, False)
    Run(folder, CLASSIFICATION, quiet).open(SMALL, splits, overwrite=True)


def test_what_changes_no_result_and_learning_rates_may_change_on_the_way(tmp_path, idx):
    folder, splits, told = tmp_path / "run", find_splits(idx), []
    Run(folder, CLASSIFICATION, told.append).open(SMALL, splits, overwrite=False)
    same = dataclasses.replace(changed(SMALL, data={"threads": 1}, model={"remat": True}), checkpoint_steps=7)
    Run(folder, CLASSIFICATION, told.append).open(same, splits, overwrite=False)
    assert not told
    for rate in (1e-4, 1e-5, 1e-5):
        this = Run(folder, CLASSIFICATION, told.append)
        this.open(changed(SMALL, optim={"learning_rate": rate}), splits, overwrite=False)
        this.restore(None, ALONE)
    assert told == [
        "going on with other settings: optim.learning_rate: 0.002, now 0.0001",
        "going on with other settings: optim.learning_rate: 0.0001, now 1e-05",
    ]
    record = json.loads((folder / "recipe.json").read_text())
    assert record["optim.learning_rate"] == 1e-5 and record["checkpoint_steps"] == 500
    rates = [change for change in record["changes"] if change["setting"] == "optim.learning_rate"]
    assert [(change["from"], change["to"], change["step"]) for change in rates] == [(2e-3, 1e-4, 0), (1e-4, 1e-5, 0)]


def test_a_change_on_the_way_is_recorded_with_its_step(model, tmp_path, idx):
    """What a run began with is known, and from which step on another rate holds; no other file is read for it."""
    splits = find_splits(idx)
    this = Run(tmp_path, CLASSIFICATION, quiet)
    this.open(SMALL, splits, overwrite=False)
    this.step = 7
    this.save(model, 1.0)
    this.close()
    before = (tmp_path / "recipe.json").read_text()
    other = Run(tmp_path, CLASSIFICATION, quiet)
    other.open(changed(SMALL, optim={"clip_norm": 1.0}), splits, overwrite=False)
    assert (tmp_path / "recipe.json").read_text() == before  # nothing holds yet
    other.restore(model, ALONE)
    assert other.changes() == [{"setting": "optim.clip_norm", "from": 5.0, "to": 1.0, "step": 7}]


@pytest.mark.slow
def test_other_settings_do_not_go_on(idx, tmp_path):
    loop.train(dataclasses.replace(SMALL, epochs=1), idx, tmp_path / "run", say=quiet)
    with pytest.raises(SwinsError, match=r"other settings \(epochs: 1, now 2\)"):
        loop.train(SMALL, idx, tmp_path / "run", say=quiet)
    other = tmp_path / "other"
    shutil.copytree(idx, other)
    images, labels = (read_idx(other / f"train-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    write_idx(other, "train", images, labels[::-1].copy())
    with pytest.raises(SwinsError, match=r"other settings .training data: '200 images"):
        loop.train(dataclasses.replace(SMALL, epochs=1), other, tmp_path / "run", say=quiet)
    before = (tmp_path / "run" / "log.csv").read_text()
    loop.train(SMALL, idx, tmp_path / "run", overwrite=True, say=quiet)
    assert (tmp_path / "run" / "log.csv").read_text() != before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(SwinsError, match="holds other files and no run"):
            loop.train(SMALL, idx, tmp_path / "mine", overwrite=overwrite, say=quiet)
    assert (tmp_path / "mine" / "a.txt").read_text() == "mine"


def test_an_archive_without_its_arrays_is_damaged(model, tmp_path):
    kept = checkpoints.Checkpoints(tmp_path)
    kept.save(model, 1, {})
    for broken in ("facts", "00003"):  # what NumPy gives as bytes, since it does not begin as an array does
        kept.save(model, 2, {})
        with zipfile.ZipFile(kept.path(2)) as old:
            parts = {name: old.read(name) for name in old.namelist()}
        with zipfile.ZipFile(kept.path(2), "w") as new:
            for name, content in parts.items():
                new.writestr(name, b"" if name == f"{broken}.npy" else content)
        assert kept.sound(quiet) == 1


def test_the_states_that_gave_a_loss_are_dropped_but_not_the_only_one(model, tmp_path):
    kept = checkpoints.Checkpoints(tmp_path)
    for step in (4, 9):
        kept.save(model, step, {})
    kept.drop(8)
    assert kept.steps() == [4]
    assert "go on from there, without --overwrite, with a lower" in kept.remedy(8)
    kept.drop(4)
    assert kept.steps() == [4] and "no checkpoint from before; begin again with --overwrite" in kept.remedy(4)


def test_states_within_the_update_that_gave_a_loss_are_dropped(model, tmp_path):
    this, recipe = Run(tmp_path, CLASSIFICATION, quiet), changed(SMALL, optim={"accumulate": 4})
    for step in (4, 6):
        this.checkpoints.save(model, step, {})
    this.step = 9  # in the weights of the update after 8, whose sums of gradients 6 has a part of
    progress = Progress(this, recipe, 16, None, None, None, writes=True)
    with pytest.raises(SwinsError, match=r"no number; the checkpoints in .* are from before"):
        progress.stop("no number", progress.updated(this.step))
    assert this.checkpoints.steps() == [4]


def test_two_processes_do_not_train_in_one_folder(tmp_path, idx):
    splits = find_splits(idx)
    with contextlib.closing(Run(tmp_path / "run", CLASSIFICATION, quiet)) as first:
        first.open(SMALL, splits, overwrite=False)
        for overwrite in (False, True):
            with pytest.raises(SwinsError, match="another process trains in it"):
                Run(tmp_path / "run", CLASSIFICATION, quiet).open(SMALL, splits, overwrite)
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())
    Run(tmp_path / "run", CLASSIFICATION, quiet).open(SMALL, splits, overwrite=True)


def test_statistics_of_batch_norms_are_averaged_as_weights_are(idx):
    """Statistics of the last ten steps do not fit weights that are averages of a thousand."""
    images = keras.Input((4, 4, 1))
    x = keras.layers.BatchNormalization(momentum=0.9, name="bn")(images)
    network = keras.Model(images, keras.layers.Dense(10)(keras.layers.Flatten()(x)), name="normed")
    trainee = loop.Trainee(network, dataclasses.replace(CLASSIFICATION, depths=lambda _: {}), SMALL)
    batch, norm = np.full((2, 4, 4, 1), 5, "float32"), network.get_layer("bn")
    for ema, updates, kept in ((0.0, 1000, 0.9), (0.99, 1000, 0.99), (0.99, 20, 0.9)):
        recipe = changed(SMALL, optim={"ema": ema})
        loop.compile_trainee(trainee, dataclasses.replace(recipe, epochs=1), updates)
        norm.moving_mean.assign([0.0])
        trainee(batch, training=False)
        assert not np.any(norm.moving_mean)
        trainee(batch, training=True)
        assert float(norm.moving_mean[0]) == pytest.approx((1 - kept) * 5, rel=1e-5) and norm.momentum == 0.9
