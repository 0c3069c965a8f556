"""Whole models: numbers against timm's, sizes, heads, pyramids, training, policies, round trips."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops
from test_v1 import EAGERLY, TOLERANCE, relative
from test_v1 import load as load_arrays
from training import one_program, optimised_graphs

import swins
from swins import tags
from swins.convert import certificate
from swins.describe import stage_costs
from swins.errors import SwinsError
from swins.model_configs import VARIANTS
from swins.plans import Variant, plan_stages, with_overrides
from swins.reference import oracle
from swins.tags import PRETRAINED, look_up
from swins.weights import checkpoint_files, swin_rules

MODELS = ("mini", pytest.param("oblong", marks=pytest.mark.core), "odd", "per_stage")
SMALL = {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4}


def moved(model, seed=0):
    """The model with every weight moved at random: fresh ones are constants that hide what a round trip loses."""
    rng = np.random.default_rng(seed)
    for w in model.trainable_weights:
        w.assign(ops.convert_to_numpy(w) + rng.standard_normal(w.shape, "float32") * (0.1, 0.2)[len(w.shape) == 1])
    return model


ARCHITECTURES = [name for name in VARIANTS if name.startswith(("swin_", "swinv2_")) and "mini" not in name]
ARCHITECTURES = [name for name in ARCHITECTURES if not name.startswith("swin_transformer_v2_")]  # C. Reich's


@pytest.fixture(scope="module")
def timm_facts():
    """timm's names, tags, drop-path rates and parameter counts, from a process of its own."""
    script = """
import json, timm, torch
names = timm.list_models("swin*")
with torch.device("meta"):
    models = {n: timm.create_model(n, drop_path_rate=0.3) for n in names}
stages = lambda m: m.stages if hasattr(m, "stages") else m.layers
print(json.dumps({n: {
    "tags": [t.partition(".")[2] for t in timm.list_pretrained(n + ".*")],
    "first": timm.get_pretrained_cfg(n).tag,
    "parameters": sum(p.numel() for p in m.parameters()),
    "drop_path": [getattr(b.drop_path1, "drop_prob", 0.0) for s in stages(m) for b in s.blocks],
    "windows": [[list(b.window_size), list(b.shift_size)] for s in stages(m) for b in s.blocks],
    "input_size": list(m.pretrained_cfg["input_size"]),
    "crop_pct": m.pretrained_cfg["crop_pct"],
} for n, m in models.items()}))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_names_are_timms(timm_facts):
    assert sorted(timm_facts) == sorted(ARCHITECTURES) and len(ARCHITECTURES) == 37
    for name in ARCHITECTURES:
        assert sorted(timm_facts[name]["tags"]) == sorted(PRETRAINED[name])
        assert timm_facts[name]["first"] == (*PRETRAINED[name], "untrained")[0]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_plans_are_timms(name, timm_facts):
    variant = with_overrides(look_up(name).variant, {"drop_path_rate": 0.3})
    facts, plans = timm_facts[name], plan_stages(variant)
    assert [r for p in plans for r in p.drop_path] == pytest.approx(facts["drop_path"], abs=1e-6)
    assert [[list(p.window_size), list(s)] for p in plans for s in p.shifts] == facts["windows"]
    assert sum(p for p, _ in stage_costs(variant)) == facts["parameters"]
    assert facts["input_size"] == [3, *variant.image_size]
    crop = facts["crop_pct"]
    assert swins.preprocess(name).resize == tuple(int(side / crop) for side in variant.image_size)


@pytest.mark.slow
def test_names_too_large_to_convert_here_build():
    """The other names are in parity.csv. Without allocating, in a process of its own: Keras initialises later what a
    scope left out."""
    names = [name for name in VARIANTS if "huge" in name or "giant" in name or name.startswith("swin_transformer_v2_")]
    script = (
        "import json, keras, math, sys, swins\n"
        "with keras.StatelessScope(initialize_variables=False):\n"
        "    models = {name: swins.create(name) for name in sys.argv[1:]}\n"
        "print(json.dumps({n: sum(math.prod(w.shape) for w in m.trainable_weights) for n, m in models.items()}))"
    )
    done = subprocess.run([sys.executable, "-c", script, *names], capture_output=True, text=True, check=True)
    counts = json.loads(done.stdout.splitlines()[-1])
    assert len(counts) == 10 and counts["swinv2_cr_giant_384"] == 2_598_761_896
    for name, count in counts.items():
        assert count == sum(p for p, _ in stage_costs(look_up(name).variant))


@pytest.mark.backends
@pytest.mark.parametrize("name", MODELS)
def test_model_equals_timms(name):
    arrays, state = load_arrays(f"model_{name}")
    size = arrays["x"].shape[1:3]
    windows = {"odd": 3, "per_stage": (6, 7)}.get(name, 4)
    depths, heads = {"odd": ((2, 1, 2), (1, 2, 4)), "per_stage": ((2, 2), (2, 2))}.get(name, ((2, 2), (2, 4)))
    model = swins.SwinTransformer(
        image_size=size, patch_size=2, window_size=windows, depths=depths, num_heads=heads, embed_dim=16, num_classes=7
    )
    swin_rules.assign(model, state)
    assert relative(one_program(model)(arrays["x"]), arrays["y"]) <= TOLERANCE
    pyramid = one_program(swins.backbone(model))(arrays["x"])
    assert list(pyramid) == [f"P{i + 1}" for i in range(len(depths))]
    assert all(relative(level, arrays[f"P{i}"]) <= TOLERANCE for i, level in enumerate(pyramid.values()))
    bare = swins.SwinTransformer(**{**model.get_config(), "num_classes": 0, "name": "bare"})
    swin_rules.assign(bare, {k: v for k, v in state.items() if not k.startswith("head.")})
    assert relative(one_program(bare)(arrays["x"]), arrays["features"]) <= TOLERANCE


@pytest.mark.parametrize("classes", [0, 5, 21841])
def test_heads(classes):
    model = swins.create("swin_tiny_patch4_window7_224", num_classes=classes, image_size=32)
    assert model.output.shape == (None, classes or 768)
    assert ("head" in [layer.name for layer in model.layers]) == bool(classes)


OTHERS = [(96, 4), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((256, 3), ((192, 320), 1), (230, 3)))]


@pytest.mark.parametrize(("size", "channels"), OTHERS)
def test_other_sizes_and_channels_follow_timms_construction_rule(size, channels, perturbed):
    name = "swin_tiny_patch4_window7_224"
    overrides = {"image_size": size, "in_chans": channels, "num_classes": 11}
    file = perturbed(name, **overrides)
    model = swins.create(name, weights=file, **overrides)
    images = certificate.seeded_images(model.variant, count=1)
    theirs = oracle.forward(file, name, model.variant, images)["logits"]
    assert relative(model(images), theirs) <= 2e-5


def test_pyramid_of_a_name_a_variant_and_a_model():
    shapes = {"P2": (None, 16, 16, 96), "P3": (None, 8, 8, 192), "P4": (None, 4, 4, 384), "P5": (None, 2, 2, 768)}
    name = "swin_tiny_patch4_window7_224"
    for pyramid in (
        swins.backbone(name, image_size=64),
        swins.backbone(VARIANTS[name], image_size=64),
        swins.backbone(swins.create(name, image_size=64)),
    ):
        assert {level: tuple(x.shape) for level, x in pyramid.output.items()} == shapes


@pytest.mark.slow
@pytest.mark.backends
def test_drop_path_trains_and_loss_falls(rng):
    model = swins.SwinTransformer(**SMALL, num_classes=3, drop_path_rate=0.3, drop_rate=0.1)
    x, y = rng.standard_normal((12, 32, 32, 3), dtype="float32"), np.arange(12) % 3
    drawn = [ops.convert_to_numpy(model(x, training=True)) for _ in range(2)]
    assert np.abs(drawn[0] - drawn[1]).max() > 0
    still = [ops.convert_to_numpy(model(x, training=False)) for _ in range(2)]
    np.testing.assert_array_equal(*still)
    model.compile(keras.optimizers.AdamW(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.optimizer.build(model.trainable_variables)  # before tracing, which is then done once
    before = [np.array(w) for w in model.trainable_weights]
    start = model.evaluate(x, y, verbose=0)
    for _ in range(30):
        model.train_on_batch(x, y)
    assert model.evaluate(x, y, verbose=0) < 0.5 * start
    assert all(np.any(a != np.asarray(b)) for a, b in zip(before, model.trainable_weights, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    "policy", [pytest.param("mixed_bfloat16", marks=pytest.mark.backends), "mixed_float16", "bfloat16"]
)
def test_half_precision_policies(policy, rng, tmp_path):
    full = moved(swins.SwinTransformer(**SMALL, num_classes=3))
    half = swins.SwinTransformer(**SMALL, num_classes=3, dtype=policy)
    half.set_weights(full.get_weights())
    x = rng.standard_normal((4, 32, 32, 3), dtype="float32")
    logits = half(x)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    assert half.get_layer("stages_0_blocks_1").compute_dtype == policy.removeprefix("mixed_")
    assert 0 < relative(logits, ops.convert_to_numpy(full(x))) < 0.05
    half.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), **EAGERLY)
    assert np.isfinite(half.train_on_batch(x, np.arange(4) % 3))
    half.save(tmp_path / "half.keras")
    again = keras.saving.load_model(tmp_path / "half.keras")
    np.testing.assert_array_equal(again.predict(x, verbose=0), half.predict(x, verbose=0))


@pytest.mark.slow
def test_keras_file_is_exact_in_a_fresh_process(tmp_path, rng):
    model = moved(swins.SwinTransformer(**SMALL, num_classes=5, name="mine"))
    x = rng.standard_normal((2, 32, 32, 3), dtype="float32")
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", x)
    script = (
        "import sys, numpy as np, keras, swins; at = sys.argv[1]; m = keras.saving.load_model(at + '/model.keras');"
        "np.save(at + '/y.npy', m.predict(np.load(at + '/x.npy'), verbose=0)); print(type(m).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "SwinTransformer"
    with optimised_graphs():  # as in that process
        np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), model.predict(x, verbose=0))


@pytest.mark.backends
def test_a_pyramid_is_saved_too(tmp_path, rng):
    pyramid = swins.backbone(moved(swins.SwinTransformer(**SMALL)))
    x = rng.standard_normal((2, 32, 32, 3), dtype="float32")
    pyramid.save(tmp_path / "pyramid.keras")
    again = keras.saving.load_model(tmp_path / "pyramid.keras")
    for ours, theirs in zip(again(x).values(), pyramid(x).values(), strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(ours), ops.convert_to_numpy(theirs))


@pytest.mark.core
@pytest.mark.backends
def test_frozen_layers_stay_frozen_in_a_file(tmp_path, rng):
    model = moved(swins.SwinTransformer(**SMALL, num_classes=3))
    for layer in model.layers[:-1]:
        layer.trainable = False
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), **EAGERLY)
    model.train_on_batch(rng.standard_normal((2, 32, 32, 3), dtype="float32"), np.arange(2))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert [w.path for w in again.trainable_weights] == ["head/kernel", "head/bias"]
    assert int(again.optimizer.iterations) == 1


def test_a_pyramid_takes_no_options_it_would_ignore():
    with pytest.raises(swins.SwinsError, match="a Swin takes no options"):
        swins.backbone(swins.SwinTransformer(**SMALL), image_size=64)
    with pytest.raises(swins.SwinsError, match="a pyramid is of a name"):
        swins.backbone(keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]))
    assert (
        swins.backbone(VARIANTS["swin_mini_patch2_window4_28"], dtype="mixed_bfloat16").output["P2"].dtype == "bfloat16"
    )


@pytest.mark.slow
def test_a_clipped_window_says_which_sizes_keep_the_tables(perturbed):
    file = perturbed("swin_tiny_patch4_window7_224")
    with pytest.raises(swins.SwinsError, match="use 196 pixels or more"):
        swins.create("swin_tiny_patch4_window7_224", weights=file, image_size=160)
    assert swins.create("swin_tiny_patch4_window7_224", weights=file, image_size=196).variant.image_size == (196, 196)


@pytest.mark.core
@pytest.mark.backends
def test_weights_from_keras_artefact_and_checkpoint_are_the_same(converted, checkpoint):
    name = "swin_mini_patch2_window4_28"
    digests = {
        checkpoint_files.digest(swin_rules.state_dict(swins.create(name, weights=source)))
        for source in (converted, converted / "model.keras", str(checkpoint))
    }
    assert len(digests) == 1


@pytest.mark.backends
def test_untagged_names_take_classes_from_the_file(tmp_path):
    name = "swin_mini_patch2_window4_28"
    mine = moved(swins.create(name, num_classes=4))
    mine.save(tmp_path / "mine.keras")
    again = swins.create(name, weights=tmp_path / "mine.keras")
    assert checkpoint_files.digest(swin_rules.state_dict(again)) == checkpoint_files.digest(swin_rules.state_dict(mine))
    with pytest.raises(swins.SwinsError, match=r"head\.fc\.weight gives \(96, 4\)"):
        swins.create(f"{name}.fashion_mnist", weights=tmp_path / "mine.keras")


@pytest.mark.parametrize("weights", [True, 3])
def test_weights_of_another_kind_are_refused(weights):
    with pytest.raises(swins.SwinsError, match='must be None, "pretrained" or a path'):
        swins.create("swin_mini_patch2_window4_28", weights=weights)


@pytest.mark.backends
def test_other_classes_leave_the_head_fresh_and_keep_the_rest(checkpoint):
    name = "swin_mini_patch2_window4_28"
    model, whole = swins.create(name, num_classes=3, weights=checkpoint), swins.create(name, weights=checkpoint)
    assert model.output.shape == (None, 3)
    for ours, theirs in zip(swins.backbone(model).weights, swins.backbone(whole).weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert swins.create(name, num_classes=0, weights=checkpoint).output.shape == (None, 96)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 4, 6])
def test_rgb_weights_fit_other_channels_as_in_timm(channels, perturbed, tmp_path):
    file = perturbed("swin_tiny_patch4_window7_224", num_classes=3, image_size=32)
    script = (
        "import sys, numpy as np; from safetensors.torch import load_file;"
        "from timm.models import adapt_input_conv;"
        "w = load_file(sys.argv[1])['patch_embed.proj.weight'];"
        "np.save(sys.argv[2], adapt_input_conv(int(sys.argv[3]), w).numpy())"
    )
    target = tmp_path / "adapted.npy"
    subprocess.run([sys.executable, "-c", script, file, target, str(channels)], check=True, capture_output=True)
    model = swins.create("swin_tiny_patch4_window7_224", weights=file, in_chans=channels, num_classes=3, image_size=32)
    np.testing.assert_allclose(
        swin_rules.state_dict(model)["patch_embed.proj.weight"], np.load(target), rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"num_heads": (5, 10)}, ("num_heads must divide", "(5, 10) and (16, 32)")),
        ({"depths": (2, 2, 2)}, ("num_heads must have one value or 3; got 2",)),
        ({"image_size": 1}, ("at least one patch", "choose 2 or more")),
        ({"window_size": (4, 4, 4)}, ("window_size must have one value or 2; got 3",)),
        ({"window_size": 4.5}, ("window_size must be an integer or 2 integers; got 4.5",)),
        ({"image_size": (32, 32, 3)}, ("image_size must have one value or 2; got 3",)),
        ({"embed_dim": 0}, ("embed_dim and in_chans must be at least 1", "embed_dim=0")),
        ({"in_chans": 0}, ("in_chans must be at least 1", "in_chans=0")),
        ({"num_classes": -1}, ("num_classes must be at least 0",)),
        ({"drop_path_rate": 1.0}, ("drop rates must be in [0, 1)",)),
        ({"windowsize": 7}, ("unknown model option 'windowsize'", "window_size")),
    ],
)
def test_numbers_that_make_no_model_name_the_rule(numbers, words):
    with pytest.raises(swins.SwinsError) as error:
        swins.SwinTransformer(**{**SMALL, **numbers})
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_misspelt_name_lists_the_closest():
    with pytest.raises(swins.SwinsError, match="swin_tiny_patch4_window7_224"):
        swins.create("swin_tinny_patch4_window7_224")
    with pytest.raises(swins.SwinsError, match=r"swin_s3_tiny_224\.ms_in1k"):
        swins.create("swin_s3_tiny_224.ms_in22k")


def test_find_splits_tags():
    assert look_up("swin_base_patch4_window7_224").tag == "ms_in22k_ft_in1k"
    assert look_up("swin_base_patch4_window7_224.ms_in22k").variant.num_classes == 21841


def test_two_models_in_one_have_names_of_their_own(rng):
    """As in keras.applications: the default name is the architecture's, and two in one model need two."""
    name = "swin_mini_patch2_window4_28"
    left, right = swins.create(name, name="left"), swins.create(name, depths=(1, 1))
    assert (left.name, right.name) == ("left", name) and swins.create(name=name).name == name
    images = keras.Input((28, 28, 1))
    pair = keras.Model(images, keras.ops.add(left(images), right(images)))
    x = rng.standard_normal((1, 28, 28, 1), dtype="float32")
    assert np.allclose(pair(x), left(x) + right(x), atol=1e-5)
    assert [v.path for v in left.trainable_variables] == [
        v.path for v in swins.create(name).trainable_variables
    ]  # whatever its name
    assert swins.backbone(left).name == "left_pyramid" and swins.backbone(name, name="p").name == "p"
    assert swins.deploy(left).name == "left" and swins.deploy(left, name="fast").name == "fast"
    assert swins.resize(left, image_size=56, name="large").name == "large"
    assert swins.select_classes(left, [1, 2], name="two").name == "two"
    assert swins.tags.variant_name(left) == name


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((), {}, "create takes a variant's name"),
        ((3,), {}, "create takes a variant's name"),
        (("swin_mini_patch2_window4_28",), {"name": "a/b"}, "name must be a string without slashes"),
        (("swin_mini_patch2_window4_28",), {"name": 3}, "name must be a string without slashes"),
    ],
)
def test_names_that_cannot_be(arguments, options, words):
    with pytest.raises(swins.SwinsError, match=words):
        swins.create(*arguments, **options)


@pytest.fixture
def registered():
    """Whatever a test registers is forgotten after it."""
    before = [(table, dict(table)) for table in (tags.VARIANTS, tags.PRETRAINED, tags.TAGS)]
    yield
    for table, content in before:
        table.clear()
        table.update(content)


def test_a_registered_variant_is_known_by_its_name(registered):
    pico = Variant(embed_dim=24, depths=(1, 1), num_heads=(1, 2), image_size=56, num_classes=7)
    swins.register_variant("swin_pico_56", pico, {"my_set": tags.Weights(5, dataset="mine")})
    swins.register_variant("swin_pico_56", pico, {"my_set": tags.Weights(5, dataset="mine")})  # again, the same
    assert swins.list_variants("swin_pico*", pretrained=True) == ["swin_pico_56.my_set"]
    assert swins.create("swin_pico_56").output.shape == (None, 5)
    assert swins.create("swin_pico_56", num_classes=3).name == "swin_pico_56"
    swins.register_variant("swin_femto_56", pico)
    assert swins.create("swin_femto_56").output.shape == (None, 7)
    for name, variant, more, said in (
        ("swin_pico_56", Variant(), None, "swin_pico_56 is a variant already, with other numbers"),
        ("a.b", pico, None, "a variant's name begins with a letter"),
        ("swin_a", {"embed_dim": 3}, None, "a variant is a .*UPerNetVariant or SwinUNetVariant; got dict"),
        ("swin_a", pico, {"ms_in1k": tags.Weights(3)}, "the tags ms_in1k are of other weights already"),
    ):
        with pytest.raises(SwinsError, match=said):
            swins.register_variant(name, variant, more)
