"""Size rules: each against the program that has it, and what a rule refuses, records and keeps."""

import csv

import keras
import numpy as np
import pytest
from shared_fixtures import script

import swins
from swins import windows
from swins.convert import conversion
from swins.model_configs import VARIANTS
from swins.plans import RULES, plan_stages, with_overrides
from swins.size_rules import SIZE_RULES
from swins.tags import PRETRAINED
from swins.weights import artefacts

rules_table = script("in1k_eval/size_rules.py")
NUMBERS = {"embed_dim": 8, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8)}
SIZES = ((224, 320), (200, 304), (160, 160), (226, 451))
ANY = (None, None)
SMALL = {"embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4, "patch_size": 2, "num_classes": 3}


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """A folder of small Swins as three programs save them, and what these programs give for each size."""
    folder = tmp_path_factory.mktemp("programs")
    return folder, rules_table.references(folder, NUMBERS, SIZES)


@pytest.mark.slow
@pytest.mark.parametrize("name", rules_table.MODELS)
def test_fixed_and_open_sizes_equal_the_program(programs, name):
    rows = rules_table.measure(name, *programs, NUMBERS)
    refused = {"timm_v1": 2, "hugging_face_v1": 1, "donut": 1}  # maps smaller than a window, or other tables
    sizes = 2 if name in ("upernet", "mask2former", "maskformer") else len(SIZES) - refused.get(name, 0)
    assert len(rows) == sizes
    for row in rows:
        assert float(row["fixed"]) <= 1e-5, row
        assert row["open"] == "" if row["size_rule"] == "timm" else float(row["open"]) <= 1e-5, row


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torchvision_v1", "hugging_face_v1", "hugging_face_v2", "backbone_v1"])
def test_another_rule_gives_other_numbers(programs, name, monkeypatch):
    """So that the comparison can fail."""
    folder, outputs = programs
    read = rules_table.checkpoint_files.read

    def with_another_rule(path):
        checkpoint = read(path)
        rule = {"torchvision": "open_mmlab", "open_mmlab": "torchvision"}.get(checkpoint.facts.numbers["size_rule"])
        checkpoint.facts.numbers["size_rule"] = rule or "torchvision"
        return checkpoint

    outputs = {key: y for key, y in outputs.items() if "226x451" not in key}  # whose remainder is dropped or padded
    monkeypatch.setattr(rules_table.checkpoint_files, "read", with_another_rule)
    monkeypatch.setitem(rules_table.MODELS, name, (*(rules_table.MODELS[name][0], {}), rules_table.MODELS[name][2]))
    assert max(float(row["fixed"]) for row in rules_table.measure(name, folder, outputs, NUMBERS)) > 1e-3


QUICK = ("backbone_v1.pth", "backbone_v2/model.safetensors", "donut_encoder.pth", "upernet.pth")  # in `make test`
BACKBONES = {  # file: (variant, size rule, what is left out, among others)
    "backbone_v1/model.safetensors": ("swin_stages_test", "open_mmlab", ["norm0", "unused_norm"]),
    "backbone_v1.pth": ("swin_stages_test", "open_mmlab", ["norm0", "unused_norm"]),
    "backbone_stem/model.safetensors": ("swin_stages_test", "open_mmlab", ["stem_norm", "unused_norm"]),
    "backbone_v2/model.safetensors": ("swinv2_stages_test", "huggingface", []),
    "donut/model.safetensors": ("swin_stages_test", "huggingface", []),
    "donut_encoder.pth": ("swin_stages_test", "huggingface", ["decoder"]),
    "upernet/model.safetensors": ("swin_stages_test", "open_mmlab", ["norm0", "decode_head", "auxiliary_head"]),
    "upernet.pth": ("swin_stages_test", "open_mmlab", ["norm0", "decode_head", "auxiliary_head"]),
    "mask2former.pth": ("swin_stages_test", "open_mmlab", ["norm0", "pixel_level_module", "transformer_module"]),
    "maskformer/model.safetensors": ("swin_stages_test", "open_mmlab", ["norm0", "pixel_level_module"]),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "file", [file if file in QUICK else pytest.param(file, marks=pytest.mark.slow) for file in BACKBONES]
)
def test_a_backbone_is_proven_by_its_program_where_it_sits(programs, file, monkeypatch, tmp_path):
    """With the size rule and the last norm that it has there."""
    name, rule, left_out = BACKBONES[file]
    for variant_name, variant in {
        "swin_stages_test": swins.Variant(**NUMBERS),
        "swinv2_stages_test": swins.VariantV2(**NUMBERS),
    }.items():
        monkeypatch.setitem(VARIANTS, variant_name, variant)
        monkeypatch.setitem(PRETRAINED, variant_name, ())
    folder, proof = conversion.convert(name, programs[0] / file, tmp_path / "out")
    assert (proof["verdict"], proof["size_rule"]) == ("pass", rule)
    assert proof["compared_with"]["program"] == "transformers"
    assert set(left_out) <= set(proof["source"]["left_out"])
    assert artefacts.load_model(folder).variant.num_classes == 0
    assert ("norm" in proof["blocks"]) == (rule == "open_mmlab")


def test_the_table_is_within_tolerance_at_every_size():
    with open(rules_table.TABLE, newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["model"] for row in rows} == set(rules_table.MODELS)
    sizes = {f"{h}x{w}" for h, w in rules_table.SIZES}
    assert {row["size"] for row in rows if row["model"] == "hugging_face_v2"} == sizes
    assert {row["size"] for row in rows if row["model"] == "hugging_face_v1"} == sizes - {"160x160", "192x192"}
    for row in rows:
        assert all(float(row[column]) <= 1e-5 for column in ("fixed", "open") if row[column])


def test_what_each_rule_does_with_a_shift():
    """A map of 7x14 tokens, windows of 7, a shift of 3."""
    shifts = {name: windows.shift_for(rule, (7, 14), (7, 7), (3, 3)) for name, rule in SIZE_RULES.items()}
    assert shifts == {
        "timm": (0, 3),
        "microsoft": (0, 0),
        "torchvision": (0, 3),
        "huggingface": (0, 0),
        "huggingface_v2": (3, 3),
        "mmpretrain": (0, 0),
        "open_mmlab": (3, 3),
    }
    assert {name: rule.masked for name, rule in SIZE_RULES.items() if rule.masked != -100} == {"huggingface_v2": -200.0}


@pytest.mark.parametrize(
    ("rule", "made_for", "plans"),
    [
        ("timm", 30, (((4, 4), (2, 2)), ((4, 4), (2, 2)))),
        ("timm", (30, 8), (((4, 4), (2, 0)), ((4, 2), (2, 0)))),
        ("torchvision", (30, 8), (((4, 4), (2, 0)), ((4, 4), (2, 0)))),
        ("huggingface", (30, 8), (((4, 4), (2, 2)), ((4, 4), (2, 2)))),  # by the height alone
        ("huggingface", (6, 30), (((3, 3), (0, 0)), ((1, 1), (0, 0)))),
        ("open_mmlab", (30, 8), (((4, 4), (2, 2)), ((4, 4), (2, 2)))),
    ],
)
def test_windows_and_shifts_of_a_model(rule, made_for, plans):
    numbers = {**SMALL, "image_size": (30, 8), "size_rule": rule}
    if rule == "huggingface":
        numbers["native_size"] = made_for
    variant = swins.VariantV2(**{**numbers, "image_size": (30, 8) if rule == "huggingface" else made_for})
    assert tuple((plan.window_size, plan.shift_size) for plan in plan_stages(variant)) == plans


def test_maps_smaller_than_a_window_are_refused_where_the_program_has_no_answer():
    for rule in ("huggingface", "mmpretrain"):
        with pytest.raises(swins.SwinsError, match=r"stage 1 has a map of \(3, 16\).*size_rule=\"torchvision\""):
            swins.SwinTransformer(**SMALL, image_size=(12, 64), size_rule=rule)
        model = swins.SwinTransformer(**SMALL, image_size=ANY, size_rule=rule)
        with pytest.raises(swins.SwinsError, match="no answer for maps smaller than a window"):
            model(np.zeros((1, 12, 64, 3), "float32"))


@pytest.mark.slow
def test_a_model_made_for_a_size_keeps_its_windows_at_others():
    """transformers' V2 decides windows and shifts when it is made; so does a model that was resized or opened."""
    model = swins.SwinTransformerV2(**SMALL, image_size=16, size_rule="huggingface")
    assert [b.shift_size for b in model.layers if hasattr(b, "attn")] == [(0, 0), (2, 2), (0, 0), (0, 0)]
    for size in (64, ANY):
        other = swins.resize(model, image_size=size)
        assert other.variant.native_size == (16, 16)
        assert [b.shift_size for b in other.layers if hasattr(b, "attn")] == [(0, 0), (2, 2), (0, 0), (0, 0)]
        assert swins.resize(other, size_rule="timm").variant.native_size == (0, 0)
    tight = swins.SwinTransformer(**SMALL, image_size=16, size_rule="mmpretrain")  # whose windows are kept, not clipped
    assert swins.resize(tight, image_size=ANY).variant.windows == ((4, 4), (4, 4))
    with pytest.raises(swins.SwinsError, match="native_size must be given"):
        plan_stages(swins.VariantV2(**SMALL, image_size=ANY, size_rule="huggingface"))
    with pytest.raises(swins.SwinsError, match="native_size is for size_rule huggingface"):
        swins.SwinTransformerV2(**SMALL, image_size=16, native_size=16)


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_rules_are_saved_and_exports_have_them(rule, tmp_path):
    model = swins.SwinTransformer(**SMALL, image_size=(20, 33), size_rule=rule)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert again.variant == model.variant and again.variant.size_rule == rule
    x = np.random.default_rng(0).standard_normal((1, 20, 33, 3), dtype="float32")
    ours = keras.ops.convert_to_numpy(model(x))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(again(x)), ours)
    fast = keras.ops.convert_to_numpy(swins.deploy(model)(x))
    assert np.abs(fast - ours).max() <= 1e-5 * np.abs(ours).max()


def test_files_of_before_have_their_rule_under_its_old_name():
    config = swins.SwinTransformer(**SMALL, image_size=32).get_config()
    del config["size_rule"]
    for order, rule in (("roll_then_pad", "timm"), ("pad_then_roll", "torchvision")):
        assert swins.SwinTransformer.from_config({**config, "pad_order": order}).variant.size_rule == rule
    variant = with_overrides(swins.Variant(), {"pad_order": "pad_then_roll"})
    assert variant.size_rule == "torchvision"
    block = swins.v1.Block(2, (4, 4), (0, 0), size_rule="torchvision", name="b")
    old = {k: v for k, v in block.get_config().items() if k != "size_rule"} | {"pad_order": "roll_then_pad"}
    assert swins.v1.Block.from_config(old).size_rule == "timm"
