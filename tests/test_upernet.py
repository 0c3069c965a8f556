"""UPerNet beside transformers and mmsegmentation, on pyramids of every kind, and what it does with bad input."""

import json
import subprocess
import sys
from functools import partial

import keras
import numpy as np
import pytest
import upernet_cases
from keras import ops
from test_models import moved
from training import one_program
from upernet_cases import NAME, REFERENCE

import swins
from swins.changes import assign, copy, values
from swins.errors import SwinsError
from swins.segmentation import pyramid_pooling, sliding
from swins.segmentation.segmentation_loss import pixel_cross_entropy, segmentation_losses
from swins.segmentation.upernet import UPerNet
from swins.segmenter_configs import SEGMENTERS

SIZES = ((64, 96), (90, 75))  # pixels: the second is tiled by no windows and no pooled parts
SHOWN = ((512, 512), (256, 384), (288, 250), (224, 224), (192, 320))
TORCH_SIZES = [(1, 1), (2, 5), (3, 3), (7, 4), (13, 6), (16, 16)]
STEPS = ("psp", "fused", "logits", "auxiliary", "P2", "P3", "P4", "P5")


@pytest.fixture(scope="module", autouse=True)
def small_variants():
    yield from upernet_cases.registered()


def reference(folder, sizes, *options):
    """What transformers' UPerNet computes, {name: array}; its files are in the folder."""
    command = [sys.executable, upernet_cases.SCRIPT, folder, json.dumps(sizes), *options]
    subprocess.run(command, check=True, capture_output=True)
    with np.load(folder / "outputs.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("upernets")


@pytest.fixture(scope="module")
def theirs(folder):
    return reference(folder, SIZES)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A network with the weights of mmsegmentation's; tests must not change it."""
    file = upernet_cases.write(upernet_cases.raw_state(), tmp_path_factory.mktemp("mmseg") / "upernet.safetensors")
    return swins.create(NAME, weights=file)


def relative(ours, theirs):
    """The largest difference over the reference's largest value."""
    ours = ops.convert_to_numpy(ours)
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def number(value):
    """A scalar of any backend."""
    return float(ops.convert_to_numpy(value))


def both_outputs(model, images):
    """Logits and auxiliary logits, as at inference."""
    both = keras.Model(model.input, model.output)
    return one_program(lambda images: both(images, training=False))(images)


def steps(model, images):
    """{name: array} of what transformers' script keeps."""
    middle = {"psp": model.get_layer("bottleneck").output, "fused": model.get_layer("fpn_bottleneck").output}
    return {**keras.Model(model.input, {**middle, **model.output})(images), **model.backbone(images)}


def test_parts_are_pooled_as_pytorch_does(rng):
    """Beside a plain mean of each part; torch itself is asked in `test_steps_are_those_of_transformers`."""
    for size in TORCH_SIZES:
        x = rng.standard_normal((2, *size, 3), dtype="float32")
        for parts in (1, 2, 3, 6):
            ours = ops.convert_to_numpy(pyramid_pooling.average_pool(x, parts))
            cuts = [[(o * n // parts, -(-(o + 1) * n // parts)) for o in range(parts)] for n in size]
            wanted = [[x[:, a:b, c:d].mean((1, 2)) for c, d in cuts[1]] for a, b in cuts[0]]
            np.testing.assert_allclose(ours, np.array(wanted).transpose(2, 0, 1, 3), atol=1e-6)
    assert ops.convert_to_numpy(pyramid_pooling.pooling_matrix(5, 3) > 0).astype(int).tolist() == [
        [1, 1, 0, 0, 0],
        [0, 1, 1, 1, 0],
        [0, 0, 0, 1, 1],
    ]


@pytest.mark.slow
def test_steps_are_those_of_transformers(theirs, folder):
    """Maps, pooled and fused map, logits of both heads, pixels and loss, from a file and from memory."""
    saved, memory = (swins.create(NAME, weights=folder / file) for file in ("saved", "memory.pth"))
    for path, value in values(saved).items():
        np.testing.assert_array_equal(values(memory)[path], value)
    for size in SIZES:
        begin = "x".join(map(str, size))
        image, mask = theirs[f"{begin}/image"], theirs[f"{begin}/mask"]
        ours = steps(saved, image)
        for name in STEPS:
            assert relative(ours[name], theirs[f"{begin}/{name}"]) <= 1e-5, name
        assert relative(sliding.whole(saved, image), theirs[f"{begin}/pixels"]) <= 1e-5
        losses = segmentation_losses({name: ours[name] for name in ("logits", "auxiliary")}, mask)
        assert sum(map(number, losses.values())) == pytest.approx(float(theirs[f"{begin}/loss"]), rel=1e-5)


@pytest.mark.slow
def test_a_whole_swin_t_is_that_of_transformers(tmp_path):
    found = reference(tmp_path, SHOWN, "tiny")
    tiny = swins.create("upernet_swin_tiny", weights=tmp_path / "memory.pth")
    for size in SHOWN:
        begin = "x".join(map(str, size))
        ours = steps(tiny, found[f"{begin}/image"])
        for name in STEPS:
            assert relative(ours[name], found[f"{begin}/{name}"]) <= 1e-5, (size, name)


def losses_of(mean, outputs, mask):
    """The losses over a part of the pixels, and that with class weights."""
    weighted = pixel_cross_entropy(outputs["logits"], mask, class_weights=REFERENCE.CLASS_WEIGHTS, mean=mean)
    return {**segmentation_losses(outputs, mask, mean=mean), "weighted": weighted}


@pytest.mark.slow
@pytest.mark.backends
def test_logits_and_losses_are_those_of_mmsegmentation(model):
    """Over all pixels, as it does, over valid ones, and with class weights."""
    found = upernet_cases.expected()
    for size in REFERENCE.SIZES[1:]:
        mask, begin = REFERENCE.mask(size), "x".join(map(str, size))
        outputs = both_outputs(model, REFERENCE.image(size))
        for name in ("logits", "auxiliary"):
            assert relative(outputs[name], found[f"{begin}/{name}"]) <= 1e-5
        for mean in ("all", "valid"):
            losses = one_program(partial(losses_of, mean))(outputs, mask)
            names = {"segmentation": f"{mean}/decode", "auxiliary": f"{mean}/auxiliary", "weighted": "weighted"}
            for name, theirs in names.items():
                assert number(losses[name]) == pytest.approx(float(found[f"{begin}/{theirs}"]), rel=1e-5)


@pytest.mark.slow
def test_answers_are_those_of_mmsegmentation(model):
    """Whole, window by window, averaged over sizes and mirror images, at the originals' size."""
    found = upernet_cases.expected()
    inferences = {
        "whole": sliding.whole,
        "averaged": lambda *arguments: sliding.averaged(*arguments, ratios=REFERENCE.RATIOS),
        **{
            name: lambda network, images, size, window=window: sliding.slide(network, images, *window, size)
            for name, window in REFERENCE.WINDOWS.items()
        },
    }
    for size in REFERENCE.SIZES[:1]:
        image, begin = REFERENCE.image(size), "x".join(map(str, size))
        for name, inference in inferences.items():
            y = ops.convert_to_numpy(inference(model, image, REFERENCE.ORIGINAL))
            assert y.shape == (1, *REFERENCE.ORIGINAL, REFERENCE.CLASSES)
            apart = np.abs(REFERENCE.sampled(y) - found[f"{begin}/{name}"]).max()
            assert apart <= 1e-5 * found[f"{begin}/{name}_largest"], (name, apart)


@pytest.mark.slow
def test_a_window_that_covers_the_image_is_the_whole(model, rng):
    image = rng.standard_normal((1, 50, 66, 3), dtype="float32")
    whole = sliding.whole(model, image)
    np.testing.assert_array_equal(sliding.slide(model, image, (50, 66), (10, 10)), whole)
    np.testing.assert_array_equal(sliding.slide(model, image, 512, 340), whole)
    assert sliding.starts_of(10, 4, 4) == [0, 4, 6] and sliding.starts_of(8, 4, 4) == [0, 4]
    assert sliding.starts_of(3, 3, 2) == [0] and sliding.starts_of(9, 4, 3) == [0, 3, 5]
    for window, stride in (((40, 40), (50, 40)), (40, 0)):
        with pytest.raises(SwinsError, match="a stride must be from 1 to its window's side"):
            sliding.slide(model, image, window, stride)


def test_masks_without_a_valid_pixel_give_no_nan():
    logits = np.ones((2, 4, 4, 3), "float32")
    nothing = np.full((2, 16, 16), 255)
    for options in ({}, {"mean": "all"}, {"class_weights": (1, 2, 3)}):
        assert float(pixel_cross_entropy(logits, nothing, **options)) == 0
    assert float(pixel_cross_entropy(logits, np.zeros((2, 16, 16)), ignore_index=0)) == 0
    with pytest.raises(SwinsError, match="unknown mean 'none'"):
        pixel_cross_entropy(logits, nothing, mean="none")


@pytest.mark.slow
def test_totals_are_mmsegmentations():
    model = swins.create("upernet_swin_tiny")
    trained = {path: v for path, v in values(model).items() if "moving_" not in path}
    count = sum(v.size for v in trained.values())
    auxiliary = sum(v.size for path, v in trained.items() if path.startswith("auxiliary_"))
    assert (count, count - auxiliary) == (59_941_862, 59_018_064)
    assert model.backbone.output["P5"].shape == (None, None, None, 768) and model.image_size == (None, None)


def test_names_are_known():
    names = swins.list_variants("upernet_*")
    assert names[-1] == NAME and set(names) == set(SEGMENTERS) and not swins.list_variants("upernet*", pretrained=True)
    assert SEGMENTERS["upernet_swin_large_window12"].backbone == "swin_large_patch4_window12_384"
    with pytest.raises(SwinsError, match=f"{NAME} is a segmenter, on swin_pico; .* swins.create"):
        swins.backbone(NAME)
    with pytest.raises(SwinsError, match="weights of segmenters have no tags"):
        swins.register_variant("upernet_other", upernet_cases.ROW, {"ade": swins.tags.Weights()})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["swinv2", "resnet", pytest.param("own", marks=pytest.mark.backends)])
def test_it_stands_on_any_pyramid(kind, rng):
    if kind == "swinv2":
        small = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 4), "image_size": (None, None)}
        pyramid = swins.backbone(swins.VariantV2(**small, window_size=8, size_rule="open_mmlab"), norms=True)
    elif kind == "resnet":
        numbers = swins.VariantResNet(depths=(1, 1, 1, 1), width=4, image_size=(None, None))
        pyramid = swins.backbone(numbers)
    else:
        images = keras.Input((None, None, 3))
        fine = keras.layers.Conv2D(4, 4, 4, data_format="channels_last")(images)
        coarse = keras.layers.Conv2D(6, 2, 2, data_format="channels_last")(fine)
        pyramid = keras.Model(images, {"P2": fine, "P3": coarse})
    model = UPerNet(pyramid, num_classes=3, width=4, auxiliary=0 if kind == "own" else 4, bins=(1, 2))
    image = rng.standard_normal((2, 70, 100, 3), dtype="float32")
    outputs = model(image)
    side = (17, 25) if kind == "own" else (18, 25)
    assert {name: tuple(y.shape) for name, y in outputs.items()} == {"logits": (2, *side, 3)}
    assert set(model(image, training=True)) == ({"logits"} if kind == "own" else {"logits", "auxiliary"})
    assert model.levels == tuple(pyramid.output) and model.in_chans == 3


def test_one_map_alone_and_chosen_levels():
    pyramid = swins.backbone(upernet_cases.SWIN, image_size=64)
    one = UPerNet(pyramid, num_classes=2, width=4, levels=("P4",), auxiliary=4)
    assert set(one.backbone.output) == {"P4"} and one.output["auxiliary"].shape == (None, 4, 4, 2)
    two = UPerNet(pyramid, num_classes=2, width=4, levels=("P3", "P5"), auxiliary_level="P5", auxiliary=3)
    assert two.output["auxiliary"].shape == (None, 2, 2, 2) and two.output["logits"].shape == (None, 8, 8, 2)


def test_a_step_moves_every_weight_and_a_copy_has_them(model, rng, tmp_path):
    network = copy(model)
    image, mask = rng.standard_normal((2, 33, 47, 3), dtype="float32"), rng.integers(0, 5, (2, 33, 47))

    class Trained(keras.Model):
        def __init__(self):
            super().__init__()
            self.network = network

        def call(self, x, training=None):
            return self.network(x, training=training)

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return sum(segmentation_losses(y_pred, y).values())

    before, trained = values(network), Trained()
    trained.compile("sgd", run_eagerly=True, jit_compile=False)
    loss = trained.train_on_batch(image, mask)
    assert np.isfinite(loss)
    after = values(network)
    same = {path for path, value in before.items() if np.array_equal(value, after[path])}
    assert same <= {f"pyramid/norm{i}/beta" for i in range(3)}  # which a batch norm takes off again
    network.save(tmp_path / "upernet.keras")
    again = keras.saving.load_model(tmp_path / "upernet.keras")
    ours, theirs = (ops.convert_to_numpy(each(image)["logits"]) for each in (again, network))
    np.testing.assert_array_equal(ours, theirs)
    assert again.numbers == network.numbers and isinstance(again, UPerNet)


@pytest.mark.slow
@pytest.mark.backends
def test_bfloat16_and_one_graph_for_every_size(rng):
    images = keras.Input((None, None, 3))
    fine = keras.layers.Conv2D(4, 4, 4, data_format="channels_last")(images)
    pyramid = keras.Model(images, {"P2": fine, "P3": keras.layers.Conv2D(6, 2, 2, data_format="channels_last")(fine)})
    exact = moved(UPerNet(pyramid, num_classes=3, width=4, auxiliary=4))
    half = UPerNet(pyramid, num_classes=3, width=4, auxiliary=4, dtype="mixed_bfloat16")
    assign(half, values(exact))
    for size in ((20, 36), (61, 45), (8, 90)):
        image = rng.standard_normal((1, *size, 3), dtype="float32")
        wanted = ops.convert_to_numpy(exact(image)["logits"])
        assert relative(exact.predict_on_batch(image)["logits"], wanted) <= 1e-5  # in a graph of open sizes
        ours = ops.convert_to_numpy(half(image)["logits"])
        assert ours.dtype == "float32" and relative(ours, wanted) <= 0.1


def test_bad_input_is_said():
    pyramid = swins.backbone(upernet_cases.SWIN, image_size=64)
    cases = (
        ((swins.create("swin_pico"),), {}, "a UPerNet stands on a functional Keras model"),
        ((pyramid,), {"levels": ("P7",)}, "unknown level 'P7'"),
        ((pyramid,), {"auxiliary_level": "P1"}, "unknown auxiliary_level 'P1'"),
        ((pyramid,), {"bins": (0, 2)}, "each of the bins must be at least 1"),
        ((pyramid,), {"num_classes": 0}, "num_classes, width and each"),
        ((pyramid,), {"drop_rate": 1}, "drop_rate must be at least 0 and below 1"),
        ((pyramid,), {"widht": 3}, "unknown option of a UPerNet 'widht'"),
    )
    for arguments, options, words in cases:
        with pytest.raises(SwinsError, match=words):
            UPerNet(*arguments, **options)
    with pytest.raises(SwinsError, match="unknown option of a segmenter 'norms'"):
        swins.create(NAME, norms=False)


def test_the_small_one_is_small():
    """Float32 weights of less than 4 MB, for garments and background."""
    model = swins.create("upernet_swin_mini")
    assert 4 * model.count_params() < 4e6 and model.output["logits"].shape[-1] == 11
    assert model(np.zeros((1, 64, 64, 1), "float32"))["logits"].shape == (1, 32, 32, 11)
