"""UPerNet's weights: four layouts, there and back, what does not fit, named, and Swins inside other models."""

import json
import re

import numpy as np
import pytest
import upernet_cases
from test_models import moved
from upernet_cases import BACKBONE, LAYOUTS, NAME

import swins
from swins import segmenters
from swins.changes import values
from swins.convert import inspection, segmenter_certificate, to_torch, upernet_layouts
from swins.errors import SwinsError
from swins.labels import ade20k_names
from swins.weights import artefacts, checkpoint_files, upernet_rules
from swins.weights.detector_layouts import MICROSOFT, MMDET
from swins.weights.upernet_rules import HUGGING_FACE, SMP

NAMED = ("t-shirt", "bag", "coat", "dress", "boot")


@pytest.fixture(scope="module", autouse=True)
def small_variants():
    yield from upernet_cases.registered()


@pytest.fixture(scope="module")
def state():
    """As mmsegmentation has it."""
    return upernet_cases.raw_state()


@pytest.fixture(scope="module")
def file(state, tmp_path_factory):
    """A file of mmsegmentation's layout."""
    return upernet_cases.write(state, tmp_path_factory.mktemp("mmseg") / "upernet.safetensors")


@pytest.fixture(scope="module")
def model(file):
    """The segmenter of that file; tests must not change it."""
    return swins.create(NAME, weights=file)


def equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


@pytest.mark.slow
def test_layouts_there_and_back_are_the_same_to_the_bit(state, model, tmp_path):
    """One set of weights through all four."""
    equal(upernet_cases.in_layout(model, MMDET), state)
    network = model
    for layout in (MICROSOFT, HUGGING_FACE, MMDET):
        path = upernet_cases.write(upernet_cases.in_layout(network, layout), tmp_path / f"{layout[:4]}.safetensors")
        assert checkpoint_files.read(path).dialect == layout
        network = swins.create(NAME, weights=path)
        equal(values(network), values(model))
    path = upernet_cases.write(upernet_cases.in_layout(model, SMP), tmp_path / "smp.safetensors")
    checkpoint = checkpoint_files.read(path)
    assert checkpoint.dialect == SMP and checkpoint.facts.numbers["size_rule"] == "timm"
    bare = values(swins.create(NAME, weights=path))
    equal(bare, {name: x for name, x in values(model).items() if not name.startswith("auxiliary_")})
    with pytest.warns(UserWarning, match=r"fresh are auxiliary_convs_0/conv, .*; train them"):
        helped = swins.create(NAME, weights=path, auxiliary=6, size_rule="open_mmlab")
    assert {**values(helped), **bare}.keys() == values(model).keys()


def test_names_in_each_layout(model):
    names = {layout: upernet_cases.in_layout(model, layout) for layout in LAYOUTS}
    assert "backbone.stages.0.downsample.norm.weight" in names[MMDET]
    assert "backbone.layers.0.blocks.0.attn.relative_position_index" in names[MICROSOFT]
    hugging_face = names[HUGGING_FACE]
    assert "backbone.encoder.layers.1.blocks.1.attention.self.key.bias" in hugging_face
    assert hugging_face["backbone.hidden_states_norms.stage4.weight"].shape == (64,)
    assert "decode_head.psp_modules.3.1.batch_norm.running_var" in hugging_face
    assert "auxiliary_head.classifier.weight" in hugging_face
    smp = names[SMP]
    assert smp["decoder.fpn_lateral_blocks.0.conv_norm_relu.0.weight"].shape == (8, 32, 1, 1)
    np.testing.assert_array_equal(
        smp["decoder.fpn_conv_blocks.2.1.weight"], names[MMDET]["decode_head.fpn_convs.0.bn.weight"]
    )
    assert "encoder.model.layers_1.downsample.reduction.weight" in smp and "segmentation_head.0.bias" in smp
    assert not any(name.startswith("auxiliary") for name in smp)
    for name in names[MMDET]:
        if name.startswith("decode_head.") and not name.endswith("num_batches_tracked"):
            assert upernet_rules.of_smp(upernet_rules.to_smp(name, 3), 3) == name


@pytest.mark.slow
def test_inspect_names_variant_classes_and_layout(file, model, command, tmp_path):
    code, out, err = command("inspect", file)
    assert code == 0, err
    assert f"dialect   {MMDET}" in out and "kind UPerNet, num classes 5, width 8" in out
    assert f"fits      {NAME}" in out and "loads     everything" in out and "embed dim 8" in out
    report = json.loads(command("inspect", file, "--json")[1])
    assert (report["kind"], report["auxiliary"], report["fits"]) == ("UPerNet", 6, [NAME])


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_key_removed_names_it(layout, model, tmp_path):
    """In the names of the table, in which errors are."""
    whole, path = upernet_cases.in_layout(model, layout), tmp_path / "removed.safetensors"
    network = model if layout != SMP else swins.create(NAME, auxiliary=0)
    needed = [name for name in whole if not name.endswith(("num_batches_tracked", "relative_position_index"))]
    missed = set()
    for name in needed[3::9] + [
        name for name in needed if "bottleneck" in name or "fusion" in name or "out_conv" in name
    ]:
        upernet_cases.write({n: x for n, x in whole.items() if n != name}, path)
        checkpoint = checkpoint_files.read(path)
        with pytest.raises(SwinsError, match="no tensor ") as raised:
            segmenters.assign(network, checkpoint, checkpoint.state)
        missed |= set(re.findall("no tensor (.*)", str(raised.value)))
        assert len(re.findall(r"^  [-+!] ", str(raised.value), re.MULTILINE)) <= 7  # of q, k and v the others are left
    assert {"decode_head.fpn_bottleneck.conv.weight", "decode_head.bottleneck.bn.bias"} <= missed


@pytest.mark.slow
def test_every_difference_is_named(state, tmp_path):
    cases = {
        "- lateral_convs_2/bn/beta (8,): no tensor decode_head.lateral_convs.2.bn.bias": {
            "decode_head.lateral_convs.2.bn.bias": None
        },
        "+ decode_head.extra.weight (2, 2): not used": {"decode_head.extra.weight": np.ones((2, 2), "float32")},
        "! bottleneck/bn/gamma (8,): decode_head.bottleneck.bn.weight gives (9,)": {
            "decode_head.bottleneck.bn.weight": np.ones(9, "float32")
        },
    }
    for words, tensors in cases.items():
        changed = {name: x for name, x in {**state, **tensors}.items() if x is not None}
        path = upernet_cases.write(changed, tmp_path / "changed.safetensors")
        with pytest.raises(SwinsError) as raised:
            swins.create(NAME, weights=path)
        assert words in str(raised.value)
        assert inspection.inspect(path)["problems"]


@pytest.mark.slow
def test_other_classes_leave_classifiers_fresh_and_both_numbers_are_named(file, model):
    with pytest.warns(UserWarning, match="has 5 classes, the model 3: fresh are .*conv_seg") as said:
        other = swins.create(NAME, weights=file, num_classes=3)
    assert [w.filename for w in said if w.category is UserWarning] == [__file__]
    before = values(model)
    for path, value in values(other).items():
        assert np.array_equal(value, before[path]) == (path.split("/")[-2] not in ("conv_seg", "auxiliary_conv_seg"))
    bare = values(swins.create(NAME, weights=file, auxiliary=0))
    equal(bare, {name: x for name, x in before.items() if not name.startswith("auxiliary_")})


@pytest.mark.slow
def test_a_keras_file_gives_its_weights(model, tmp_path):
    model.save(tmp_path / "own.keras")
    equal(values(swins.create(NAME, weights=tmp_path / "own.keras")), values(model))
    with pytest.warns(UserWarning, match="has 5 classes, the model 2: fresh are .*conv_seg"):
        swins.create(NAME, weights=tmp_path / "own.keras", num_classes=2)
    count, layout = to_torch.export_torch(tmp_path / "own.keras", tmp_path / "own.safetensors")
    assert layout == MICROSOFT and count == len(upernet_cases.in_layout(model, MICROSOFT))


def test_classes_come_with_the_file_or_are_ade20ks(state, model, tmp_path):
    heads = {"decode_head.conv_seg": 8, "auxiliary_head.conv_seg": 6}
    tensors = {}
    for head, width in heads.items():
        tensors |= {f"{head}.weight": np.ones((150, width, 1, 1), "float32"), f"{head}.bias": np.ones(150, "float32")}
    path = upernet_cases.write({**state, **tensors}, tmp_path / "ade20k.safetensors")
    assert checkpoint_files.read(path).facts.class_names == ade20k_names()
    assert ade20k_names()[:3] == ("wall", "building", "sky") and ade20k_names()[149] == "flag"
    upernet_cases.write(upernet_cases.in_layout(model, HUGGING_FACE), tmp_path / "model.safetensors")
    config = {"model_type": "upernet", "id2label": dict(enumerate(NAMED)), "pool_scales": [1, 2, 3, 6]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    checkpoint = checkpoint_files.read(tmp_path)
    assert checkpoint.facts.class_names == NAMED and checkpoint.facts.numbers["bins"] == (1, 2, 3, 6)


@pytest.mark.slow
def test_a_segmenters_file_still_gives_its_backbone(file, model):
    pyramid = swins.backbone(BACKBONE, weights=file, norms=True)
    inside = {p.removeprefix("pyramid/"): v for p, v in values(model).items() if p.startswith("pyramid/")}
    equal(inside, values(pyramid))
    with pytest.raises(SwinsError, match=f"this checkpoint fits {NAME}"):
        swins.create("upernet_swin_mini", weights=file, in_chans=3)


@pytest.mark.slow
def test_a_classifiers_file_fills_the_backbone_alone(tmp_path):
    swin = moved(swins.create(BACKBONE, num_classes=7))
    swin.save(tmp_path / "swin.keras")
    own = values(swins.create(NAME, weights=tmp_path / "swin.keras"))
    for path, value in values(swin).items():
        if not path.startswith(("norm/", "head/")):
            np.testing.assert_array_equal(own[f"pyramid/{path}"], value, err_msg=path)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_is_converted_certified_verified_and_written_back(layout, model, command, tmp_path):
    """Beside transformers for its own names, plain PyTorch for Open-MMLab's; back in the file's own layout."""
    whole = upernet_cases.in_layout(model, layout)
    file = upernet_cases.write(whole, tmp_path / "raw.safetensors")
    code, out, err = command("convert", "--checkpoint", file, "-o", tmp_path / "out")
    assert code == 0, err
    assert f"{NAME}: pass" in out and "it fits" in err + out
    proof = artefacts.read_certificate(tmp_path / "out")
    assert proof["worst_block"] <= 1e-5 and proof["agreement"]["pixels"] == 1
    assert proof["parameters"]["keras"] == proof["parameters"]["torch"]
    assert proof["compared_with"]["program"] == ("torch" if layout in (MMDET, MICROSOFT) else "transformers")
    assert (proof["verdict"] == "pass") == (layout != SMP)
    blocks = {"pyramid/patch_embed", "pyramid/stages_1_blocks_1", "pyramid/norm0", "psp_modules_3", "fpn_bottleneck"}
    assert blocks <= set(proof["blocks"]) and ("auxiliary_conv_seg" in proof["blocks"]) == (layout != SMP)
    count, name = to_torch.export_torch(tmp_path / "out", tmp_path / "back.safetensors")
    assert name == layout and count == len(whole)
    equal(checkpoint_files.read_content(tmp_path / "back.safetensors"), whole)
    for arguments in ((), ("--checkpoint", file)):
        code, out, err = command("verify", tmp_path / "out", *arguments)
        assert code == 0 and "pass" in out, err


@pytest.mark.slow
def test_a_certificate_tells_a_wrong_model(file):
    wrong = swins.create(NAME, weights=file)
    weight = wrong.get_layer("fpn_convs_1").bn.beta
    weight.assign_add(0.01 * np.ones(weight.shape, "float32"))
    result = segmenter_certificate.compare(wrong, file, MMDET)
    blocks = {name: each["relative"] for name, each in result["blocks"].items()}
    assert result["verdict"] == "fail" and blocks["fpn_convs_0"] <= 1e-5 < blocks["fpn_convs_1"]


def test_what_has_no_layout_is_said(model):
    resnet = swins.VariantResNet(depths=(1, 1, 1, 1), width=4, image_size=64)
    network = swins.UPerNet(swins.backbone(resnet, name="pyramid"), num_classes=2, width=4, auxiliary=4)
    with pytest.raises(SwinsError, match="Hugging Face has UPerNets on Swins of V1 and their norms"):
        upernet_cases.in_layout(network, HUGGING_FACE)
    names = upernet_cases.in_layout(network, upernet_layouts.LAYOUTS[2])
    assert "backbone.layer1.0.conv2.weight" in names and "decode_head.conv_seg.bias" in names
