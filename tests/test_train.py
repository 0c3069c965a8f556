"""Training runs: recipes and their settings, data, killed runs, several devices, and what goes wrong."""

import contextlib
import csv
import dataclasses
import gzip
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import DATA, NAME, ROOT, needs_tensorflow
from PIL import Image

from swins import devices
from swins.errors import SwinsError
from swins.images import Preprocess, read_idx
from swins.train import checkpoints, run
from swins.train import data as datasets
from swins.train import recipe as recipes
from swins.train.recipe import Augment, Data, Model, Optim, Recipe

CLASSES = ("boots", "shirts", "trousers")
SMALL = Recipe(
    model=Model(NAME, depths=(1, 1), embed_dim=24, drop_path_rate=0.0, compile=False),
    data=Data(batch=20, crop=1.0, threads=2),
    augment=Augment(scale=None, pad=1, rand_augment="", erase=0.0, mixup=0.0, cutmix=0.0),
    optim=Optim(learning_rate=2e-3, per_images=0, warmup_epochs=0, ema=0.5),
    epochs=2,
)


@pytest.fixture(scope="module")
def pixels():
    """(images, labels) of the embedded test set."""
    return tuple(read_idx(DATA / f"t10k-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))


def write_idx(folder, part, images, labels):
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes(), 1))


@pytest.fixture(scope="module")
def idx(tmp_path_factory, pixels):
    """An IDX data set: 200 images to train on, 70 to validate."""
    folder = tmp_path_factory.mktemp("idx")
    images, labels = pixels
    write_idx(folder, "train", images[:200], labels[:200])
    write_idx(folder, "t10k", images[-70:], labels[-70:])
    return folder


@pytest.fixture
def folder(tmp_path, pixels):
    """A folder a class: 14 images of each of three."""
    images, labels = pixels
    for name, number in zip(CLASSES, (9, 6, 1), strict=True):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in np.flatnonzero(labels == number)[:14]:
            Image.fromarray(images[i]).save(tmp_path / "data" / name / f"{i}.png")
    return tmp_path / "data"


def quiet(text):
    pass


def log(folder):
    """Rows of a run's log.csv."""
    with open(folder / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


def changed(recipe, **sections):
    """A recipe with some fields of its sections replaced."""
    return dataclasses.replace(recipe, **{k: dataclasses.replace(getattr(recipe, k), **v) for k, v in sections.items()})


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.py")), ids=lambda p: p.stem)
def test_recipes_say_what_they_are(path):
    recipe = recipes.load(path)
    text = path.read_text()
    for line in ("Command", "Expected", "Obtained", f"swins train recipes/{path.name}"):
        assert line in text, line
    assert f"`{path.name}`" in (ROOT / "recipes" / "README.md").read_text() or f"{path.stem}.py" in text
    assert recipes.settings(recipe)["model.name"] == recipe.model.name


@pytest.mark.parametrize("path", sorted((ROOT / "recipes/results").glob("*")), ids=lambda p: p.name)
def test_committed_results_are_of_their_recipes(path):
    source = ROOT / "recipes" / f"{path.name}.py"
    result, rows = json.loads((path / "result.json").read_text()), log(path)
    assert result["recipe"] == json.loads(json.dumps(recipes.as_json(recipes.load(source))))
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


def test_a_folder_a_class_is_divided_the_same_way_every_time(folder):
    (folder / "boots" / "notes.txt").write_text("mine")
    (folder / ".cache").mkdir()
    training, validation = datasets.find_splits(folder, 0.25, seed=1)
    assert training.classes == CLASSES and [p.name for p in training.strays] == ["notes.txt"]
    names = [{name for name, _, _ in split.samples} for split in (training, validation)]
    assert not names[0] & names[1] and len(names[0] | names[1]) == 42
    assert [sum(s[2] == c for s in validation.samples) for c in range(3)] == [4, 4, 4]
    again = datasets.find_splits(folder, 0.25, seed=1)
    assert again[1].samples == validation.samples
    assert datasets.find_splits(folder, 0.25, seed=2)[1].samples != validation.samples


def test_train_and_val_folders_tiny_imagenet_and_cifar(folder, tmp_path, pixels):
    both = tmp_path / "both"
    shutil.copytree(folder, both / "train")
    (both / "val" / "shirts").mkdir(parents=True)
    shutil.copy(next((folder / "shirts").iterdir()), both / "val" / "shirts" / "a.png")
    training, validation = datasets.find_splits(both)
    assert len(training) == 42 and [s[2] for s in validation.samples] == [1]
    (both / "val" / "hats").mkdir()
    with pytest.raises(SwinsError, match=r"classes must be those of train; 1 are not: hats"):
        datasets.find_splits(both)

    tiny = tmp_path / "tiny"
    for name in CLASSES:
        shutil.copytree(folder / name, tiny / "train" / name / "images")
    (tiny / "val" / "images").mkdir(parents=True)
    for i, name in enumerate(reversed(CLASSES)):
        shutil.copy(next((folder / name).iterdir()), tiny / "val" / "images" / f"val_{i}.png")
    table = "".join(f"val_{i}.png\t{name}\t0\t0\t9\t9\n" for i, name in enumerate(reversed(CLASSES)))
    (tiny / "val" / "val_annotations.txt").write_text(table)
    training, validation = datasets.find_splits(tiny)
    assert len(training) == 42 and [s[2] for s in validation.samples] == [2, 1, 0]

    cifar = tmp_path / "cifar"
    cifar.mkdir()
    records = np.zeros((3, datasets.CIFAR_BYTES), "uint8")
    records[:, 0] = (6, 9, 9)
    records[1, 1 : 1 + 1024] = 200  # the red plane
    for name in ("data_batch_1", "data_batch_2", "test_batch"):
        records.tofile(cifar / f"{name}.bin")
    training, validation = datasets.find_splits(cifar)
    assert (len(training), len(validation)) == (6, 3)
    _, image, label = training[4]
    assert label == 9 and image.shape == (32, 32, 3) and image[5, 5].tolist() == [200, 0, 0]
    (cifar / "test_batch.bin").write_bytes(b"abc")
    with pytest.raises(SwinsError, match="records of 3073 bytes"):
        datasets.find_splits(cifar)


def test_data_that_cannot_be_trained_on(tmp_path, folder):
    with pytest.raises(SwinsError, match="no such folder"):
        datasets.find_splits(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SwinsError, match="holds no images to train on"):
        datasets.find_splits(tmp_path / "empty")
    (tmp_path / "empty" / "a").mkdir()
    with pytest.raises(SwinsError, match="holds no training images"):
        datasets.find_splits(tmp_path / "empty")
    (folder / "train").mkdir()  # a class, not a split
    with pytest.raises(SwinsError, match="every class needs an image to train on; 1 have none: train"):
        datasets.find_splits(folder)
    shutil.copy(next((folder / "boots").iterdir()), folder / "train" / "a.png")
    assert len(datasets.find_splits(folder)[0].classes) == 4
    for name in (*CLASSES[1:], "train"):
        shutil.rmtree(folder / name)
    with pytest.raises(SwinsError, match="at least two classes; got 1: boots"):
        datasets.find_splits(folder)


def batches(split, recipe, start=0, share=None, count=3):
    prepare = Preprocess((28, 28), (28, 28), True, (0.286,), (0.353,))
    unreadable = datasets.Unreadable("unused", 0)
    options = (unreadable, start, share or devices.Share())
    found = datasets.training_batches(split, recipe, prepare, len(split.classes), *options)
    return [batch for batch, _ in zip(found, range(count), strict=False)]


def test_batches_depend_on_the_seed_and_the_step_alone(idx):
    training, _ = datasets.find_splits(idx)
    recipe = changed(SMALL, augment={"mixup": 0.5, "erase": 0.5, "rand_augment": "rand-m9-mstd0.5-inc1"})
    whole = batches(training, recipe, count=13)
    assert whole[0][0].shape == (20, 28, 28, 1) and whole[0][1].shape == (20, 10)
    for start in (1, 9, 11):  # an epoch has ten
        (later,) = batches(training, changed(recipe, data={"threads": 1}), start=start, count=1)
        for mine, its in zip(later, whole[start], strict=True):
            np.testing.assert_array_equal(mine, its)
    assert np.abs(whole[0][0] - whole[10][0]).max() > 0.1
    (other,) = batches(training, dataclasses.replace(recipe, seed=1), count=1)
    assert np.abs(other[0] - whole[0][0]).max() > 0.1


def test_an_epoch_has_every_image_once_and_processes_share_its_batches(idx):
    training, _ = datasets.find_splits(idx)
    recipe = changed(SMALL, augment={"pad": 0, "flip": 0.0, "smoothing": 0.0})

    def keys(found):
        return sorted(image.tobytes() for images, _ in found for image in images)

    for epoch in (0, 1):
        assert len(set(keys(batches(training, recipe, start=10 * epoch, count=10)))) == 200
    (first,) = batches(training, recipe, start=4, count=1)
    parts = [batches(training, recipe, 4, devices.Share(i, 2), count=1)[0] for i in (0, 1)]
    assert [len(part[0]) for part in parts] == [10, 10] and keys(parts) == keys([first])


def test_validation_counts_every_image_once(idx, tmp_path):
    _, validation = datasets.find_splits(idx)
    prepare = Preprocess((28, 28), (28, 28), True, (0.286,), (0.353,))
    for share in (devices.Share(), devices.Share(1, 2)):
        unreadable = datasets.Unreadable(tmp_path / "u.txt", 5)
        found, count = datasets.validation_batches(validation, prepare, 32, 10, unreadable, 1, share)
        weights = np.concatenate([w for _, _, w in found])
        assert count == 3 and len(weights) == 96 // share.count and weights.sum() == 70 // share.count


def test_unreadable_images_are_named_counted_and_replaced(folder, tmp_path):
    broken = sorted((folder / "boots").iterdir())[:2]
    for path in broken:
        path.write_bytes(b"no image")
    told = []
    result = run.train(changed(SMALL, data={"batch": 8}), folder, tmp_path / "run", say=told.append)
    names = [
        p for name in ("unreadable.txt", "unreadable_validation.txt") for p in [tmp_path / "run" / name] if p.is_file()
    ]
    text = "".join(path.read_text() for path in names)
    assert all(str(path) in text for path in broken)
    rows = log(tmp_path / "run")
    assert rows[-1]["unreadable"] == "2" and int(rows[-1]["val_images"]) == result["images"]
    split = tmp_path / "split"
    shutil.copytree(folder, split / "val")
    shutil.copytree(folder, split / "train", ignore=lambda _, names: [p.name for p in broken if p.name in names])
    for path in sorted((split / "val" / "trousers").iterdir())[:7]:
        path.write_bytes(b"no image")
    with pytest.raises(SwinsError, match=r"more than 4 images cannot be read.*unreadable_validation.txt"):
        run.train(changed(SMALL, data={"batch": 8}), split, tmp_path / "run3", say=quiet)
    for path in (folder / "shirts").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(SwinsError, match=r"more than \d images cannot be read"):
        run.train(changed(SMALL, data={"batch": 8}), folder, tmp_path / "run2", say=quiet)


@pytest.mark.backends
def test_a_run_learns_and_leaves_what_it_says(idx, tmp_path):
    faster = {"learning_rate": 5e-3, "warmup_epochs": 1}
    recipe = dataclasses.replace(changed(SMALL, model={"compile": None}, optim=faster, data={"batch": 10}), epochs=6)
    told = []
    result = run.train(recipe, idx, tmp_path / "run", say=told.append)
    rows = log(tmp_path / "run")
    assert [row["epoch"] for row in rows] == list("123456")
    assert float(rows[-1]["loss"]) < 0.9 * float(rows[0]["loss"])
    assert result["top1"] == float(rows[-1]["val_top1"]) > 0.2
    kept = {p.name for p in (tmp_path / "run").iterdir()}
    assert kept == {"recipe.json", "log.csv", "curves.png", "checkpoints", "model.keras", "result.json"}
    with Image.open(tmp_path / "run" / "curves.png") as picture:
        assert picture.size == (1200, 320)
    # the file holds the averaged weights that were validated
    model = keras.saving.load_model(tmp_path / "run" / "model.keras")
    _, validation = datasets.find_splits(idx)
    facts = result["preprocess"]
    prepare = Preprocess((28, 28), (28, 28), True, tuple(facts["mean"]), tuple(facts["std"]))
    logits = model.predict(prepare([image for _, image, _ in map(validation.__getitem__, range(70))]), verbose=0)
    labels = [validation[i][2] for i in range(70)]
    assert np.mean(logits.argmax(1) == labels) == pytest.approx(result["top1"], abs=1e-6)
    # started again it has nothing to do, and says the same
    assert run.train(recipe, idx, tmp_path / "run", say=quiet)["top1"] == result["top1"]


def test_accumulated_parts_are_the_whole_batch(idx, tmp_path, command):
    steps = []
    for accumulate in (1, 4):
        recipe = changed(SMALL, optim={"accumulate": accumulate, "ema": 0.8}, augment={"pad": 0, "flip": 0.0})
        result = run.train(recipe, idx, tmp_path / f"{accumulate}", say=quiet)
        rows = log(tmp_path / f"{accumulate}")
        steps.append([(float(r["loss"]), float(r["val_loss"]), r["learning_rate"]) for r in rows])
        assert result["parameters"] > 0
    for one, four in zip(*steps, strict=True):
        np.testing.assert_allclose(one[:2], four[:2], rtol=2e-5)
        assert one[2] == four[2]
    # both folders are evaluated, though no published variant has their channels and blocks
    code, out, err = command("eval", "--all", tmp_path, "--data", idx, "--quiet")
    assert code == 0 and out.count('"images": 70') == 2, err


@needs_tensorflow
def test_killed_five_times_a_run_ends_as_if_it_had_not_been(idx, tmp_path):
    command = [sys.executable, "-P", str(ROOT / "tests" / "killed.py"), str(idx), str(tmp_path), "0"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told["ends"] == [0, *[-9] * 5, 0]
    whole, killed = ([line.rsplit(",", 1)[0] for line in log.splitlines()] for log in told["logs"])  # but the seconds
    assert whole == killed and len(whole) == 5


@pytest.fixture
def model(idx):
    model = run.new_model(SMALL, 10)
    run.compile_model(model, SMALL, 10)
    return model


def test_a_damaged_checkpoint_falls_back_to_the_one_before(model, tmp_path):
    kept, told = checkpoints.Checkpoints(tmp_path), []
    for step in (1, 2, 3):
        model.optimizer.iterations.assign(step)
        kept.save(model, step, {"rows": []})
    assert [p.name for p in kept.paths()] == ["step-00000003.npz", "step-00000002.npz"]
    data = bytearray((tmp_path / "step-00000003.npz").read_bytes())
    data[len(data) // 2] ^= 255
    (tmp_path / "step-00000003.npz").write_bytes(data)
    assert kept.restore(model, told.append)["step"] == 2
    assert int(model.optimizer.iterations) == 2 and "step-00000003.npz is damaged" in told[0]
    assert [p.name for p in kept.paths()] == ["step-00000002.npz"]
    assert (tmp_path / "step-00000003.damaged").is_file()
    (tmp_path / "step-00000002.npz").write_bytes(b"PK half")
    with pytest.raises(SwinsError, match="none of its 1 checkpoints can be read"):
        kept.restore(model, told.append)


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
    assert kept.restore(model, quiet)["step"] == 1


def test_a_file_that_cannot_be_read_now_is_not_damaged(model, tmp_path, monkeypatch):
    kept = checkpoints.Checkpoints(tmp_path)
    for step in (1, 2):
        kept.save(model, step, {})

    def read(path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(checkpoints, "read", read)
    with pytest.raises(SwinsError, match=r"step-00000002.npz cannot be read .*start again when it can"):
        kept.restore(model, quiet)
    assert len(kept.paths()) == 2


def test_only_what_a_run_wrote_is_deleted(tmp_path, idx):
    folder, splits = tmp_path / "run", datasets.find_splits(idx)
    folder.mkdir()
    (folder / ".recipe.json.partial").write_text("{")  # killed before it began
    run.Run(folder, quiet).open(SMALL, splits, overwrite=False)
    (folder / "thesis.tex").write_text("mine")
    (folder / "checkpoints").mkdir()
    run.Run(folder, quiet).open(dataclasses.replace(SMALL, epochs=3), splits, overwrite=True)
    assert sorted(p.name for p in folder.iterdir()) == ["recipe.json", "thesis.tex"]
    (folder / "recipe.json").write_text('{"cake": 1}')
    for overwrite in (False, True):
        with pytest.raises(SwinsError, match="is no record of a run"):
            run.Run(folder, quiet).open(SMALL, splits, overwrite)
    assert (folder / "thesis.tex").is_file()
    (folder / "recipe.json").write_text("")  # a power cut
    with pytest.raises(SwinsError, match="is no record of a run"):
        run.Run(folder, quiet).open(SMALL, splits, False)
    run.Run(folder, quiet).open(SMALL, splits, overwrite=True)


def test_what_changes_no_result_and_learning_rates_may_change_on_the_way(tmp_path, idx):
    folder, splits, told = tmp_path / "run", datasets.find_splits(idx), []
    run.Run(folder, told.append).open(SMALL, splits, overwrite=False)
    same = dataclasses.replace(changed(SMALL, data={"threads": 1}, model={"remat": True}), checkpoint_steps=7)
    run.Run(folder, told.append).open(same, splits, overwrite=False)
    assert not told
    run.Run(folder, told.append).open(changed(SMALL, optim={"learning_rate": 1e-4}), splits, overwrite=False)
    assert told == ["going on with other settings: optim.learning_rate: 0.002, now 0.0001"]
    assert json.loads((folder / "recipe.json").read_text())["optim.learning_rate"] == 1e-4


def test_other_settings_do_not_go_on(idx, tmp_path):
    run.train(dataclasses.replace(SMALL, epochs=1), idx, tmp_path / "run", say=quiet)
    with pytest.raises(SwinsError, match=r"other settings \(epochs: 1, now 2\)"):
        run.train(SMALL, idx, tmp_path / "run", say=quiet)
    other = tmp_path / "other"
    shutil.copytree(idx, other)
    images, labels = (read_idx(other / f"train-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    write_idx(other, "train", images, labels[::-1].copy())
    with pytest.raises(SwinsError, match=r"other settings .training data: '200 images"):
        run.train(dataclasses.replace(SMALL, epochs=1), other, tmp_path / "run", say=quiet)
    before = (tmp_path / "run" / "log.csv").read_text()
    run.train(SMALL, idx, tmp_path / "run", overwrite=True, say=quiet)
    assert (tmp_path / "run" / "log.csv").read_text() != before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(SwinsError, match="holds other files and no run"):
            run.train(SMALL, idx, tmp_path / "mine", overwrite=overwrite, say=quiet)
    assert (tmp_path / "mine" / "a.txt").read_text() == "mine"


def test_a_loss_that_is_no_number_stops_the_run(idx, tmp_path):
    recipe = changed(SMALL, optim={"learning_rate": 1e30, "clip_norm": 0.0, "warmup_rate": 1e30, "min_rate": 1e30})
    recipe = dataclasses.replace(recipe, checkpoint_steps=1)
    with pytest.raises(SwinsError, match=r"the loss is (nan|inf) at step \d+.*lower optim.learning_rate"):
        run.train(recipe, idx, tmp_path / "run", say=quiet)
    for path in checkpoints.Checkpoints(tmp_path / "run" / "checkpoints").paths():
        checkpoints.read(path)
    # the last update gave it, in an epoch of one step: it is seen when the epoch is validated
    last = changed(recipe, data={"batch": 200})
    with pytest.raises(SwinsError, match=r"the validation loss is (nan|inf) after step 1; .*lower optim.learning_rate"):
        run.train(dataclasses.replace(last, epochs=1), idx, tmp_path / "last", say=quiet)
    assert not (tmp_path / "last" / "model.keras").exists()


def test_a_run_goes_on_from_before_its_loss_became_no_number(idx, tmp_path, monkeypatch):
    recipe, broken = dataclasses.replace(SMALL, checkpoint_steps=1, epochs=1), []

    class Ruined(run.Progress):
        def on_train_batch_end(self, batch, logs=None):
            if self.run.step == 5 and not broken:
                broken.append(True)
                logs = {"loss": float("nan")}
            super().on_train_batch_end(batch, logs)

    monkeypatch.setattr(run, "Progress", Ruined)
    with pytest.raises(SwinsError, match=r"the loss is nan at step 6; .*go on from there with a lower"):
        run.train(recipe, idx, tmp_path / "run", say=quiet)
    kept = checkpoints.Checkpoints(tmp_path / "run" / "checkpoints")
    assert [p.name for p in kept.paths()] == ["step-00000004.npz"]  # not 5, whose update gave it
    told = []
    run.train(changed(recipe, optim={"learning_rate": 1e-3}), idx, tmp_path / "run", say=told.append)
    assert any("going on after step 4" in text for text in told) and len(log(tmp_path / "run")) == 1


def test_weights_that_are_no_numbers_are_not_saved(model, tmp_path):
    model.trainable_variables[0].assign(model.trainable_variables[0] * float("nan"))
    with pytest.raises(SwinsError, match="after step 3 1 variables are no numbers, such as patch_embed/proj/kernel"):
        checkpoints.Checkpoints(tmp_path / "c").save(model, 3, {})
    assert not (tmp_path / "c").exists()


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
        run.train(SMALL, idx, tmp_path / "run", say=quiet)


def test_pretrained_weights_are_carried_over_to_other_windows(checkpoint):
    recipe = changed(SMALL, model={"weights": str(checkpoint), "window_size": 7, "depths": None, "embed_dim": None})
    model = run.new_model(recipe, 3)
    assert model.get_layer("stages_0_blocks_0").window_size == (7, 7) and model.output.shape == (None, 3)
    native = run.new_model(changed(recipe, model={"window_size": None}), 10)
    path = "stages_0_blocks_0/mlp/fc1/kernel"
    ours, theirs = (next(np.array(v) for v in m.variables if v.path == path) for m in (model, native))
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("text", ["the classroom has no zoom", "bedroom/a.png"])
def test_other_errors_are_not_taken_for_a_want_of_memory(text):
    assert not run.out_of_memory(RuntimeError(text)) and run.out_of_memory(RuntimeError("OOM when allocating"))


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
            run.train(changed(SMALL, **change), idx, tmp_path / "run", say=quiet)
        assert not (tmp_path / "run").exists()
    with pytest.raises(SwinsError, match="divided among 4 devices, in 1 parts; got 6; choose a multiple of 4"):
        devices.check_batch("data.batch", 6, 4)


@needs_tensorflow
def test_several_devices_and_processes_give_the_losses_of_one(idx, tmp_path):
    """One device, four virtual ones on JAX and TensorFlow, and two processes of JAX on loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    quick = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"  # to compile
    joined = {"KERAS_DISTRIBUTION_JOB_ADDRESSES": address, "KERAS_DISTRIBUTION_NUM_PROCESSES": "2"}
    cases = {
        "jax 1": [{}],
        "jax 4": [{"XLA_FLAGS": f"{quick} --xla_force_host_platform_device_count=4"}],
        "jax 2 processes": [{**joined, "KERAS_DISTRIBUTION_PROCESS_ID": str(i)} for i in (0, 1)],
        "tensorflow 1": [{"TF_DEVICES": "1"}],
        "tensorflow 4": [{"TF_DEVICES": "4"}],
    }
    common = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": quick}
    losses, counts, evaluated = {}, {}, {}
    for name, environments in cases.items():
        place = tmp_path / name.replace(" ", "_")
        command = [sys.executable, "-P", str(ROOT / "tests" / "devices.py"), str(idx), str(place)]
        with contextlib.ExitStack() as ended:
            processes = []
            for environment in environments:
                variables = {**common, "KERAS_BACKEND": name.split()[0], **environment}
                options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": variables}
                processes.append(ended.enter_context(subprocess.Popen(command, **options)))
                ended.callback(processes[-1].kill)
            answers = [process.communicate(timeout=1200) for process in processes]
        for process, (out, err) in zip(processes, answers, strict=True):
            assert process.returncode == 0, (name, err[-2000:])
            told = json.loads(out.splitlines()[-1])
            counts[name], evaluated[name] = told["devices"], told.get("evaluated")
            found = [[float(row[k]) for k in ("loss", "val_loss", "val_top1")] for row in told["rows"]]
            losses.setdefault(name, found)
            assert losses[name] == found and len(found) == 2
            assert {row["val_images"] for row in told["rows"]} == {"70"}
    assert counts["jax 4"] == counts["tensorflow 4"] == "4 device(s)" and counts["jax 2 processes"] == "2 device(s)"
    for name in ("jax 4", "jax 2 processes", "tensorflow 4"):
        np.testing.assert_allclose(losses[name], losses[f"{name.split()[0]} 1"], rtol=1e-5, err_msg=name)
    for backend in ("jax", "tensorflow"):
        assert evaluated[f"{backend} 4"] == evaluated[f"{backend} 1"] and evaluated[f"{backend} 4"][0] == 10007


def test_the_command(idx, folder, tmp_path, command, checkpoint):
    """A recipe of the repository, on a folder of one's own, from weights of one's own."""
    recipe = ROOT / "recipes" / "finetune.py"
    code, out, _ = command("train", recipe, "--print", "--set", "epochs=3")
    assert code == 0 and json.loads(out)["epochs"] == 3 and json.loads(out)["optim.layer_decay"] == 0.8
    arguments = ["train", recipe, "--data", folder, "-o", tmp_path / "run"]
    more = (f"model.name={NAME}", f"model.weights={checkpoint}", "epochs=8", "data.batch=12", "data.held_out=0.3")
    for text in (*more, "augment.scale=None", "optim.learning_rate=1e-3", "model.compile=False"):
        arguments += ["--set", text]
    code, out, err = command(*arguments)
    assert code == 0, err
    assert "top-1" in out and "3 classes" in err and "epoch 8" in err
    assert json.loads((tmp_path / "run" / "result.json").read_text())["top1"] > 0.7
    code, out, err = command("eval", tmp_path / "run" / "model.keras", "--data", folder, "--quiet")
    assert code == 0 and json.loads(out)["images"] == 42
    code, _, err = command("train", recipe)
    assert code == 1 and "needs --data" in err
    code, _, err = command("train", recipe, "--data", folder, "--set", "optim.lr=1")
    assert code == 1 and "unknown setting 'optim.lr'" in err and "optim.learning_rate" in err
    assert not pathlib.Path("runs").exists()
