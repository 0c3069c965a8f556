"""Parts and models of V2-CR against timm's, from arrays made by reference/make.py: no torch needed, any backend."""

import keras
import numpy as np
import pytest
from keras import ops
from test_models import moved
from test_v1 import EAGERLY, TOLERANCE, assign, relative
from test_v1 import load as load_arrays
from training import one_program

import swins
from swins import deformable, v2_cr
from swins.weights import swin_rules

BLOCKS = ("plain", "padded_shifted", "clipped")
MODELS = {
    "mini": ((32, 32), (2, 2), {}),
    "stages": ((48, 32), (2, 1), {"extra_norm": "stages"}),
    "period": ((32, 32), (3, 2), {"extra_norm_period": 2, "window_size": 4}),
}
BOTH = pytest.param({"remat": True, "query_chunk": 6}, marks=[pytest.mark.backends, pytest.mark.slow])
SMALL = {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "num_classes": 3}


def model_like(name, **options):
    size, depths, more = MODELS[name]
    numbers = {"image_size": size, "depths": depths, **more, **options}
    return swins.SwinTransformerV2CR(patch_size=2, embed_dim=16, num_heads=(2, 4), num_classes=7, **numbers)


@pytest.mark.core
@pytest.mark.backends
@pytest.mark.parametrize("name", BLOCKS)
def test_block_equals_timms(name):
    arrays, state = load_arrays(f"cr_block_{name}")
    window, shift = (tuple(map(int, arrays[key])) for key in ("window", "shift"))
    block = v2_cr.Block(num_heads=2, window_size=window, shift_size=shift, name="block")
    block.build(arrays["x"].shape)
    assign(block, state, swin_rules.K, swin_rules.CR_T, swin_rules.V2_CR)
    gathered = block.attn.coordinates[block.attn.relative_index.ravel()]
    np.testing.assert_allclose(gathered, arrays["coordinates"], atol=1e-6)
    assert relative(one_program(block)(arrays["x"]), arrays["y"]) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.backends
@pytest.mark.parametrize("name", ["mini", pytest.param("stages", marks=pytest.mark.core), "period"])
def test_model_equals_timms_and_is_saved(name, tmp_path):
    arrays, state = load_arrays(f"cr_model_{name}")
    model = model_like(name)
    swin_rules.assign(model, state)
    assert relative(one_program(model)(arrays["x"]), arrays["y"]) <= TOLERANCE
    for i, level in enumerate(one_program(swins.backbone(model))(arrays["x"]).values()):
        assert relative(level, arrays[f"P{i}"]) <= TOLERANCE
    back = swin_rules.state_dict(model)
    assert set(back) == set(state) and all(np.array_equal(back[k], state[k]) for k in back)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(arrays["x"], verbose=0), model.predict(arrays["x"], verbose=0))


def test_windows_follow_the_image_as_in_timm():
    for size, windows in ((224, (7, 7)), ((256, 384), (8, 12)), (16, (1, 1))):
        variant = swins.VariantV2CR(image_size=size)
        assert variant.windows == (windows,) * 4
    with pytest.raises(swins.SwinsError, match="window_size must be given where image_size is open"):
        swins.VariantV2CR(image_size=(None, None))


@pytest.mark.backends
def test_the_position_network_drops_in_training_only():
    model = moved(swins.SwinTransformerV2CR(**SMALL))
    x = np.random.default_rng(0).standard_normal((1, 32, 32, 3), dtype="float32")
    outputs = [ops.convert_to_numpy(model(x, training=training)) for training in (True, True, False, False)]
    assert np.abs(outputs[0] - outputs[1]).max() > 0
    np.testing.assert_array_equal(outputs[2], outputs[3])


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [6, *(pytest.param(chunk, marks=pytest.mark.slow) for chunk in (1, 16, 99))])
def test_attention_in_chunks_equals_attention_at_once(chunk):
    x = np.random.default_rng(1).standard_normal((2, 32, 32, 3), dtype="float32")
    for paper in (swins.SwinTransformer, swins.SwinTransformerV2, swins.SwinTransformerV2CR):
        numbers = {**SMALL, "window_size": 5}
        whole = moved(paper(**numbers))
        parts = paper(**numbers, query_chunk=chunk)
        parts.set_weights(whole.get_weights())
        assert relative(parts(x), ops.convert_to_numpy(whole(x))) <= 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"query_chunk": 6}, {"remat": True}, BOTH])
def test_chunks_and_remat_change_no_gradient(options):
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((2, 32, 32, 3), dtype="float32"), np.arange(2)
    for paper in (swins.SwinTransformer, swins.SwinTransformerV2):
        numbers = {**SMALL, "window_size": 5, "drop_path_rate": 0.0}
        models = [moved(paper(**numbers)), paper(**numbers, **options)]
        models[1].set_weights(models[0].get_weights())
        for model in models:
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile(keras.optimizers.SGD(0.1), loss, **(EAGERLY if len(options) == 1 else {}))
            model.train_on_batch(x, y)
        for ours, theirs in zip(models[0].weights, models[1].weights, strict=True):
            ours, theirs = ops.convert_to_numpy(ours), ops.convert_to_numpy(theirs)
            assert np.abs(ours - theirs).max() <= 1e-5 * max(1, np.abs(theirs).max())


@pytest.mark.slow
@pytest.mark.backends
def test_remat_with_drop_path_trains_and_is_saved(tmp_path):
    model = moved(swins.SwinTransformerV2CR(**SMALL, drop_path_rate=0.2, remat=True, query_chunk=7))
    x = np.random.default_rng(3).standard_normal((6, 32, 32, 3), dtype="float32")
    model.compile(keras.optimizers.AdamW(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.optimizer.build(model.trainable_variables)  # before tracing, which is then done once
    losses = [float(model.train_on_batch(x, np.arange(6) % 3)) for _ in range(30)]
    assert np.mean(losses[-3:]) < 0.7 * losses[0]
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.options == {"remat": True, "query_chunk": 7}
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))


@pytest.mark.core
@pytest.mark.backends
def test_sampling_by_hand():
    x = ops.reshape(ops.arange(6, dtype="float32"), (1, 2, 3, 1, 1))  # [[0, 1, 2], [3, 4, 5]]
    rows = np.array([0, 0.5, 1, 1, 0.25, 0], "float32").reshape(1, 2, 3, 1)
    columns = np.array([0, 0.5, 2, 1.5, 0, 2], "float32").reshape(1, 2, 3, 1)
    values = ops.convert_to_numpy(deformable.sample(x, ops.convert_to_tensor(rows), ops.convert_to_tensor(columns)))
    assert values.ravel().tolist() == [0, 2, 5, 4.5, 0.75, 2]


@pytest.mark.core
@pytest.mark.backends
def test_stretching_puts_corners_onto_corners():
    x = ops.reshape(ops.convert_to_tensor(np.float32([[0, 1, 2], [10, 11, 12]])), (1, 2, 3, 1))
    stretched = ops.convert_to_numpy(deformable.stretch(x, (3, 5)))[0, :, :, 0]
    np.testing.assert_allclose(stretched, np.add.outer([0, 5, 10], [0, 0.5, 1, 1.5, 2]), atol=1e-6)


@pytest.mark.slow
@pytest.mark.backends
def test_a_deformable_block_without_offsets_is_the_plain_block():
    plain = moved(swins.SwinTransformerV2CR(**SMALL))
    deforming = swins.SwinTransformerV2CR(**SMALL, deformable=(1,))
    paths = {w.path: w for w in plain.weights}
    for w in deforming.weights:
        if "offset_network" not in w.path and "seed" not in w.path:
            w.assign(paths[w.path])
    x = np.random.default_rng(4).standard_normal((2, 32, 32, 3), dtype="float32")
    assert relative(deforming(x), ops.convert_to_numpy(plain(x))) <= 1e-6
    maps = swins.attention_maps(deforming, x)
    assert maps["stage_1/block_0"].shape[-1] == maps["stage_1/block_0"].shape[-2]
    # with offsets it is another function, whose offsets learn
    moved(deforming)
    assert relative(deforming(x), ops.convert_to_numpy(plain(x))) > 1e-3
    deforming.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), **EAGERLY)
    before = {w.path: ops.convert_to_numpy(w) for w in deforming.trainable_weights}
    deforming.train_on_batch(x, np.arange(2))
    assert all(np.any(before[w.path] != ops.convert_to_numpy(w)) for w in deforming.trainable_weights)


@pytest.mark.core
@pytest.mark.backends
def test_offsets_move_the_map_and_stay_inside():
    block = deformable.Block(num_heads=2, window_size=(2, 2), shift_size=(0, 0))
    x = np.random.default_rng(5).standard_normal((1, 4, 5, 8), dtype="float32")
    block.build(x.shape)
    block.offset_2.bias.assign([9.0, 0.0, 0.0, -9.0])  # head 0 looks half a map to the right, head 1 half a map up
    moved_map = ops.convert_to_numpy(block.deform(ops.convert_to_tensor(x)))
    np.testing.assert_allclose(moved_map[..., :4], x[:, :, [2, 3, 4, 4, 4], :4], atol=1e-5)
    np.testing.assert_allclose(moved_map[:, 3, :, 4:], (x[:, 1, :, 4:] + x[:, 2, :, 4:]) / 2, atol=1e-5)


def test_numbers_that_make_no_model_name_the_rule():
    for numbers, text in (
        ({"extra_norm": "first"}, "unknown extra_norm 'first'.*last"),
        ({"deformable": (2,)}, r"deformable must list stages from 0 to 1; got \(2,\)"),
        ({"size_rule": "torchvisoin"}, "unknown size_rule 'torchvisoin'.*torchvision"),
    ):
        with pytest.raises(swins.SwinsError, match=text):
            swins.SwinTransformerV2CR(**{**SMALL, **numbers})
