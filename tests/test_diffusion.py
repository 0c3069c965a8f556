"""Diffusion as a kind of work: batches of noise, training that goes on, samples, their scores, SavedModels."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from shared_fixtures import ROOT, needs_tensorflow
from training import COMPILED, changed, log, quiet, train_with_a_kill, write_idx

import swins
from swins.data.idx import from_test_files
from swins.data.layouts import find_splits
from swins.denoiser_configs import DENOISERS
from swins.diffusion.noise_schedule import NoiseSchedule
from swins.errors import SwinsError
from swins.images import read_idx
from swins.recipes import AdamW, Cosine
from swins.samples import Samples, denoising, to_pixels
from swins.swin_unet_numbers import SwinUNetVariant
from swins.task import task_named
from swins.tasks import diffusion
from swins.tasks.diffusion import Data, Diffusion, Model, Noise, Sampling, Target
from swins.tasks.diffusion_sampling import ImageSampler, normal_noise
from swins.train import loop

FASHION = ROOT / "demo" / "fashion_mnist"
CLASSIFIER = FASHION / "swin_mini_patch2_window4_28.fashion_mnist.safetensors"
NAME = "swin_unet_of_tests"
TINY = SwinUNetVariant(28, 4, 1, embed_dim=8, depths=(1,), num_heads=(1,), window_size=7, time_dim=8, mid_depth=1)
SMALL = Diffusion(
    model=Model(NAME, compile=COMPILED),
    data=Data(batch=10, threads=2, names=("dress", "bag")),
    noise=Noise(steps=20),
    target=Target("v", min_snr=5.0),
    sampling=Sampling(every=2, per_class=2, steps=4, guidance=1.5),
    optim=AdamW(learning_rate=1e-3, per_images=0, ema=0.5),
    schedule=Cosine(warmup_epochs=0),
    epochs=2,
)


@pytest.fixture(scope="module", autouse=True)
def variant():
    """A variant small enough for tests."""
    DENOISERS[NAME] = TINY
    yield
    del DENOISERS[NAME]


@pytest.fixture(scope="module")
def garments(tmp_path_factory):
    """40 dresses and bags to train on, 12 to validate with, as IDX files."""
    folder = tmp_path_factory.mktemp("garments")
    images, labels = (read_idx(FASHION / f"t10k-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    chosen = np.concatenate([np.flatnonzero(labels == label)[:26] for label in (3, 8)]).reshape(2, 26).T.ravel()
    for part, places in (("train", chosen[:40]), ("t10k", chosen[40:])):
        write_idx(folder, part, images[places], (labels[places] == 8).astype("uint8"))
    return folder


@pytest.fixture(scope="module")
def trained(garments, tmp_path_factory):
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("diffusion") / "run"
    loop.train(SMALL, garments, folder, say=quiet)
    return folder


@pytest.mark.backends
def test_it_trains_with_errors_by_time_step_and_grids(trained):
    rows, result = log(trained), json.loads((trained / "result.json").read_text())
    quarters = [f"val_error_q{i}" for i in (1, 2, 3, 4)]
    assert list(rows[0])[4:9] == ["val_error", *quarters] and len(rows) == 2
    known = [float(rows[1][name]) for name in quarters if rows[1][name] != "none"]
    assert min(known) <= float(rows[1]["val_error"]) <= max(known)
    assert result["noise"] == {"kind": "cosine", "steps": 20} and result["target"] == "v"
    assert result["classes"] == ["dress", "bag"] and result["sampling"]["guidance"] == 1.5
    assert sorted(p.name for p in (trained / "pictures").iterdir()) == ["epoch_0002.png", "epoch_0002_denoising.png"]
    assert result["task"] == "diffusion" and (trained / "best.keras").is_file()


@pytest.mark.slow
def test_killed_on_its_way_it_ends_as_if_it_had_not_been(garments, trained, tmp_path, monkeypatch):
    train_with_a_kill(SMALL, garments, tmp_path / "run", monkeypatch, step=3)
    for ours, theirs in zip(log(tmp_path / "run"), log(trained), strict=True):
        for column in ("loss", "val_loss", "val_error"):
            assert float(ours[column]) == pytest.approx(float(theirs[column]), rel=1e-5)
    ours, theirs = (keras.models.load_model(folder / "model.keras") for folder in (tmp_path / "run", trained))
    for mine, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-6)


def test_batches_are_the_papers_sums(garments):
    """x_t, v and min-SNR weights against a plain reading in float64; classes are withheld as often as asked."""
    training, validation = diffusion.splits(garments, SMALL)
    network = diffusion.network(SMALL, training)
    prepare = diffusion.preparation(SMALL, network, (training, validation))
    reading = diffusion.validating(SMALL, prepare, validation)
    samples = [
        reading.sample(swins.images.open_image(image), label, None, None) for _, image, label in validation.samples
    ]
    inputs, truths = reading.batch(samples, None)
    pixels, times, noise = (np.stack([np.asarray(sample[i]) for sample in samples]) for i in (0, 1, 2))
    angle = np.cos((np.arange(21) / 20 + 0.008) / 1.008 * np.pi / 2) ** 2
    kept = np.cumprod(1 - np.clip(1 - angle[1:] / angle[:-1], 1e-4, 0.9999))[times][:, None, None, None]
    np.testing.assert_allclose(inputs["images"], np.sqrt(kept) * pixels + np.sqrt(1 - kept) * noise, atol=1e-6)
    np.testing.assert_allclose(truths["target"], np.sqrt(kept) * noise - np.sqrt(1 - kept) * pixels, atol=1e-6)
    snr = (kept / (1 - kept)).ravel()
    np.testing.assert_allclose(truths["importance"], np.minimum(snr, 5) / (snr + 1), rtol=1e-6)
    assert pixels.min() >= -1 and pixels.max() <= 1 and len(set(times.tolist())) > 4
    again = [
        reading.sample(swins.images.open_image(image), label, None, None) for _, image, label in validation.samples
    ]
    assert all(np.array_equal(a[2], b[2]) and a[1] == b[1] for a, b in zip(samples, again, strict=True))

    outputs = {"output": truths["target"] + np.float32(0.5)}
    truths["weight"] = np.float32([1] * 11 + [0])
    (loss,) = diffusion.losses(SMALL, network, truths, outputs).values()
    wanted = 0.25 * (truths["importance"] * truths["weight"]).mean()
    assert float(keras.ops.convert_to_numpy(loss)) == pytest.approx(wanted, rel=1e-5)

    reading = diffusion.training(changed(SMALL, target={"drop_class": 0.3}), prepare, training)
    image = swins.images.open_image(training[0][1])
    labels = [reading.sample(image, 1, np.random.default_rng(i), None)[3] for i in range(300)]
    assert set(labels) == {1, 2} and 60 < labels.count(2) < 120


@pytest.mark.slow
@pytest.mark.backends
@pytest.mark.core
def test_a_seed_gives_an_image_whatever_is_drawn_with_it():
    """Under every backend; noise of each step too."""
    network = swins.create(NAME, num_classes=2)
    facts = {
        "classes": ["dress", "bag"],
        "noise": {"kind": "linear", "steps": 10},
        "target": "eps",
        "sampling": dataclasses.asdict(Sampling(steps=3, eta=1.0, guidance=2.0)),
    }
    sampler = diffusion.diffusion_evaluation.of_network(NAME, network, facts)
    many, few = sampler([1], 5, seed=4), sampler("bag", 2, seed=4)
    assert isinstance(many, Samples) and many.images.shape == (5, 28, 28, 1) and many.labels.tolist() == [1] * 5
    np.testing.assert_array_equal(many.images[:2], few.images)
    assert not np.array_equal(many.images, sampler([1], 5, seed=5).images)
    given = sampler([1], 5, noise=normal_noise(4, 0, 5, (28, 28, 1)), eta=0.0)
    np.testing.assert_array_equal(given.images, sampler([1], 5, seed=4, eta=0.0).images)
    assert sampler(None, 5).names == ("dress", "dress", "dress", "bag", "bag")
    steps = []
    sampler([0], 2, sampler="ddpm", progress=lambda *pair: steps.append(pair))
    assert steps == [(i, 10) for i in range(1, 11)]


@pytest.mark.slow
def test_what_cannot_be_sampled_is_refused(trained):
    sampler = swins.load(trained)
    assert isinstance(sampler, ImageSampler)
    wrong = {
        "closest are dress": {"classes": "dresss"},
        "classes must be from 0 to 1": {"classes": [0, 2]},
        "at least one": {"classes": []},
        "steps must be at most the times": {"steps": 21},
        "count must be an integer": {"count": 0},
        "seed must be": {"seed": -1},
        r"noise must be \(2, 28, 28, 1\)": {"noise": np.zeros((2, 14, 14, 1))},
        "unknown option of sampling 'stepz'": {"stepz": 3},
        "eta must be a probability": {"eta": 2.0},
    }
    for text, options in wrong.items():
        with pytest.raises(SwinsError, match=text):
            sampler(**options)
    with pytest.raises(SwinsError, match="does not tell of its noise schedule"):
        swins.create(NAME).save(trained.parent / "bare.keras")
        swins.load(trained.parent / "bare.keras")
    with pytest.raises(SwinsError, match=r"sampling\.guidance needs classes that are withheld"):
        changed(SMALL, target={"drop_class": 0.0})
    with pytest.raises(SwinsError, match=r"sampling\.steps must not exceed noise.steps"):
        changed(SMALL, sampling={"steps": 21})
    with pytest.raises(SwinsError, match="guidance needs a model with classes and a null class"):
        network = swins.create(NAME, num_classes=2, null_class=False)
        diffusion.diffusion_evaluation.of_network(NAME, network, sampler.facts)(0)


def test_recipes_that_do_not_fit_the_data_are_refused(garments, tmp_path):
    wrong = {
        "data.names must be as many": {"data": {"names": ("dress",)}},
        "model.num_classes must be the data's": {"model": {"num_classes": 3}},
        "an array of pixels must be uint8|channel": {"model": {"in_chans": 2}},
        "model.name must be a network of diffusion": {"model": {"name": "swin_mini_patch2_window4_28"}},
    }
    for text, sections in wrong.items():
        with pytest.raises(SwinsError, match=text):
            loop.train(changed(SMALL, **sections), garments, tmp_path / "run", say=quiet)


def test_weights_of_another_noise_schedule_are_refused(garments, trained, tmp_path):
    for sections, text in (
        ({"noise": {"steps": 30}}, "the recipe has cosine, 30 and v"),
        ({"target": {"kind": "eps"}}, "and eps"),
    ):
        with pytest.raises(SwinsError, match=rf"was trained with cosine noise of 20 steps for v, .*{text}"):
            loop.train(
                changed(SMALL, model={"weights": str(trained)}, **sections), garments, tmp_path / "run", say=quiet
            )


@pytest.mark.slow
def test_a_model_without_classes(garments):
    recipe = changed(SMALL, model={"num_classes": 0}, sampling={"guidance": 1.0, "every": 1}, target={"kind": "x0"})
    splits = diffusion.splits(garments, recipe)
    network = diffusion.network(recipe, splits[0])
    prepare = diffusion.preparation(recipe, network, splits)
    reading = diffusion.training(recipe, prepare, splits[0])
    image = swins.images.open_image(splits[0][0][1])
    inputs, truths = reading.batch([reading.sample(image, 0, np.random.default_rng(0), None)] * 2, None)
    assert sorted(inputs) == ["images", "time"]
    (loss,) = diffusion.losses(recipe, network, truths, {"output": network(inputs)}).values()
    assert 0 < float(keras.ops.convert_to_numpy(loss)) < 1e3
    facts = diffusion.facts(recipe, network, prepare, splits[0])
    assert sorted(diffusion.diffusion_evaluation.pictures(recipe, network, facts, 1)) == [
        "epoch_0001",
        "epoch_0001_denoising",
    ]
    sampler = diffusion.diffusion_evaluation.of_network(NAME, network, facts)
    samples = sampler(count=3)
    assert samples.names == () and len(samples.labels) == 0 and samples.images.shape == (3, 28, 28, 1)
    with pytest.raises(SwinsError, match="has no classes"):
        sampler(classes=[0])


@pytest.mark.slow
def test_the_command_line_draws_a_grid(trained, command, tmp_path):
    grid, way, facts = (tmp_path / name for name in ("grid.png", "way.png", "facts.json"))
    arguments = ("sample", "-m", trained, "--classes", "1,dress", "--count", "6", "--seed", "4", "--quiet", "-o", grid)
    code, out, err = command(*arguments, "--denoising", way, "--json", facts, "--images", tmp_path / "images")
    assert code == 0 and out == "6 images of seed 4: 3 bag, 3 dress\n", err
    assert grid.is_file() and way.is_file() and len(list((tmp_path / "images").iterdir())) == 6
    assert [row["label"] for row in json.loads(facts.read_text())["classes"]] == [1, 1, 1, 0, 0, 0]
    code, _, err = command(*arguments)
    assert code == 1 and "exists and would be replaced" in err
    code, _, err = command("sample", "-m", CLASSIFIER, "-o", tmp_path / "x.png")
    assert code == 1 and "a diffusion model makes images; this is one of classification" in err
    code, _, err = command("predict", grid, "-m", trained)
    assert code == 1 and "swins sample" in err


@pytest.mark.slow
def test_samples_are_scored_beside_real_images(garments, trained, command, tmp_path):
    arguments = ("eval", trained, "--data", garments, "--quiet")
    code, _, err = command(*arguments)
    assert code == 1 and "--classifier FILE" in err
    code, _, err = command(*arguments, "--classifier", CLASSIFIER)
    assert code == 1 and "its classes must be the diffusion model's; got 10 and 2" in err
    small = swins.SwinTransformer(
        image_size=28, patch_size=4, in_chans=1, num_classes=2, embed_dim=8, depths=(1,), num_heads=(1,), window_size=7
    )
    evaluation = task_named("classification")
    assert evaluation.owns(small)
    scores = diffusion.diffusion_evaluation.diffusion_scores
    pool = keras.Model(small.input, [small.output, small.get_layer("pool").output])
    prepare = diffusion.diffusion_evaluation.prepare(swins.opening.open_model(trained), {}).preparation
    judge = scores.Extractor("small", prepare, pool, {0: 0, 1: 1})
    predictions, table = tmp_path / "p.csv", tmp_path / "r.csv"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores, "extractor_of", lambda path, names: judge)
        code, out, err = command(
            *arguments, "--count", "6", "--steps", "2", "--predictions", predictions, "--results", table
        )
    row = json.loads(out)
    assert code == 0 and (row["images"], row["protocol"]) == (6, "ddim 2 eta 0.0 guidance 1.5"), err
    assert row["frechet"] > row["frechet_real"] > 0 and 0 <= row["recognised_least"] <= row["recognised"] <= 1
    assert len(predictions.read_text().splitlines()) == 7 and "frechet,frechet_real" in table.read_text()


@pytest.mark.slow
@needs_tensorflow
def test_saved_models_give_what_the_run_gives(trained, command, tmp_path):
    import tensorflow as tf

    code, out, err = command("export", trained, "-o", tmp_path / "out")
    assert code == 0 and "saved_model_step: denoised" in out, err
    card = (tmp_path / "out" / "README.md").read_text()
    assert "20 time steps of cosine noise" in card and "$" not in card
    noise = normal_noise(4, 0, 3, (28, 28, 1))
    sampler: ImageSampler = swins.load(trained)
    ours = sampler([1], 3, noise=noise).images
    exported: ImageSampler = swins.load(tmp_path / "out" / "saved_model_step")
    again = exported([1], 3, noise=noise).images
    assert np.abs(ours.astype(int) - again).max() <= 1
    whole = tf.saved_model.load(str(tmp_path / "out" / "saved_model"))
    made = whole({"noise": noise, "classes": np.ones(3, "int32")})
    assert np.abs(ours.astype(int) - to_pixels(made.numpy())).max() <= 1
    first, second, other = (
        whole.signatures["from_seed"](seed=tf.constant(seed), classes=tf.constant([0, 1]))["samples"].numpy()
        for seed in (4, 4, 5)
    )
    assert np.array_equal(first, second) and not np.array_equal(first, other) and first.shape == (2, 28, 28, 1)
    with pytest.raises(SwinsError, match="a whole sampler, of 4 steps"):
        swins.load(tmp_path / "out" / "saved_model")
    code, _, err = command("export", trained, "--to", "onnx", "-o", tmp_path / "onnx")
    assert code == 1 and "SavedModels alone" in err
    code, out, err = command("verify", tmp_path / "out")
    assert code == 0 and "saved_model_step" in out, err


def test_test_images_alone_are_divided_class_by_class():
    training, validation = find_splits(f"idx_test:{FASHION}", 0.1, 0)
    assert (len(training), len(validation)) == (9000, 1000)
    assert np.bincount(validation.samples.labels).tolist() == [100] * 10
    again = from_test_files(FASHION, 0.1, 0)[1]
    assert again.digest() == validation.digest() != from_test_files(FASHION, 0.1, 1)[1].digest()


def test_pictures_of_samples():
    images = np.arange(6, dtype="uint8")[:, None, None, None] * np.ones((6, 28, 28, 3), "uint8")
    samples = Samples(images, np.array([0, 0, 0, 1, 1, 1]), ("a", "a", "a", "b", "b", "b"))
    picture = samples.draw()
    assert picture.size == (96 + 3 * 58 + 2, 2 * 58 + 2) and picture.getpixel((100, 5)) == (0, 0, 0)
    assert samples.draw(6).size == (6 * 58 + 2, 60) and len(samples.pictures()) == 6
    states = [(i % 3, np.full((4, 28, 28, 1), i / 6)) for i in range(6)]
    assert denoising(states, ("a",) * 4).size[1] == 4 * 58 + 2


def test_schedules_are_as_json_says():
    assert NoiseSchedule(**dataclasses.asdict(SMALL.noise)) == NoiseSchedule("cosine", 20)
