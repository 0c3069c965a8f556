"""Weights of Mask R-CNN and Cascade Mask R-CNN: two layouts, there and back, and what does not fit, named."""

import json

import numpy as np
import pytest
import rcnn_cases
from PIL import Image
from rcnn_cases import NAMES
from shared_fixtures import script
from test_models import moved

import swins
from swins import detector_checkpoints
from swins.changes import values
from swins.convert import detector_certificate, inspection, to_torch
from swins.detection.mask_rcnn import MaskRCNN
from swins.errors import SwinsError
from swins.labels import coco_names
from swins.weights import artefacts, checkpoint_files, detector_layouts
from swins.weights.detector_layouts import MICROSOFT, MMDET

OTHER = {"mask": "cascade", "cascade": "mask"}
NAMED = ("t-shirt", "bag", "coat", "dress", "boot")
KINDS = {"mask": "Mask R-CNN", "cascade": "Cascade Mask R-CNN"}


@pytest.fixture(scope="module", autouse=True)
def small_variants():
    yield from rcnn_cases.registered()


@pytest.fixture(scope="module")
def states():
    """{kind: state dict as mmdet has it}."""
    reference = rcnn_cases.expected()
    return {kind: rcnn_cases.raw_state(kind, reference) for kind in NAMES}


@pytest.fixture(scope="module")
def files(states, tmp_path_factory):
    """{kind: file in layout M}."""
    folder = tmp_path_factory.mktemp("mmdet")
    paths = {}
    for kind, state in states.items():
        paths[kind] = folder / f"{kind}.safetensors"
        checkpoint_files.write(state, paths[kind])
    return paths


@pytest.fixture(scope="module")
def models(files):
    """{kind: the detector of its file}; tests must not change them."""
    return {kind: swins.create(NAMES[kind], weights=files[kind]) for kind in NAMES}


def changed(states, kind, path, **tensors):
    """A file like that of a kind, with other tensors; None removes one."""
    state = {**states[kind], **tensors}
    checkpoint_files.write({name: value for name, value in state.items() if value is not None}, path)
    return path


def equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("kind", NAMES)
def test_layouts_there_and_back_are_the_same_to_the_bit(states, models, kind, tmp_path):
    """M -> ours -> M, and M -> ours -> O -> ours."""
    model = models[kind]
    state = detector_checkpoints.state_dict(model)
    equal(detector_layouts.in_layout(state, MMDET), states[kind])
    microsoft = detector_layouts.in_layout(state, MICROSOFT)
    assert {"backbone.layers.0.downsample.norm.weight", "backbone.norm3.bias", "neck.fpn_convs.3.conv.bias"} <= set(
        microsoft
    )
    checkpoint_files.write(microsoft, tmp_path / "o.safetensors")
    assert checkpoint_files.read(tmp_path / "o.safetensors").dialect == MICROSOFT
    equal(values(swins.create(NAMES[kind], weights=tmp_path / "o.safetensors")), values(model))


@pytest.mark.slow
@pytest.mark.parametrize("kind", NAMES)
def test_inspect_names_variant_classes_and_layout(files, kind, command):
    code, out, err = command("inspect", files[kind])
    assert code == 0, err
    assert f"dialect   {MMDET}" in out and f"kind {KINDS[kind]}, num classes 5, mask classes 5" in out
    assert f"fits      {NAMES[kind]}" in out and "loads     everything" in out and "embed dim 8" in out
    code, out, _ = command("inspect", files[kind], "--json")
    report = json.loads(out)
    assert (report["kind"], report["num_classes"], report["fits"]) == (KINDS[kind], 5, [NAMES[kind]])


META = ({"CLASSES": NAMED}, {"dataset_meta": {"classes": list(NAMED), "palette": [(1, 2, 3)]}})


@pytest.mark.parametrize("meta", [*META, {"CLASSES": (1, 2)}, {"CLASSES": None, "epoch": 1}, None, "text"])
def test_classes_that_a_file_names(meta):
    found = script("swins/reference/pickled_files.py").class_names({"meta": meta})
    assert found == (list(NAMED) if meta in META else [])


@pytest.mark.slow
def test_classes_come_with_the_file(states, tmp_path):
    import torch

    state = {name: torch.from_numpy(np.array(x)) for name, x in states["mask"].items()}
    for meta in META:
        torch.save({"state_dict": state, "meta": {"epoch": 12, **meta}}, tmp_path / "named.pth")
        checkpoint = checkpoint_files.read(tmp_path / "named.pth")
        assert checkpoint.facts.class_names == NAMED and checkpoint.wrappers == ("state_dict", "backbone.")
    assert "boot" in inspection.text(inspection.inspect(tmp_path / "named.pth"))
    torch.save({"state_dict": state, "meta": {"CLASSES": NAMED[:3]}}, tmp_path / "three.pth")
    assert checkpoint_files.read(tmp_path / "three.pth").facts.class_names == ()


def test_eighty_classes_are_cocos(states, tmp_path):
    heads = {"fc_cls": 81, "fc_reg": 320}
    tensors = {}
    for layer, rows in heads.items():
        tensors |= {f"roi_head.bbox_head.{layer}.weight": np.ones((rows, 24), "float32")}
        tensors |= {f"roi_head.bbox_head.{layer}.bias": np.ones(rows, "float32")}
    tensors["roi_head.mask_head.conv_logits.weight"] = np.ones((80, 16, 1, 1), "float32")
    tensors["roi_head.mask_head.conv_logits.bias"] = np.ones(80, "float32")
    checkpoint = checkpoint_files.read(changed(states, "mask", tmp_path / "coco.safetensors", **tensors))
    assert checkpoint.facts.class_names == coco_names()
    assert coco_names()[:2] == ("person", "bicycle") and coco_names()[79] == "toothbrush"


@pytest.mark.slow
@pytest.mark.parametrize("kind", NAMES)
def test_another_kind_is_refused_with_both_names(files, models, kind, tmp_path):
    name, other = NAMES[OTHER[kind]], NAMES[kind]
    words = f"{name} is a {KINDS[OTHER[kind]]}, .* holds a {KINDS[kind]} .*name that variant: -m {other}"
    with pytest.raises(SwinsError, match=words):
        swins.create(name, weights=files[kind])
    models[kind].save(tmp_path / "own.keras")
    with pytest.raises(SwinsError, match=f"holds a {'Cascade' * (kind == 'cascade')}MaskRCNN, {other}; name that"):
        swins.create(name, weights=tmp_path / "own.keras")


@pytest.mark.slow
def test_other_classes_leave_heads_fresh_and_both_numbers_are_named(files, models, tmp_path):
    whole = models["mask"]
    with pytest.warns(
        UserWarning, match=r"has 5 classes, the model 3: fresh are bbox_head/fc_cls, .*conv_logits"
    ) as said:
        other = swins.create(NAMES["mask"], weights=files["mask"], num_classes=3)
    assert [w.filename for w in said if w.category is UserWarning] == [__file__]
    before = values(whole)
    for path, value in values(other).items():
        fresh = path.split("/")[-2] in ("fc_cls", "fc_reg", "conv_logits")
        assert np.array_equal(value, before[path]) == (not fresh), path
    whole.save(tmp_path / "own.keras")
    with pytest.warns(
        UserWarning, match="heads of other shapes are fresh: bbox_head/fc_cls, bbox_head/fc_reg, mask_head/"
    ):
        swins.create(NAMES["mask"], weights=tmp_path / "own.keras", num_classes=3)
    equal(values(swins.create(NAMES["mask"], weights=tmp_path / "own.keras")), before)


def test_masks_and_channels_may_be_left_out_of_a_file(files):
    model = swins.create(NAMES["mask"], weights=files["mask"], masks=False, in_chans=1)
    assert not model.mask_heads and model.in_chans == 1


def test_a_file_without_masks_fits_too(states, tmp_path):
    """A Faster R-CNN of mmdet."""
    masks = {name: None for name in states["mask"] if "mask_head" in name}
    file = changed(states, "mask", tmp_path / "boxes.safetensors", **masks)
    report = inspection.inspect(file)
    assert (report["kind"], report["fits"], report["problems"]) == ("Faster R-CNN", [NAMES["mask"]], [])
    assert not swins.create(NAMES["mask"], weights=file).mask_heads


@pytest.mark.slow
def test_every_difference_is_named(states, tmp_path):
    cases = {
        "- rpn_head/rpn_cls/bias (3,): no tensor rpn_head.rpn_cls.bias": {"rpn_head.rpn_cls.bias": None},
        "+ semantic_head.conv.weight (2, 2): not used": {"semantic_head.conv.weight": np.ones((2, 2), "float32")},
        "! neck/fpn_convs_0/bias (16,): neck.fpn_convs.0.conv.bias gives (17,)": {
            "neck.fpn_convs.0.conv.bias": np.ones(17, "float32")
        },
        "its box head has 5, its mask head 7": {
            "roi_head.mask_head.conv_logits.weight": np.ones((7, 16, 1, 1), "float32")
        },
    }
    for words, tensors in cases.items():
        file = changed(states, "mask", tmp_path / "m.safetensors", **tensors)
        assert words in "\n".join(inspection.inspect(file)["problems"])
    with pytest.raises(SwinsError, match="its box head has 5, its mask head 7"):
        swins.create(NAMES["mask"], weights=file)


@pytest.mark.slow
def test_a_detectors_file_still_gives_its_backbone(files, models):
    """To a classifier's trunk, and to a pyramid with its norms; and a detector on another backbone is not its own."""
    trunk = swins.create("swin_pico", weights=files["mask"])
    pyramid = swins.backbone("swin_pico", weights=files["mask"], norms=True)
    model = models["mask"]
    inside = {p.removeprefix("pyramid/"): v for p, v in values(model).items() if p.startswith("pyramid/")}
    equal(inside, values(pyramid))
    assert trunk.variant.size_rule == "open_mmlab"
    with pytest.raises(SwinsError, match=rf"this checkpoint fits {NAMES['mask']}; name that variant(.|\n)* differ"):
        swins.create("mask_rcnn_swin_mini_fpn", weights=files["mask"])


@pytest.mark.slow
def test_a_classifiers_file_fills_the_backbone_alone(tmp_path):
    swin = moved(swins.create("swin_pico", num_classes=7))
    swin.save(tmp_path / "swin.keras")
    own = values(swins.create(NAMES["mask"], weights=tmp_path / "swin.keras"))
    for path, value in values(swin).items():
        if not path.startswith(("norm/", "head/")):
            np.testing.assert_array_equal(own[f"pyramid/{path}"], value, err_msg=path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", NAMES)
def test_a_file_is_converted_certified_verified_and_written_back(states, files, kind, command, tmp_path):
    """Beside plain PyTorch, which loads the file strictly; back in the file's own layout."""
    folder = tmp_path / "out"
    code, out, err = command("convert", "--checkpoint", files[kind], "-o", folder)
    assert code == 0, err
    assert f"{NAMES[kind]}: pass" in out and "it fits" in err + out
    proof = artefacts.read_certificate(folder)
    assert proof["worst_block"] <= 1e-5 and proof["agreement"]["objects"] >= 0.99
    assert proof["parameters"]["keras"] == proof["parameters"]["torch"]
    assert {"map_0", "objectness_4", "deltas_2", "class_0", "box_0", "mask_0"} <= set(proof["blocks"])
    model = artefacts.read_model(folder)
    assert isinstance(model, MaskRCNN) and KINDS[kind] == model.KIND
    count, layout = to_torch.export_torch(folder, tmp_path / "back.safetensors")
    assert layout == MMDET and count == len(states[kind])
    equal(checkpoint_files.read_content(tmp_path / "back.safetensors"), states[kind])
    for arguments in ((), ("--checkpoint", files[kind])):
        code, out, err = command("verify", folder, *arguments)
        assert code == 0 and "pass" in out, err
    if kind == "mask":
        predicts_as_mmdet_prepares(command, folder, tmp_path)


def predicts_as_mmdet_prepares(command, folder, tmp_path):
    """An artefact of a file that names no classes: images as for mmdetection's published weights, numbers as names."""
    picture = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), "uint8")).save(picture)
    code, _, err = command("predict", picture, "-m", folder, "--threshold", 0, "--json", tmp_path / "found.json")
    assert code == 0, err
    found = json.loads((tmp_path / "found.json").read_text())
    assert found and all(thing["segmentation"]["size"] == [60, 90] for thing in found)


@pytest.mark.slow
def test_a_certificate_tells_a_wrong_model(files):
    model = swins.create(NAMES["mask"], weights=files["mask"])
    weight = model.neck.fpn_convs[2].bias
    weight.assign_add(0.01 * np.ones(weight.shape, "float32"))
    result = detector_certificate.compare(model, files["mask"])
    assert result["verdict"] == "fail" and result["blocks"]["map_0"]["relative"] <= 1e-5 < result["worst_block"]


@pytest.mark.slow
def test_what_has_no_layout_is_said(models, tmp_path):
    model = swins.create("ssd64_swin_mini_b")
    model.save(tmp_path / "ssd.keras")
    with pytest.raises(SwinsError, match="holds a SSD, whose weights no program has names for"):
        to_torch.export_torch(tmp_path / "ssd.keras", tmp_path / "ssd.safetensors")
    with pytest.raises(SwinsError, match="ssd64_swin_mini_b is converted from no file"):
        detector_certificate.converted("ssd64_swin_mini_b", None)
    with pytest.raises(SwinsError, match="written as microsoft detector or segmenter has them; got 'torchvision"):
        state = detector_checkpoints.state_dict(models["mask"])
        detector_layouts.in_layout(state, detector_layouts.RESNET)
