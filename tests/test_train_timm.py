"""Parts of training beside timm's and PyTorch's, which run in a process of their own."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image
from shared_fixtures import ROOT
from test_models import moved
from test_v1 import EAGERLY
from training import COMPILED

import swins
from swins.data import augment
from swins.data.split import Split
from swins.errors import SwinsError
from swins.layer_depths import depths_of
from swins.recipes import AdamW, Cosine, Sgd
from swins.tasks import classification
from swins.tasks.classification import Augment, Classification, Data, Model
from swins.train import optimisers
from swins.train.schedules import rates_of
from swins.weights import checkpoint_files, swin_rules

DRAWS = 6000
FILL = (124, 116, 104)
RENAMED = {"TranslateXRel": "TranslateX", "TranslateYRel": "TranslateY"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("timm")
    script = ROOT / "tests" / "reference" / "training.py"
    done = subprocess.run([sys.executable, "-P", str(script), str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return out


@pytest.fixture(scope="module")
def theirs(folder):
    with np.load(folder / "training.npz") as arrays:
        yield arrays


@pytest.mark.slow
def test_every_operation_is_timms_to_the_pixel(theirs):
    picture, compared = Image.fromarray(theirs["picture"]), 0
    for key in theirs:
        if key[:2] in ("0/", "1/"):
            inc, name, magnitude, negative = key.split("/")
            ours = RENAMED.get(name.removesuffix("Increasing"), name.removesuffix("Increasing"))
            value = augment.value_of(ours, float(magnitude), negative == "1", inc == "1")
            np.testing.assert_array_equal(np.asarray(augment.OPERATIONS[ours](picture, value, FILL)), theirs[key], key)
            compared += 1
    assert compared == 2 * 15 * 6 * 2 - 4  # but those that posterize to no bits at all
    assert not np.asarray(augment.posterize(picture, 0)).any()


@pytest.mark.slow
@pytest.mark.parametrize("text", ["rand-m9-mstd0.5-inc1", "rand-m9-n3-mstd0.5", "rand-m7-n2-p0.8-mstd101"])
def test_operations_are_drawn_as_often_and_as_strongly(theirs, text, monkeypatch):
    seen = []
    for name in augment.OPERATIONS:
        monkeypatch.setitem(augment.OPERATIONS, name, lambda i, v, f, name=name: seen.append((name, v)) or i)
    transform, rng, image = augment.rand_augment(text), np.random.default_rng(0), Image.new("RGB", (2, 2))
    for _ in range(DRAWS):
        transform(image, rng)
    share = np.array([sum(s[0] == n for s in seen) / DRAWS for n in augment.OPERATIONS])
    expected = theirs[f"drawn/{text}/share"]
    assert np.abs(share - expected).max() < 0.018  # four deviations of the difference of two shares
    degrees = np.abs([v for n, v in seen if n == "Rotate"])
    np.testing.assert_allclose([degrees.mean(), degrees.std()], theirs[f"drawn/{text}/rotate"], rtol=0.12)


@pytest.mark.parametrize("text", ["m9", "rand-x3", "rand-m9-mstd", "rand-m9.5", "auto-m9"])
def test_a_wrong_text_is_refused(text):
    with pytest.raises(SwinsError, match="rand_augment"):
        augment.rand_augment(text)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "scale"), [("imagenet", (0.08, 1.0)), ("large", (0.5, 1.0))])
def test_crops_have_timms_areas_ratios_and_places(theirs, name, scale):
    rng = np.random.default_rng(0)
    boxes = np.array([augment.crop_box((200, 150), scale, (3 / 4, 4 / 3), rng) for _ in range(DRAWS)], float)
    ours = np.stack([boxes[:, 1], boxes[:, 0], boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]], -1)
    for q in (0.05, 0.25, 0.5, 0.75, 0.95):
        np.testing.assert_allclose(
            np.quantile(ours, q, axis=0), np.quantile(theirs[f"crops/{name}"], q, axis=0), atol=4, rtol=0.05
        )


def test_the_largest_crop_when_none_fits():
    rng = np.random.default_rng(0)
    assert augment.crop_box((400, 10), (0.9, 1.0), (3 / 4, 4 / 3), rng) == (193, 0, 206, 10)
    assert augment.crop_box((10, 400), (0.9, 1.0), (3 / 4, 4 / 3), rng) == (0, 193, 10, 206)


def test_colour_jitter_has_the_statistics_of_torchvisions(theirs):
    rng, picture = np.random.default_rng(0), Image.fromarray(theirs["picture"])
    made = [np.asarray(augment.color_jitter(picture, 0.3, rng), float) for _ in range(DRAWS // 4)]
    told = np.array([(p.mean(), p.std(), p.std(axis=-1).mean()) for p in made])
    ours = np.stack([told.mean(0), told.std(0)])
    assert np.all(np.abs(ours / theirs["jittered"] - 1) < [[0.02] * 3, [0.08] * 3]), (ours, theirs["jittered"])


def test_erasing_has_timms_statistics(theirs):
    rng, hits, values = np.random.default_rng(0), [], []
    for _ in range(DRAWS):
        image = augment.erase(np.full((24, 32, 3), 100.0, "float32"), 0.25, rng)
        hit = image[..., 0] != 100.0
        hits.append(hit.mean())
        values.append(image[hit].ravel())
    values = np.concatenate(values)
    ours = [np.mean(np.array(hits) > 0), np.mean(hits), values.mean(), values.std()]
    assert np.all(np.abs(ours - theirs["erased"]) < [0.03, 0.008, 0.01, 0.01]), (ours, theirs["erased"])


class Prescribed:
    """A random generator that gives what it is told."""

    def __init__(self, cut, kept):
        self.cut, self.kept = cut, kept

    def random(self):
        return 0.0 if self.cut else 0.75

    def beta(self, a, b):
        return self.kept

    def integers(self, low, high):
        return high - 3


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_mixed_images_and_targets_are_timms(theirs, name):
    rows = augment.targets(theirs["mix/labels"], 5, 0.1)
    images, rows = augment.mix(theirs["mix/images"], rows, Augment(), Prescribed(name == "cutmix", 0.37))
    np.testing.assert_allclose(images, theirs[f"mix/{name}/images"], atol=1e-6)
    np.testing.assert_allclose(rows, theirs[f"mix/{name}/targets"], atol=1e-6)
    np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-6)


def test_mixup_and_cutmix_are_drawn_as_often(theirs):
    kinds, images, rows = [], np.zeros((2, 64, 64, 1), "float32"), np.eye(2, dtype="float32")
    images[1] = 1
    rng = np.random.default_rng(0)
    for _ in range(DRAWS):
        mixed, out = augment.mix(images, rows, Augment(), rng)
        kinds.append((len(np.unique(mixed[0])) > 1 or out[0, 0] in (0, 1), out[0, 0]))
    kinds = np.array(kinds, float)
    assert abs(kinds[:, 0].mean() - theirs["mix/drawn"][0]) < 0.03
    # lambda of CutMix is that of the clipped rectangle, which timm's draw is before; so only its mean is compared
    assert abs(kinds[kinds[:, 0] == 0, 1].mean() - theirs["mix/drawn"][1]) < 0.03


def test_learning_rates_at_twelve_steps(theirs):
    numbers = {"data": Data(batch=64), "epochs": 30}
    cosine = Cosine(warmup_rate=1e-6, min_rate=1e-5, warmup_epochs=4)
    rates = rates_of(Classification(optim=AdamW(learning_rate=1e-3, per_images=0), schedule=cosine, **numbers), 10)
    ours = [float(rates(step)) for step in theirs["schedule/steps"]]
    assert len(ours) == 12
    np.testing.assert_allclose(ours, theirs["schedule/rates"], rtol=1e-5)
    scaled = rates_of(Classification(schedule=Cosine(warmup_epochs=4), epochs=30), 10)
    np.testing.assert_allclose([float(scaled(s)) for s in (0, 40, 300)], [1e-6, 1e-3, 1e-5], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SwinTransformer", "SwinTransformerV2", "SwinTransformerV2CR"])
@pytest.mark.parametrize("kind", ["decay", "layers"])
def test_groups_are_timms(folder, name, kind):
    expected = json.loads((folder / "groups.json").read_text())[f"{name}/{kind}"]
    numbers = {"image_size": 64, "embed_dim": 24, "depths": (2, 3), "num_heads": (2, 4), "num_classes": 5}
    model = getattr(swins, name)(window_size=4, **numbers)
    optim = AdamW(layer_decay=0.75 if kind == "layers" else 1.0)
    made = optimisers.groups(model.trainable_variables, optim, depths_of(model))
    table = swin_rules.table_of(model.variant).filled
    ours = {table[path].torch_name: (group.weight_decay, group.rate_scale) for path, group in made.items()}
    assert set(ours) == set(expected)
    for parameter, (decay, scale) in expected.items():
        assert ours[parameter] == (decay, pytest.approx(scale)), parameter


@pytest.mark.parametrize("name", ["SwinTransformer", "SwinTransformerV2"])
def test_fresh_weights_are_spread_as_timms(folder, name):
    numbers = {"image_size": 64, "embed_dim": 24, "depths": (2, 3), "num_heads": (2, 4), "num_classes": 5}
    ours = swin_rules.state_dict(getattr(swins, name)(window_size=4, **numbers))
    expected = json.loads((folder / "fresh.json").read_text())
    compared = 0
    for parameter, value in ours.items():
        spread, largest = expected.get(f"{name}/{parameter}", (None, None))  # buffers are no parameters
        if spread:
            noise = 4 / np.sqrt(value.size)  # four deviations of what two estimates differ by
            assert value.std() == pytest.approx(spread, rel=max(noise, 0.02)), parameter
            assert 0.6 < np.abs(value).max() / largest < 1.6, parameter
            compared += value.size > 4000 or "patch_embed.proj" in parameter
        elif spread == 0:
            assert np.ptp(value) == 0 and np.abs(value).max() == pytest.approx(largest, rel=1e-6), parameter
    assert compared >= 6


TEN = Split("ten", [], tuple("0123456789"))


@pytest.mark.backends
def test_v2_cr_begins_as_its_authors_modules_do(theirs):
    numbers = {"image_size": 32, "embed_dim": 48, "depths": (1, 2), "num_heads": (2, 4), "window_size": 4}
    recipe = Classification(Model("swin_transformer_v2_t", start="torch", deformable=(1,), **numbers), epochs=30)
    model, again = (classification.network(recipe, TEN) for _ in range(2))
    compared = 0
    for weight, same in zip(model.trainable_variables, again.trainable_variables, strict=True):
        value = keras.ops.convert_to_numpy(weight)
        np.testing.assert_array_equal(value, keras.ops.convert_to_numpy(same))
        if weight.name in ("gamma", "beta", "logit_scale"):
            assert np.all(value == (weight.name == "gamma"))
        if f"start/{weight.path}" in theirs:
            largest, spread = theirs[f"start/{weight.path}"]
            assert 0.85 < np.abs(value).max() / largest < 1.02, weight.path
            assert abs(value.std() / spread - 1) < 0.25, weight.path
            compared += 1
    assert compared == 10 and model.get_layer("stages_1_blocks_1").attn.meta_drop.rate == 0
    with pytest.raises(SwinsError, match="is for V2-CR"):
        classification.network(Classification(Model(start="torch", **numbers | {"num_heads": (3, 6)}), epochs=30), TEN)
    with pytest.raises(SwinsError, match="deformable"):
        classification.network(Classification(Model(deformable=(1,)), epochs=30), TEN)


@pytest.mark.slow
@pytest.mark.backends
def test_one_step_equals_torchs(folder, theirs):
    """Loss and every updated weight of swin_tiny, but where the gradient is rounding noise: AdamW follows its sign."""
    model = swins.create(
        "swin_tiny_patch4_window7_224", weights=folder / "before.safetensors", num_classes=10, drop_path_rate=0.0
    )
    groups = optimisers.groups(model.trainable_variables, AdamW())
    optimizer = optimisers.AdamW(1e-3, groups, global_clipnorm=5.0)
    model.compile(optimizer, keras.losses.CategoricalCrossentropy(from_logits=True), jit_compile=COMPILED)
    loss = model.train_on_batch(theirs["step/images"], theirs["step/rows"])
    assert abs(float(loss) - theirs["step/loss"]) <= 1e-5 * theirs["step/loss"]
    getattr(model, "jax_state_sync", lambda: None)()
    ours = swin_rules.state_dict(model)
    with np.load(folder / "gradients.npz") as arrays:
        gradients = dict(arrays)
    before, after = (checkpoint_files.read(folder / f"{when}.safetensors").state for when in ("before", "after"))
    compared = total = 0
    for name, value in ours.items():
        known = gradients[name] > 1e-6  # of a clipped norm of 5; keys' biases have none but noise
        wanted, scale = after[name], np.abs(after[name]).max()
        np.testing.assert_array_less(np.abs(value - wanted)[known], 1e-5 * scale + 1e-12, name)
        assert np.abs(value - before[name]).max() > 0, name
        compared, total = compared + known.sum(), total + known.size
    assert compared > 0.96 * total


@pytest.mark.backends
@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_torchs(theirs, nesterov):
    weight = keras.Variable(theirs["sgd/start"], name="kernel")
    groups = optimisers.groups([weight], Sgd(weight_decay=0.01))
    optimizer = optimisers.Sgd(0.1, groups, nesterov=nesterov)
    optimizer.build([weight])
    for i, gradient in enumerate(theirs["sgd/gradients"]):
        optimizer.learning_rate = 0.1 / (i + 1)
        optimizer.apply([keras.ops.convert_to_tensor(gradient)])
        np.testing.assert_allclose(keras.ops.convert_to_numpy(weight), theirs[f"sgd/{nesterov}"][i], rtol=1e-5)


@pytest.mark.backends
@pytest.mark.parametrize("accumulate", [None, 3])
def test_the_average_soon_forgets_the_first_weights(accumulate):
    """diffusers' EMAModel: weights and average after every update, the momentum at most (1 + n) / (10 + n)."""
    weight = keras.Variable([5.0, -3.0], name="kernel")
    optimizer = optimisers.Sgd(0.1, momentum=0, use_ema=True, ema_momentum=0.4, gradient_accumulation_steps=accumulate)
    optimizer.build([weight])
    value = average = np.array([5.0, -3.0])
    for n in range(12):
        gradient = np.array([1.0, 0.5]) * (-1) ** n + n
        for _ in range(accumulate or 1):
            optimizer.apply([keras.ops.convert_to_tensor(gradient.astype("float32"))])
        value = value - 0.1 * gradient
        momentum = min(0.4, (1 + n) / (10 + n)) if n else 0.0
        average = momentum * average + (1 - momentum) * value
    optimizer.average_into([weight])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(weight), average, rtol=1e-5)


def test_the_optimiser_survives_saving(tmp_path):
    model = swins.SwinTransformer(image_size=28, patch_size=4, embed_dim=8, depths=(1,), num_heads=(1,), num_classes=3)
    moved(model)
    groups = optimisers.groups(model.trainable_variables, AdamW())
    model.compile(optimisers.AdamW(1e-3, groups, use_ema=True), "mse", **EAGERLY)
    model.train_on_batch(np.ones((2, 28, 28, 3), "float32"), np.zeros((2, 3), "float32"))
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert again.optimizer.groups == model.optimizer.groups
    for mine, its in zip(model.optimizer.variables, again.optimizer.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(mine), np.asarray(its))
