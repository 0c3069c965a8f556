"""What was done to layers after they were made: every copy of a model has it, or says that it cannot."""

import gc

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy
from test_models import moved

import swins
from swins.changes import NUMBERS, copy, values, variables, walk
from swins.weights import swin_rules

SMALL = {
    "image_size": 32,
    "patch_size": 2,
    "embed_dim": 16,
    "depths": (2, 1),
    "num_heads": (2, 4),
    "window_size": 4,
    "num_classes": 5,
}
TINY = {**SMALL, "image_size": 8, "embed_dim": 8, "depths": (1,), "num_heads": (1,), "window_size": 2}  # int8 is slow
FAMILIES = (swins.SwinTransformer, swins.SwinTransformerV2, swins.SwinTransformerV2CR)
quiet = pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")


@pytest.fixture(autouse=True)
def little_garbage():
    """Keras collects garbage for each layer that it quantizes, half a second each."""
    gc.freeze()
    yield
    gc.unfreeze()


def saved(model, tmp_path):
    model.save(tmp_path / "model.keras")
    return keras.saving.load_model(tmp_path / "model.keras")


def copies(model, tmp_path):
    """Every way to another model that has the same classes, by name."""
    return {
        "config": type(model).from_config(model.get_config()),
        "clone": keras.models.clone_model(model),
        "copy": copy(model),
        "resize": swins.resize(model, image_size=64, window_size=8),
        "same size": swins.resize(model),
        "classes": swins.select_classes(model, range(model.variant.num_classes)),
        "file": saved(model, tmp_path),
    }


def trained(model):
    """Paths of what trains."""
    flags = {id(v) for v in model.trainable_variables}
    return {path for path, v in variables(model).items() if id(v) in flags}


def adapt(model, rng, *paths, rank=2):
    """Give layers adapters that do something."""
    layers = dict(walk(model))
    for path in paths:
        layers[path].enable_lora(rank, lora_alpha=3)
        factor = layers[path].lora_kernel_b
        factor.assign(rng.normal(0, 0.3, factor.shape))


FREEZES = {
    "mlp": lambda block: setattr(block.mlp, "trainable", False),
    "projection": lambda block: setattr(block.attn.qkv, "trainable", False),
    "norm": lambda block: setattr(block.norm2, "trainable", False),
    "variable": lambda block: setattr(block.mlp.fc1.bias, "trainable", False),
    "block": lambda block: setattr(block, "trainable", False),
    "all but the mlp": lambda block: [setattr(block, "trainable", False), setattr(block.mlp, "trainable", True)],
    "all but a norm's scale": lambda block: [
        setattr(block, "trainable", False),
        setattr(block.norm1, "trainable", True),
        setattr(block.norm1.beta, "trainable", False),
    ],
}


@pytest.mark.slow
@pytest.mark.backends
@pytest.mark.parametrize("freeze", FREEZES.values(), ids=FREEZES)
def test_what_is_frozen_stays_so_in_every_copy(freeze, tmp_path):
    model = swins.SwinTransformer(**SMALL)
    whole = trained(model)
    freeze(model.get_layer("stages_0_blocks_1"))
    expected = trained(model)
    assert expected < whole
    for name, other in copies(model, tmp_path).items():
        assert trained(other) == expected, name
    pyramid = saved(swins.backbone(model), tmp_path)  # a model of the blocks, which is no Swin
    assert trained(pyramid) == {path for path in expected if not path.startswith(("norm/", "head/"))}


@pytest.mark.slow
def test_flags_of_layers_stay_too(tmp_path):
    model = swins.SwinTransformer(**SMALL)
    model.get_layer("stages_0_blocks_1").mlp.trainable = False
    model.get_layer("patch_embed").trainable = False
    for name, other in copies(model, tmp_path).items():
        flags = {path: layer.trainable for path, layer in walk(other)}
        assert flags == {path: layer.trainable for path, layer in walk(model)}, name
    assert model.get_config()["frozen"] == ["patch_embed", "stages_0_blocks_1/mlp"]
    assert trained(swins.SwinTransformer(**SMALL, frozen=("patch_embed", "stages_0_blocks_1/mlp"))) == trained(model)
    model.trainable = False
    assert not swins.resize(model).trainable and not swins.resize(model).trainable_variables
    with pytest.raises(swins.SwinsError, match=r"unknown layer 'stages_0_blocks_1/mpl': .*stages_0_blocks_1/mlp"):
        swins.SwinTransformer(**SMALL, frozen=("stages_0_blocks_1/mpl",))


def test_a_model_that_nothing_was_done_to_has_no_changes():
    for family in FAMILIES:
        config = family(**SMALL).get_config()
        assert config["frozen"] == [] and "changed" not in config


@pytest.mark.slow
@pytest.mark.backends
def test_numbers_that_were_set_later_stay_in_every_copy(tmp_path):
    model = swins.SwinTransformerV2CR(**SMALL, drop_rate=0.2, drop_path_rate=0.3)
    model.get_layer("head_drop").rate = 0.5
    block = model.get_layer("stages_0_blocks_1")
    block.attn.meta_drop.rate, block.drop_path2.rate, block.norm1.epsilon = 0.0, 0.0, 1e-3
    wanted = {path: [getattr(layer, n, None) for n in NUMBERS] for path, layer in walk(model)}
    for name, other in copies(model, tmp_path).items():
        assert {path: [getattr(layer, n, None) for n in NUMBERS] for path, layer in walk(other)} == wanted, name
    with pytest.raises(swins.SwinsError, match=r"the papers' epsilon; got others in stages_0_blocks_1/norm1"):
        swins.deploy(model)


@pytest.mark.slow
def test_a_layer_kept_in_float32_stays_so(rng, tmp_path):
    model = swins.SwinTransformer(**SMALL, dtype="mixed_bfloat16")
    model.get_layer("norm").dtype_policy = "float32"
    model.get_layer("stages_0_blocks_1").mlp.fc2.dtype_policy = "float32"
    images = rng.normal(size=(2, 32, 32, 3)).astype("float32")
    for name, other in {"copy": copy(model), "file": saved(model, tmp_path)}.items():
        assert other.get_layer("stages_0_blocks_1").mlp.fc2.dtype_policy.name == "float32", name
        np.testing.assert_array_equal(other(images), model(images), err_msg=name)
    with pytest.raises(swins.SwinsError, match=r"one dtype .*for dtypes pass dtype="):
        swins.deploy(model)
    assert swins.deploy(model, dtype="float32")


@pytest.mark.slow
@pytest.mark.backends
@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_are_merged(family, rng, tmp_path):
    model = moved(family(**SMALL))
    images = rng.normal(size=(2, 32, 32, 3)).astype("float32")
    before = to_numpy(model(images))
    adapt(model, rng, "patch_embed/proj", "stages_0_blocks_1/attn/qkv", "stages_1_blocks_0/mlp/fc1", "head")
    logits = to_numpy(model(images))
    assert np.abs(logits - before).max() > 0.05 * np.abs(logits).max()
    others = copies(model, tmp_path)
    del others["config"], others["clone"], others["resize"]  # have no weights, or another size
    torch = family(**SMALL)
    swin_rules.assign(torch, swin_rules.state_dict(model))
    others |= {"deploy": swins.deploy(model), "deployed file": saved(swins.deploy(model), tmp_path), "torch": torch}
    for name, other in others.items():
        limit = 2e-5 if "deploy" in name else 1e-6
        np.testing.assert_allclose(
            to_numpy(other(images)), logits, rtol=0, atol=limit * np.abs(logits).max(), err_msg=name
        )
    assert "head/kernel" in trained(swins.resize(model))  # which Keras froze for the adapter


@pytest.mark.slow
@quiet
@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
def test_quantized_models_are_carried_to_the_bit(mode, rng, tmp_path):
    model = moved(swins.SwinTransformer(**TINY))
    model.quantize(mode)
    images = rng.normal(size=(1, 8, 8, 3)).astype("float32")
    logits = np.asarray(model(images))
    np.testing.assert_array_equal(saved(model, tmp_path)(images), logits)
    arrays, pyramid = values(model), saved(swins.backbone(model), tmp_path)
    for other in (copy(model), swins.resize(model), swins.resize(model, image_size=16, window_size=4), pyramid):
        assert {layer.quantization_mode for _, layer in walk(other)} == {None, mode}
        for path, array in values(other).items():
            if "bias_table" not in path or other.input.shape[1] == 8:
                np.testing.assert_array_equal(array, arrays[path], err_msg=path)
    for purpose in (lambda: swin_rules.state_dict(model), lambda: swins.deploy(model)):
        with pytest.raises(swins.SwinsError, match=f"before it is quantized; got {mode} in stages_0_blocks_0/attn/qkv"):
            purpose()
    if mode == "int8":
        np.testing.assert_array_equal(swins.select_classes(model, [4, 1])(images), logits[:, [4, 1]])
    else:
        with pytest.raises(swins.SwinsError, match=f"or int8; got {mode}; select classes, then quantize"):
            swins.select_classes(model, [4, 1])


@quiet
def test_parts_quantized_in_their_own_way_stay_so(rng, tmp_path):
    model = moved(swins.SwinTransformerV2(**TINY))
    mlp = model.get_layer("stages_0_blocks_0").mlp
    model.quantize(config=keras.quantizers.Int4QuantizationConfig(block_size=8), filters=lambda layer: layer is mlp.fc1)
    model.quantize("int8", filters=lambda layer: layer is mlp.fc2)
    images = rng.normal(size=(1, 8, 8, 3)).astype("float32")
    for name, other in {"copy": copy(model), "file": saved(model, tmp_path)}.items():
        np.testing.assert_array_equal(other(images), model(images), err_msg=name)
        modes = [layer.quantization_mode for _, layer in walk(other)]
        assert sorted(filter(None, modes)) == ["int4", "int8"], name


@quiet
def test_what_no_copy_can_have_is_refused(rng, tmp_path):
    model = swins.SwinTransformer(**SMALL)
    model.quantize("int8", filters="fc1")
    adapt(model, rng, "stages_0_blocks_1/mlp/fc1")
    both = r"quantized layer with a low-rank adapter cannot .*got (stages_0_blocks_1/)?mlp/fc1 \(1 in all\); adapt and"
    replaced = swins.SwinTransformer(**SMALL)
    mlp = replaced.get_layer("stages_1_blocks_0").mlp
    mlp._tracker.unlock()
    mlp.fc1 = keras.Sequential([mlp.fc1], name="fc1")
    for wrong, said in ((model, both), (replaced, r"put in place .*got (stages_1_blocks_0/)?mlp/fc1 .*own back")):
        for purpose in (swins.resize, copy, swins.backbone(wrong).get_config, lambda m: m.save(tmp_path / "m.keras")):
            with pytest.raises(swins.SwinsError, match=said):
                purpose(*[wrong][: purpose.__name__ != "get_config"])
    assert not list(tmp_path.iterdir())


@keras.saving.register_keras_serializable("test_changes")
class WithCount(swins.SwinTransformer):
    """A class of one's own, with a layer more."""

    def __init__(self, **options):
        super().__init__(**options)
        self.count = keras.layers.Dense(3, name="count")
        self.count.build((None, 4))


def test_layers_that_a_derived_class_attaches_are_its_own(rng):
    model = WithCount(**SMALL)
    model.count.kernel.assign(rng.normal(size=(4, 3)))
    model.get_layer("stages_0_blocks_1").mlp.trainable = False
    for other in (swins.resize(model), copy(model)):
        np.testing.assert_array_equal(other.count.kernel, model.count.kernel)
        assert trained(other) == trained(model)
    assert model.get_config()["frozen"] == ["stages_0_blocks_1/mlp"]
