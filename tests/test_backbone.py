"""Feature pyramids: of every kind of source, with norms, merged, beside what other programs' backbones give."""

import json
import pathlib
import subprocess
import sys
import warnings
from functools import partial

import keras
import numpy as np
import pytest
from keras import ops
from test_models import moved
from test_originals import ORIGINALS, assert_within, images_of, state_of
from test_originals import load as load_original
from test_v1 import relative

import swins
from swins.model_configs import VARIANTS
from swins.tags import PRETRAINED
from swins.weights import checkpoint_files

SCRIPT = pathlib.Path(__file__).parent / "reference" / "pyramids.py"
SIZES = ((224, 224), (160, 160), (200, 304))
TINY, MINI, ANY = "swin_tiny_patch4_window7_224", "swin_mini_patch2_window4_28", (None, None)
STAGES = swins.Variant(embed_dim=8, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8))
SMALL = {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4}
FAMILIES = (swins.SwinTransformer, swins.SwinTransformerV2, swins.SwinTransformerV2CR)


def pictures(size):
    return np.random.default_rng(size).standard_normal((1, *size, 3), dtype="float32")


def same(a, b):
    for level in {**a, **b}:
        np.testing.assert_array_equal(ops.convert_to_numpy(a[level]), ops.convert_to_numpy(b[level]))


@pytest.fixture(scope="module")
def transformers(tmp_path_factory):
    """A folder of transformers' backbones, with maps.npz, what these give."""
    folder = tmp_path_factory.mktemp("pyramids")
    subprocess.run([sys.executable, SCRIPT, folder, json.dumps(SIZES)], check=True, capture_output=True)
    return folder


@pytest.fixture
def stages(monkeypatch):
    """transformers' small backbone as a variant, so that a file names it."""
    monkeypatch.setitem(VARIANTS, "swin_stages_test", STAGES)
    monkeypatch.setitem(PRETRAINED, "swin_stages_test", ())


@pytest.mark.slow
@pytest.mark.parametrize("open_size", [False, True], ids=["fixed", "open"])
def test_maps_are_those_of_transformers_backbone(transformers, stages, open_size):
    with np.load(transformers / "maps.npz") as file:
        theirs = dict(file)
    pyramid = swins.backbone(transformers / "backbone", norms=True, image_size=ANY) if open_size else None
    for size in SIZES:
        made = pyramid or swins.backbone(
            "swin_stages_test", weights=transformers / "backbone", norms=True, image_size=size
        )
        for level, ours in made(pictures(size)).items():
            y = theirs[f"{size[0]}x{size[1]}/{level}"]
            assert ours.shape == y.shape and relative(ours, y) <= 1e-5, (size, level)
    assert len(theirs) == len(SIZES) * 4


@pytest.mark.slow
def test_a_segmenters_file_holds_the_same_norms(transformers, stages):
    with pytest.warns(UserWarning, match="only its Swin was taken; left out auxiliary_head, decode_head"):
        inside = swins.backbone(str(transformers / "upernet.pth"), norms=True)
    alone = swins.backbone(STAGES, weights=transformers / "backbone", norms=True)
    same(inside(pictures((224, 224))), alone(pictures((224, 224))))
    assert inside.name == "swin_stages_test_pyramid"


@pytest.mark.slow
def test_norms_that_a_file_lacks_are_fresh_and_named(transformers, stages, checkpoint):
    with pytest.warns(UserWarning, match=r"last.safetensors has no norms of P2, P3, P4, so these are fresh"):
        pyramid = swins.backbone(transformers / "last.safetensors", norms=True)
    with np.load(transformers / "maps.npz") as file:
        assert relative(pyramid(pictures((224, 224)))["P5"], file["224x224/P5"]) <= 1e-5
    with pytest.warns(UserWarning, match="has no norms of P1, P2"):  # a classifier's norm is no map's
        fresh = swins.backbone(MINI, weights=checkpoint, norms=True)
    assert np.all(np.asarray(fresh.get_layer("norm1").gamma) == 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        swins.backbone(transformers / "last.safetensors", norms=("P5",))
        swins.backbone(MINI, norms=True)


def largest_difference(variant, weights, case, theirs, precision):
    size = tuple(case["size"])
    pyramid = swins.backbone(variant, weights=weights, norms=True, image_size=size, dtype=precision)
    return np.max([relative(y, theirs[f"norm{s}"]) for s, y in enumerate(pyramid(images_of(case)).values())])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["mmdet", "mmdet_three_stages", "mmseg", "microsoft_detection", "microsoft_segmentation"]
)
def test_normed_maps_are_those_that_detectors_computed(name, tmp_path):
    """Every output norm of every stage, at the sizes of the fixtures that these programs made."""
    file, cases = load_original(name)
    variant, compared = swins.Variant(**ORIGINALS[name].numbers), 0
    for i, case in enumerate(cases):
        theirs = {k.split("/")[2]: v for k, v in file.items() if k.startswith(f"out/{i}/norm")}
        if "nan" in case or "raises" in case or case.get("without"):
            continue
        checkpoint_files.write(state_of(file, i, case), tmp_path / f"{i}.safetensors")
        difference_in = partial(largest_difference, variant, tmp_path / f"{i}.safetensors", case, theirs)
        assert_within(1e-5, difference_in, case["size"])
        compared += len(theirs)
    assert compared >= 8


@pytest.mark.slow
def test_parameters_are_those_of_mask_r_cnns_backbone():
    """As mmdet's own model has them, 2,880 of them in norms: specs/dense_corrections.md, section 1."""
    pyramid = swins.backbone(TINY, norms=True, image_size=ANY, size_rule="open_mmlab")
    assert pyramid.count_params() == 27_520_698
    assert swins.backbone(TINY, image_size=ANY).count_params() == 27_520_698 - 2_880
    assert [pyramid.get_layer(f"norm{s}").gamma.shape[0] for s in range(4)] == [96, 192, 384, 768]


def test_merged_maps_of_a_swin_t_at_336_are_those_of_ssds_backbone_a():
    pyramid = swins.backbone(TINY, merged=True, image_size=336)
    shapes = {level: tuple(x.shape[1:]) for level, x in pyramid.output.items()}
    assert shapes == {"P3": (42, 42, 192), "P4": (21, 21, 384), "P5": (11, 11, 768)}
    assert not [w.path for w in pyramid.weights if w.path.startswith("stages_3_blocks")]
    rates = [layer.rate for layer in pyramid.layers if hasattr(layer, "attn")]
    assert len(rates) == 10 and rates[-1] == pytest.approx(0.1 * 9 / 11)  # of all 12 blocks, the last two cut


@pytest.mark.slow
@pytest.mark.backends
@pytest.mark.parametrize("family", FAMILIES)
def test_merged_maps_are_what_the_next_stage_gets(family, rng):
    model = moved(family(**SMALL))
    x = rng.standard_normal((2, 32, 32, 3), dtype="float32")
    merged, maps = swins.backbone(model, merged=True)(x), swins.backbone(model)(x)
    assert list(merged) == ["P2"]
    merging = {w.path.partition("/")[2]: np.asarray(w) for w in model.get_layer("stages_1_downsample").weights}
    y = ops.convert_to_numpy(maps["P1"])
    y = np.concatenate([y[:, i::2, j::2] for i, j in ((0, 0), (1, 0), (0, 1), (1, 1))], axis=-1)

    def normed(y):
        y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-5)
        return y * merging["norm/gamma"] + merging["norm/beta"]

    kernel = merging["reduction/kernel"]
    assert relative(merged["P2"], normed(y @ kernel) if family is FAMILIES[1] else normed(y) @ kernel) <= 1e-5
    block = model.get_layer("stages_1_blocks_0")
    for layer in model.layers[model.layers.index(block) :]:
        if layer.name.startswith("stages_1"):
            merged["P2"] = layer(merged["P2"])
    assert relative(merged["P2"], ops.convert_to_numpy(maps["P2"])) <= 1e-5


@pytest.mark.slow
@pytest.mark.backends
@pytest.mark.parametrize("family", [FAMILIES[0], *(pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES[1:])])
def test_pyramids_train_share_weights_and_are_saved(family, rng, tmp_path):
    model = moved(family(**SMALL))
    pyramid = swins.backbone(model, norms=True, name="p")
    for s in range(2):
        pyramid.get_layer(f"norm{s}").gamma.assign(rng.uniform(0.5, 2, 16 * 2**s))
    assert pyramid.get_layer("stages_0_blocks_0") is model.get_layer("stages_0_blocks_0")
    x = rng.standard_normal((2, 32, 32, 3), dtype="float32")
    before = {w.path: np.array(w) for w in pyramid.trainable_weights}
    pyramid.compile(keras.optimizers.SGD(10.0), dict.fromkeys(pyramid.output, "mse"))
    pyramid.train_on_batch(x, {level: rng.standard_normal((2, *y.shape[1:])) for level, y in pyramid.output.items()})
    still = [w.path for w in pyramid.trainable_weights if np.array_equal(before[w.path], np.asarray(w))]
    assert not [path for path in still if "meta_mlp_fc2/bias" not in path]  # which softmax takes away
    pyramid.save(tmp_path / "p.keras")
    again = keras.saving.load_model(tmp_path / "p.keras")
    assert again.name == "p"
    same(again(x), pyramid(x))


def test_norms_of_some_levels_leave_the_others_as_they_are(rng):
    model = moved(swins.SwinTransformer(**SMALL))
    x = rng.standard_normal((2, 32, 32, 3), dtype="float32")
    raw, some = swins.backbone(model)(x), swins.backbone(model, norms=("P2",))(x)
    np.testing.assert_array_equal(raw["P1"], some["P1"])
    assert abs(float(ops.mean(some["P2"]))) < 1e-4 < abs(float(ops.mean(raw["P2"])))
    half = swins.backbone(swins.Variant(**SMALL), norms=True, dtype="mixed_bfloat16")
    assert half.output["P1"].dtype == "bfloat16" and half.get_layer("norm0").gamma.dtype == "float32"


@pytest.mark.slow
@pytest.mark.backends
def test_every_source_gives_the_same_maps(converted, checkpoint):
    x = np.random.default_rng(0).standard_normal((1, 28, 28, 1), dtype="float32")
    model = swins.create(MINI, weights=checkpoint)
    maps = swins.backbone(model)(x)
    for source in (converted, str(converted), converted / "model.keras", checkpoint):
        same(swins.backbone(source)(x), maps)
    for source in (MINI, f"{MINI}.fashion_mnist", VARIANTS[MINI]):
        same(swins.backbone(source, weights=checkpoint)(x), maps)
    larger = swins.backbone(converted, image_size=56)
    assert larger.output["P1"].shape[1:3] == (28, 28) and larger.name == f"{MINI}_pyramid"
    colours = swins.backbone(
        swins.Variant(**{**vars(VARIANTS[MINI]), "in_chans": 1, "image_size": 56}), weights=checkpoint
    )
    same(colours(np.tile(x, (1, 2, 2, 1))), larger(np.tile(x, (1, 2, 2, 1))))


def test_what_a_pyramid_does_not_take_is_refused(checkpoint, tmp_path):
    model = swins.SwinTransformer(**SMALL)
    for call, words in (
        (lambda: swins.backbone(model, weights=checkpoint), "a Swin takes no options; got .*weights"),
        (lambda: swins.backbone(checkpoint, weights="pretrained"), "has weights of its own"),
        (lambda: swins.backbone(swins.Variant(**SMALL), weights="pretrained"), "of a variant by name; pass its name"),
        (lambda: swins.backbone(MINI, weights=3), 'must be None, "pretrained" or a path'),
        (lambda: swins.backbone(MINI, weights_key="model"), "weights_key chooses among the weights of a file"),
        (lambda: swins.backbone(model, norms=("P7",)), "unknown level 'P7'"),
        (lambda: swins.backbone(model, norms="P2"), "must be True, False or levels, such as .* got 'P2'"),
        (lambda: swins.backbone(model, norms=True, merged=True), "norms are of maps before merging"),
        (lambda: swins.backbone("swin_tinny_patch4_window7_224"), "unknown variant"),
        (lambda: swins.backbone(tmp_path / "none.pth"), "no such checkpoint file"),
        (lambda: swins.backbone(model, name="a/b"), "name must be a string without slashes"),
    ):
        with pytest.raises(swins.SwinsError, match=words):
            call()
