"""SSD: its parameters and outputs beside the reference's, on every kind of pyramid, in every copy."""

import re

import keras
import numpy as np
import pytest
from keras import layers, ops
from shared_fixtures import script
from test_changes import quiet, saved, trained
from test_models import moved
from training import one_program

import swins
from swins.changes import copy, variables, walk
from swins.detection.default_boxes import spread
from swins.detection.ssd import SSD, Rescale
from swins.errors import SwinsError
from swins.patch_expanding import PatchExpanding
from swins.ssd_numbers import Extra
from swins.weights import conversion_table
from swins.weights.conversion_table import Rule, Table, weights_of

REFERENCE = script("tests/reference/ssd_reference.py")
BASES = ("ssd300_resnet50_a", "ssd300_resnet50_b", "ssd336_swin_tiny_a", "ssd336_swin_tiny_b")
SUFFIX = {"none": "", "fpn": "_fpn", "pan": "_pan", "dense_fpn": "_dense_fpn"}
BACKBONES = dict(zip(BASES, (25_903_168, 12_316_992, 17_134_858, 17_595_914), strict=True))  # extras among them
TOTALS = {  # of whole detectors of 80 classes, in the order of SUFFIX, as the reference's own modules have them
    "ssd300_resnet50_a": (45_489_718, 36_502_582, 39_452_982, 44_759_862),
    "ssd300_resnet50_b": (22_894_902, 22_457_654, 25_408_054, 30_714_934),
    "ssd336_swin_tiny_a": (26_929_408, 27_160_832, 27_160_832 + 5 * (9 * 256 * 256 + 256), 35_418_112),  # pan: its rule
    "ssd336_swin_tiny_b": (25_627_904, 27_523_584, 30_473_984, 35_780_864),
}
MERGED = {"ssd336_swin_tiny_a": (96, 192, 384), "ssd336_swin_tiny_b": (96, 192)}  # channels before each merging
SIZES = {"ssd300": (38, 19, 10, 5, 3, 1), "ssd336": (42, 21, 11, 6, 3, 1)}
PRIORS = {"ssd300": 8732, "ssd336": 10684}
SMALL = {"embed_dim": 16, "depths": (1, 1), "num_heads": (2, 4), "patch_size": 2, "window_size": 4, "image_size": 64}
FAMILIES = (swins.SwinTransformer, swins.SwinTransformerV2, swins.SwinTransformerV2CR)
EXTRAS = ((4, 8),) * 4
MINI = "ssd64_swin_mini_b"


def small(family=swins.SwinTransformer, **options):
    """An SSD on a small Swin."""
    return SSD(swins.backbone(family(**SMALL), name="pyramid"), **{"num_classes": 3, "extras": EXTRAS, **options})


def own_pyramid(sizes, channels=8):
    """A user's pyramid: maps of these sizes, each pooled from the images."""
    images, maps = keras.Input((64, 64, 3)), {}
    for i, size in enumerate(sizes):
        x = layers.Conv2D(channels, 1, name=f"own_{i}")(images)
        maps[f"c{i}"] = layers.Resizing(*size, name=f"own_resized_{i}")(x)
    return keras.Model(images, maps, name="own")


def pictures(size=64, channels=3):
    return np.random.default_rng(size).standard_normal((2, size, size, channels), dtype="float32")


def parameters(weights):
    return sum(int(np.prod(v.shape)) for v in weights)


def arrays(outputs):
    return {name: ops.convert_to_numpy(x) for name, x in outputs.items()}


def same(a, b):
    a, b = arrays(a), arrays(b)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize("neck", SUFFIX)
@pytest.mark.parametrize("base", BASES)
@pytest.mark.slow
def test_parameters_priors_and_shapes_are_the_references(base, neck):
    model = swins.create(base + SUFFIX[neck])
    more = sum(8 * c - 2 * c for c in MERGED.get(base, ()))  # norms of 4C channels where the reference has C
    more += 512 * base.endswith("resnet50_a")  # the first map's lengths, not in the table
    assert parameters(model.trainable_weights) == TOTALS[base][list(SUFFIX).index(neck)] + more
    inside = [v for path, v in variables(model).items() if path.startswith(("pyramid/", "extras_", "expand/"))]
    of_backbone = parameters(v for v in inside if v.trainable)
    assert of_backbone == BACKBONES[base] + more - 512 * base.endswith("resnet50_a")
    count = PRIORS[base[:6]]
    assert model.sizes == tuple((side, side) for side in SIZES[base[:6]])
    assert model.priors.shape == (count, 4) and model.priors.dtype == "float32"
    assert model.output["boxes"].shape == (None, count, 4) and model.output["scores"].shape == (None, count, 81)
    assert model.name == base + SUFFIX[neck]


PARTS = {"kernel": "weight", "gamma": "weight", "beta": "bias", "moving_mean": "running_mean"}
PARTS |= {"moving_variance": "running_var", "bias": "bias", "scale": ""}
CONVOLUTIONS = {"conv1": 0, "norm1": 1, "conv2": 3, "norm2": 4}  # places in an auxiliary block


def reference_name(path, neck):
    """The reference's parameter that a variable of an SSD on a ResNet is."""
    *_, layer, part = path.split("/")
    part = PARTS[part]
    if layer == "rescale":
        return "rescale_factors"
    if extra := re.fullmatch(r"extras_(\d)_(\w+)", layer):
        return f"backbone.aux{int(extra[1]) + 1}.{CONVOLUTIONS[extra[2]]}.{part}"
    if level := re.fullmatch(r"(neck_\w+|boxes|scores)_(\d)", layer):
        i, inside = int(level[2]), "neck.fpn" if neck == "pan" else "neck"
        modules, place = {
            "boxes": ("location_convs", i),
            "scores": ("score_convs", i),
            "neck_align": (f"{inside}.align_convs", 5 - i if neck == "dense_fpn" else i),
            "neck_smooth": (f"{inside}.smooth_convs", 5 - i),  # the coarsest is their first
            "neck_down": ("neck.down_convs", i),
            "neck_dense": ("neck.dense_convs", 4 - i),
        }[level[1]]
        return f"{modules}.{place}.{part}"
    block = re.fullmatch(r"(layer\d)_(\d+)_(\w+)", layer)
    module = f"{block[1]}.{block[2]}.{block[3].replace('_', '.')}" if block else layer
    return f"backbone.{module}.{part}"


def reference_table(model, neck):
    """The Table of an SSD on a ResNet."""
    kernels = {True: "oihw->hwio", False: ""}
    rules = [Rule(path, reference_name(path, neck), kernels[path.endswith("kernel")]) for path in variables(model)]
    return Table(tuple(rules))


@pytest.mark.parametrize(
    ("letter", "neck"),
    [
        pytest.param(letter, neck, marks=pytest.mark.backends if (letter, neck) == ("b", "pan") else pytest.mark.slow)
        for letter in "ab"
        for neck in SUFFIX
    ],
)
def test_a_whole_forward_is_the_references(letter, neck):
    """With the same weights, all moved at random, down to the last parameter's name and shape."""
    model = swins.create(f"ssd300_resnet50_{letter}{SUFFIX[neck]}")
    table = reference_table(model, neck)
    shapes = {name: x.shape for name, x in conversion_table.state_dict(model, table).items()}
    if "rescale_factors" in shapes:
        shapes["rescale_factors"] = (1, 512, 1, 1)
    with np.load(REFERENCE.FILE) as file:
        theirs = {name: file[f"{letter}/{neck}/{name}"] for name in ("digest", "boxes", "scores")}
        largest = {name: file[f"{letter}/{neck}/{name}_largest"] for name in REFERENCE.STEPS}
    assert REFERENCE.digest(shapes) == theirs["digest"].item()
    state = {name: REFERENCE.seeded(name, shape) for name, shape in shapes.items()}
    state |= {"rescale_factors": state["rescale_factors"].reshape(-1)} if letter == "a" else {}
    conversion_table.fill(variables(model), state, table, model.name)
    for name, output in arrays(one_program(model)(REFERENCE.image())).items():
        ours = output.ravel()[:: REFERENCE.STEPS[name]]
        assert ours.shape == theirs[name].shape
        assert np.abs(ours - theirs[name]).max() <= 1e-5 * largest[name], name
        assert np.isclose(np.abs(output).max(), largest[name], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.backends
@pytest.mark.parametrize("neck", [n if n == "pan" else pytest.param(n, marks=pytest.mark.slow) for n in SUFFIX])
def test_each_neck_runs_trains_and_is_saved(neck, tmp_path):
    model = moved(small(neck=neck))
    images = pictures()
    outputs = one_program(model)(images)
    assert {name: tuple(x.shape) for name, x in outputs.items()} == {"boxes": (2, 6132, 4), "scores": (2, 6132, 4)}
    assert model.sizes == ((32, 32), (16, 16), (8, 8), (4, 4), (2, 2), (1, 1))
    same(outputs, one_program(saved(model, tmp_path))(images))
    before = ops.convert_to_numpy(model.get_layer("extras_0_norm1").moving_mean).copy()
    assert all(np.isfinite(x).all() for x in arrays(model(images, training=True)).values())
    assert not np.array_equal(before, ops.convert_to_numpy(model.get_layer("extras_0_norm1").moving_mean))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_any_swin_is_a_backbone(family, tmp_path):
    pyramid = swins.backbone(family(**SMALL))
    model = moved(SSD(pyramid, num_classes=3, extras=EXTRAS, neck="fpn", rescale=True, expand=True))
    assert model.sizes[:2] == ((32, 32), (32, 32)) and model.backbone is pyramid
    same(model(pictures()), saved(model, tmp_path)(pictures()))


@pytest.mark.backends
def test_a_users_own_pyramid_of_any_number_of_maps(tmp_path):
    pyramid = own_pyramid([(12, 20), (6, 10), (3, 5)])
    model = SSD(pyramid, num_classes=2, neck="dense_fpn", extras=(), preset=spread(3))
    assert model.sizes == ((12, 20), (6, 10), (3, 5)) and model.priors.shape == (4 * (240 + 60 + 15), 4)
    assert model.output["scores"].shape == (None, 1260, 3)
    again = saved(moved(model), tmp_path)
    same(model(pictures()), again(pictures()))
    np.testing.assert_array_equal(model.priors, again.priors)
    assert again.numbers == model.numbers
    part = SSD(pyramid, num_classes=2, levels=("c1", "c2"))  # the other maps are not of it
    assert "own_0" not in {layer.name for layer in part.backbone.layers}
    assert part.sizes == ((6, 10), (3, 5), (2, 3), (1, 2), (1, 1), (1, 1))


@pytest.mark.slow
def test_what_was_done_to_layers_is_in_every_copy(tmp_path):
    model = moved(small(neck="fpn", frozen=("pyramid/stages_0_blocks_0/mlp", "extras_0_norm1")))
    layer = dict(walk(model))
    layer["pyramid/stages_1_blocks_0"].norm1.epsilon = 1e-3
    layer["pyramid/stages_1_blocks_0"].attn.qkv.trainable = False
    layer["neck_smooth_2"].trainable = False
    layer["pyramid/patch_embed"].proj.bias.trainable = False
    expected = trained(model)
    assert "pyramid/stages_0_blocks_0/mlp/fc1/kernel" not in expected and len(expected) < len(variables(model))
    for other in (saved(model, tmp_path), copy(model), keras.models.clone_model(model)):
        assert trained(other) == expected and list(variables(other)) == list(variables(model))
        assert dict(walk(other))["pyramid/stages_1_blocks_0/norm1"].epsilon == 1e-3
    same(model(pictures()), copy(model)(pictures()))
    again = saved(saved(model, tmp_path), tmp_path)
    assert trained(again) == expected
    same(model(pictures()), again(pictures()))


@pytest.mark.slow
@quiet
def test_a_quantized_backbone_is_saved(tmp_path):
    model = moved(small())
    model.quantize("int8", filters=lambda layer: layer.name == "fc1")
    again, picture = saved(model, tmp_path), pictures()[:1]  # Keras' integers take seconds
    expected = model(picture)
    same(expected, again(picture))
    same(expected, copy(again)(picture))


@pytest.mark.slow
def test_paths_of_variables_are_the_same_in_each(tmp_path):
    """However many models were made before: checkpoints know variables by their paths."""
    first, second = (swins.create(MINI, num_classes=3) for _ in range(2))
    paths = list(weights_of(first))
    assert paths == list(weights_of(second)) == list(weights_of(saved(first, tmp_path)))
    assert len(paths) == len(first.weights) and "neck_smooth_0/kernel" not in paths and "extras_0_conv1/kernel" in paths


def test_heads_are_float32_whatever_the_policy():
    model = small(dtype="mixed_bfloat16", neck="fpn", rescale=True)
    assert model.get_layer("neck_smooth_0").compute_dtype == "bfloat16"
    assert {str(x.dtype) for x in arrays(model(pictures())).values()} == {"float32"}


@pytest.mark.backends
def test_the_first_maps_cells_get_a_length():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype("float32")
    x[0, 0, 0] = 0
    layer = Rescale()
    y = ops.convert_to_numpy(layer(x))
    lengths = np.linalg.norm(y, axis=-1)
    assert lengths[0, 0, 0] == 0 and np.allclose(lengths.ravel()[1:], 20, rtol=1e-5)
    layer.scale.assign(np.arange(5, dtype="float32"))
    unit = x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
    np.testing.assert_allclose(ops.convert_to_numpy(layer(x)), unit * np.arange(5), atol=1e-5)


@pytest.mark.backends
def test_patch_expanding_spreads_channels_over_cells():
    x = np.random.default_rng(0).normal(size=(1, 2, 3, 4)).astype("float32")
    layer = PatchExpanding(name="expand")
    y = ops.convert_to_numpy(layer(x))
    normed = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    spread_out = (normed @ ops.convert_to_numpy(layer.expansion.kernel)).reshape(1, 2, 3, 2, 2, 2)
    np.testing.assert_allclose(y, spread_out.transpose(0, 1, 3, 2, 4, 5).reshape(1, 4, 6, 2), atol=1e-5)


def test_computed_extras_end_at_one_cell():
    model = SSD(own_pyramid([(19, 19)], channels=1024), num_classes=1, preset=spread(5))
    kernels = [model.get_layer(f"extras_{i}_conv{j}").kernel.shape for i in range(4) for j in (1, 2)]
    assert model.sizes == ((19, 19), (10, 10), (5, 5), (3, 3), (1, 1))
    assert [kernel[-1] for kernel in kernels] == [256, 512, 128, 256, 128, 256, 128, 256]
    assert Extra(4, 8).on((3, 3)) == (4, 8, 1, 0) and Extra(4, 8).on((3, 4)) == (4, 8, 2, 1)


LEVELS = [(42, 42), (21, 21), (10, 10), (5, 5), (3, 3), (1, 1)]  # as the reference's Swin A


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"neck": "pan"}, r"level 1 is 21x21, so level 2 must be 11x11; got 10x10"),
        ({"neck": "bifpn"}, r"unknown neck 'bifpn'"),
        ({"levels": ("c1", "c0")}, r"from fine to coarse; got 42x42 at level 1 after 21x21"),
        ({"levels": ("c0", "c9")}, r"unknown level 'c9'"),
        ({"levels": ()}, r"levels must be names of maps"),
        ({"extras": ((8, 8),)}, r"boxes for 6 maps; got 6 of the pyramid and 1 of extras"),
        ({"preset": "coco"}, r"unknown preset of default boxes 'coco'"),
        ({"preset": spread(5)}, r"boxes for 5 maps; got 6 of the pyramid and 0 of extras"),
        ({"levels": ("c5",), "extras": ((8, 8, 1, 0),) * 5}, r"row 0 of extras, \(8, 8, 1, 0\), gets a map of 1x1"),
        ({"extras": ((8, 8, 1),)}, r"a row of extras is \(middle, channels\), or with stride and padding"),
        ({"extras": ((8, 0),)}, r"a row of extras has middle, channels and stride of at least 1"),
        ({"extras": 3}, r"extras must be rows"),
        ({"extra_norm": "group"}, r"unknown extra_norm 'group'"),
        ({"num_classes": 0}, r"num_classes must be at least 1"),
        ({"num_classes": 2.5}, r"num_classes must be an integer"),
        ({"rescale": "yes"}, r"rescale must be True or False"),
        ({"classes": 3}, r"unknown option of an SSD 'classes': the closest are num_classes"),
        ({"frozen": ("neck",)}, r"unknown layer 'neck'"),
    ],
)
def test_what_cannot_be_is_said(options, words):
    with pytest.raises(SwinsError, match=words):
        SSD(own_pyramid(LEVELS), **options)


def test_what_is_no_pyramid_is_said():
    images = keras.Input((64, 64, 3))
    swin = swins.SwinTransformer(**SMALL)
    for source in (swin, "swin_tiny", keras.Model(images, images), keras.Sequential([layers.Dense(2)])):
        with pytest.raises(SwinsError, match="an SSD stands on a functional Keras model of images"):
            SSD(source)
    with pytest.raises(SwinsError, match="an SSD is of one image size"):
        SSD(swins.backbone(swins.SwinTransformer(**{**SMALL, "image_size": (None, None)})))
    with pytest.raises(SwinsError, match=r"a map of a pyramid is \(B, H, W, C\) of known sizes; P3 is"):
        SSD(keras.Model(images, {"P3": layers.GlobalAveragePooling2D()(images)}))
    with pytest.raises(SwinsError, match="patch expanding halves the channels"):
        SSD(own_pyramid([(4, 4)], channels=3), expand=True)


def test_images_of_another_size_are_refused():
    model = small()
    with pytest.raises(SwinsError, match=r"takes images of the 64x64 pixels it was built for.*got 32x32"):
        model(pictures(32))
