"""Detection as a kind of work: a small SSD on canvases trains, is evaluated, predicts, is exported and fine-tuned."""

import csv
import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest
import small_variants
from PIL import Image
from training import COMPILED, log, one_program, quiet

import swins
from swins.boxes import iou
from swins.data.box_augment import Pattern1, Resize, SsdPaper
from swins.data.detection_layouts import find_detection_splits, find_evaluation_split
from swins.data.garment_files import write_coco
from swins.data.garments import Garments
from swins.data.split import Split
from swins.errors import SwinsError
from swins.evaluate import records
from swins.recipes import AdamW, Cosine
from swins.results import Detections
from swins.task import task_of
from swins.tasks.detection import DETECTION, Data, Detection, Model, Selection
from swins.tasks.detection_evaluation import decoding
from swins.train import loop

SIDE = 64
IDS = (3, 90, 7, 11, 40, 2, 1, 12, 50, 60)  # gaps and no order, as COCO's
RECIPE = Detection(
    model=Model(small_variants.SSD, compile=COMPILED),
    data=Data(batch=8, objects=4, threads=2),
    augment=Resize(),
    optim=AdamW(learning_rate=1e-3, per_images=0),
    schedule=Cosine(warmup_epochs=0),
    selection=Selection(min_score=0.01),
    epochs=1,
)


@pytest.fixture(scope="module")
def canvases(tmp_path_factory):
    """A folder of COCO's layout: 24 canvases to train on, 8 to validate."""
    folder = tmp_path_factory.mktemp("data") / "canvases"
    for part, count in (("train", 24), ("val", 8)):
        garments = Garments("demo/fashion_mnist", part, count=count, size=SIDE, objects=(0, 3), scale=(16, 40))
        write_coco(garments, folder, IDS)
    return folder


@pytest.fixture(scope="module")
def run(canvases, tmp_path_factory):
    """The folder of a finished run; tests must not change it."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    loop.train(RECIPE, canvases, folder, say=quiet)
    return folder


@pytest.mark.slow
@pytest.mark.backends
def test_a_run_records_what_prediction_needs(run):
    (row,), result = log(run), json.loads((run / "result.json").read_text())
    assert float(row["loss"]) > 0 and row["val_AP_large"] == "none" and row["val_images"] == "8"
    assert result["task"] == "detection" and result["classes"][5] == "sandal" and result["category_ids"] == list(IDS)
    assert result["priors"]["maps"][0] == [32, 32] and result["selection"]["min_score"] == 0.01
    model = keras.saving.load_model(run / "model.keras")
    assert task_of(model) is DETECTION and model.numbers.num_classes == 10


@pytest.mark.slow
def test_the_best_model_of_a_run_that_has_not_ended_predicts(run, canvases, tmp_path):
    unfinished = tmp_path / "run"
    unfinished.mkdir()
    for name in ("recipe.json", "log.csv", "facts.json"):
        shutil.copy(run / name, unfinished)
    shutil.copy(run / "model.keras", unfinished / "best.keras")  # this one had no epoch of a score
    picture = min((canvases / "images" / "val").glob("*.png"))
    ours, theirs = (swins.load(path)(str(picture)) for path in (unfinished / "best.keras", run))
    assert ours.names == theirs.names and (ours.boxes == theirs.boxes).all() and len(ours)
    with pytest.raises(SwinsError, match="an unfinished run"):
        swins.load(unfinished)


@pytest.mark.slow
def test_an_evaluation_is_that_of_the_run(run, canvases, command, tmp_path):
    table, found = tmp_path / "results.csv", tmp_path / "found.csv"
    code, out, err = command(
        "eval", run, "--data", canvases, "--results", table, "--predictions", found, "--quiet", "--batch", 8
    )
    assert code == 0, err
    scores, result = json.loads(out), json.loads((run / "result.json").read_text())
    assert scores["AP"] == pytest.approx(result["AP"], abs=1e-5) and scores["protocol"] == "coco"
    with open(table, newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["AP_large"] == "none" and row["image_size"] == "64x64"
    with open(tmp_path / "found_classes.csv", newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == result["classes"]
    code, out, err = command("eval", run, "--data", canvases, "--protocol", "r_ssd", "--quiet")
    assert code == 0 and json.loads(out)["protocol"] == "r_ssd", err
    code, _, err = command("eval", run, "--data", canvases, "--protocol", "timm", "--quiet")
    assert code == 1 and "unknown protocol 'timm'" in err
    code, _, err = command("eval", run, "--data", canvases, "--class-order", "sorted", "--quiet")
    assert code == 1 and "--class-order: not of detection" in err


@pytest.mark.slow
def test_boxes_are_in_the_pictures_own_pixels(run, canvases, command, tmp_path):
    picture = next((canvases / "images" / "val").glob("*.png"))
    detector = swins.load(run)
    found = detector(str(picture))
    assert isinstance(found, Detections) and len(found) and found.boxes.max() <= SIDE
    Image.open(picture).resize((3 * SIDE, 2 * SIDE), Image.Resampling.NEAREST).save(tmp_path / "wide.png")
    wide = detector(str(tmp_path / "wide.png"))
    count = min(len(found), len(wide), 5)
    overlaps = np.diag(keras.ops.convert_to_numpy(iou(found.boxes[:count] * [3, 2, 3, 2], wide.boxes[:count])))
    assert np.median(overlaps) > 0.5  # resampled pixels are others
    code, _out, err = command(
        "predict", picture, "-m", run, "--threshold", 0.01, "-o", tmp_path / "d", "--json", tmp_path / "r.json"
    )
    assert code == 0, err
    rows = json.loads((tmp_path / "r.json").read_text())
    assert {row["category_id"] for row in rows} <= set(IDS) and rows[0]["image_id"] == int(picture.stem)
    assert len(rows) == len(found.at_least(0.01)) and (tmp_path / "d" / f"{picture.stem}.png").is_file()


@pytest.mark.slow
def test_killed_on_its_way_it_ends_as_if_it_had_not_been(run, canvases, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    step = loop.Progress.on_train_batch_end

    def killed(self, batch, logs=None):
        step(self, batch, logs)
        if self.run.step == 2 and not ended:
            ended.append(True)
            raise Killed

    ended, recipe = [], dataclasses.replace(RECIPE, checkpoint_steps=1)
    monkeypatch.setattr(loop.Progress, "on_train_batch_end", killed)
    with pytest.raises(Killed):
        loop.train(recipe, canvases, tmp_path / "run", say=quiet)
    loop.train(recipe, canvases, tmp_path / "run", say=quiet)
    for ours, theirs in zip(log(tmp_path / "run"), log(run), strict=True):
        assert float(ours["loss"]) == pytest.approx(float(theirs["loss"]), rel=1e-4)
        assert float(ours["val_loss"]) == pytest.approx(float(theirs["val_loss"]), rel=1e-3)


@pytest.mark.slow
def test_other_classes_begin_with_fresh_heads(run, canvases, tmp_path):
    file = canvases / "annotations" / "instances_train.json"
    (tmp_path / "few" / "annotations").mkdir(parents=True)
    (tmp_path / "few" / "images").symlink_to(canvases / "images")
    for part in ("train", "val"):
        facts = json.loads(file.with_name(f"instances_{part}.json").read_text())
        facts["categories"] = facts["categories"][:3]
        known = {category["id"] for category in facts["categories"]}
        facts["annotations"] = [a for a in facts["annotations"] if a["category_id"] in known]
        (tmp_path / "few" / "annotations" / f"instances_{part}.json").write_text(json.dumps(facts))
    recipe = dataclasses.replace(RECIPE, model=dataclasses.replace(RECIPE.model, weights=str(run)))
    with pytest.warns(UserWarning, match="heads of other shapes are fresh: scores_0"):
        result = loop.train(recipe, tmp_path / "few", tmp_path / "run", say=quiet)
    assert result["classes"] == ["t-shirt", "trouser", "pullover"]


@pytest.mark.slow
@pytest.mark.parametrize("augment", [Resize(), Pattern1(), SsdPaper()])
def test_samples_have_static_shapes_with_and_without_objects(augment, canvases):
    training, _ = find_detection_splits(canvases)
    recipe = dataclasses.replace(RECIPE, augment=augment)
    prepare = DETECTION.preparation(recipe, swins.create(RECIPE.model.name, num_classes=10), ())
    reading, rng = DETECTION.training(recipe, prepare, training), np.random.default_rng(0)
    samples = []
    for i in range(8):
        _, image, truth = training[i]
        samples.append(reading.sample(Image.open(image), truth, rng, None))
    assert 0 in [len(labels) for *_, labels in samples]  # a canvas without garments is among them
    images, arrays = reading.batch(samples, rng)
    assert images.shape == (8, SIDE, SIDE, 3) and images.dtype == np.float32
    assert {name: array.shape for name, array in arrays.items()} == {
        "boxes": (8, 4, 4),
        "labels": (8, 4),
        "valid": (8, 4),
    }
    assert arrays["boxes"].min() >= 0 and arrays["boxes"].max() <= 1


@pytest.mark.slow
@pytest.mark.backends
def test_an_image_without_objects_gives_no_nan(canvases):
    model = swins.create(RECIPE.model.name, num_classes=10)
    outputs = one_program(model)(np.zeros((2, SIDE, SIDE, 3), "float32"))
    nothing = {
        "boxes": np.zeros((2, 4, 4), "float32"),
        "labels": np.zeros((2, 4), int),
        "valid": np.zeros((2, 4), bool),
    }
    losses = {
        name: float(keras.ops.convert_to_numpy(value))
        for name, value in DETECTION.losses(RECIPE, model, nothing, outputs).items()
    }
    assert losses["box"] == 0 and 0 < losses["class"] < 100
    facts = {"classes": list("0123456789"), "category_ids": list(range(10)), **decoding(model)}
    for result in DETECTION.answers(
        {name: keras.ops.convert_to_numpy(value) for name, value in outputs.items()}, facts, [(10, 20)] * 2
    ):
        assert np.isfinite(result.boxes).all()


@pytest.mark.slow
def test_a_file_that_does_not_tell_is_refused(run, tmp_path):
    model = keras.saving.load_model(run / "model.keras")
    model.save(tmp_path / "bare.keras")
    with pytest.raises(SwinsError, match=r"does not tell how images are prepared; take the folder of its run"):
        swins.load(tmp_path / "bare.keras")


def test_settings_reach_the_network_and_defects_the_folder(canvases, tmp_path):
    options = Model("ssd336_swin_tiny_b", drop_path_rate=0.0, in_chans=1).options()
    assert options == {"drop_path_rate": 0.0, "in_chans": 1, "dtype": "float32"}  # 0 is a rate, not nothing
    facts = json.loads((canvases / "annotations" / "instances_train.json").read_text())
    facts["annotations"][0]["bbox"] = [5, 5, 0, 3]
    for part in ("train", "val"):
        folder = tmp_path / "data" / "annotations"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(canvases / "annotations" / f"instances_{part}.json", folder)
    (folder / "instances_train.json").write_text(json.dumps(facts))
    (tmp_path / "data" / "images").symlink_to(canvases / "images")
    training, _ = find_detection_splits(tmp_path / "data")
    assert len(training.defects) == 1 and any("1" in note for note in training.notes)


@pytest.mark.slow
def test_images_that_were_scaled_are_scored_in_their_own_pixels(run, canvases, command, tmp_path):
    """And one that was cut is named, not scored."""
    folder = shutil.copytree(canvases, tmp_path / "doubled")
    for path in (folder / "images" / "val").glob("*.png"):
        with Image.open(path) as image:
            image.resize((2 * SIDE, 2 * SIDE), Image.Resampling.NEAREST).save(path)
    before, doubled = find_evaluation_split(canvases), find_evaluation_split(folder)
    prepare = swins.load(run).preparation
    for i in range(len(doubled)):
        sample = records.decode(prepare, doubled[i])
        np.testing.assert_array_equal(sample.fitted.boxes, 2 * before[i][2].boxes)
        assert sample.size == (2 * SIDE, 2 * SIDE) and sample.truth is doubled[i][2]
    with Image.open(path) as image:
        image.crop((0, 0, SIDE, 2 * SIDE)).save(path)
    code, _, err = command("eval", run, "--data", folder, "--quiet")
    assert code == 1 and "1 of 8 are not" in err


@pytest.mark.slow
def test_what_is_not_of_detectors_is_refused(run):
    with pytest.raises(SwinsError, match="--model: not of detection"):
        swins.load(run, variant="swin_tiny_patch4_window7_224")
    with pytest.raises(SwinsError, match=r"optim\.layer_decay is of classifiers; got 0\.5"):
        dataclasses.replace(RECIPE, optim=AdamW(layer_decay=0.5))
    recipe = dataclasses.replace(RECIPE, model=Model("swin_mini_patch2_window4_28", in_chans=1))
    with pytest.raises(SwinsError, match=r"model\.name must be a detector's; got swin_mini"):
        DETECTION.network(recipe, Split("none", [], ("a", "b")))
