"""Every dialect: a file of its library, or by torch under its names, computes in Keras what the library computes."""

import dataclasses

import keras
import numpy as np
import pytest

import swins
from swins.errors import SwinsError
from swins.models import SwinTransformer, SwinTransformerV2, SwinTransformerV2CR
from swins.weights import checkpoint_files, dialects, swin_rules
from swins.weights.conversion_table import Rule, Table, fill, norm

NUMBERS = {"image_size": 64, "embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4}
OPENMMLAB, HUGGING_FACE, DETECTOR = "mmdet, mmseg or mmpretrain", "Hugging Face", "microsoft detector or segmenter"
CASES = [  # file, whose output, class, classes, dialect, what was taken off
    ("torchvision_v1.safetensors", "torchvision_v1", SwinTransformer, 5, "torchvision", ()),
    ("torchvision_v2.safetensors", "torchvision_v2", SwinTransformerV2, 5, "torchvision", ()),
    ("hugging_face_v1.safetensors", "hugging_face_v1", SwinTransformer, 5, HUGGING_FACE, ()),
    ("hugging_face_v2.safetensors", "hugging_face_v2", SwinTransformerV2, 5, HUGGING_FACE, ()),
    ("hugging_face_v1_memory.safetensors", "hugging_face_v1", SwinTransformer, 5, HUGGING_FACE, ()),
    ("hugging_face_v2_memory.safetensors", "hugging_face_v2", SwinTransformerV2, 5, HUGGING_FACE, ()),
    ("hugging_face_v1_trunk.safetensors", "hugging_face_v1_trunk", SwinTransformer, 0, HUGGING_FACE, ()),
    ("hugging_face_v2_trunk.safetensors", "hugging_face_v2_trunk", SwinTransformerV2, 0, HUGGING_FACE, ()),
    ("hugging_face_v1_mim.safetensors", "hugging_face_v1_trunk", SwinTransformer, 0, HUGGING_FACE, ()),
    ("hugging_face_v2_mim.safetensors", "hugging_face_v2_trunk", SwinTransformerV2, 0, HUGGING_FACE, ()),
    ("simmim_v1.safetensors", "simmim_v1", SwinTransformer, 0, "SimMIM", ("encoder.",)),
    ("simmim_v2.safetensors", "simmim_v2", SwinTransformerV2, 0, "SimMIM", ("encoder.",)),
    ("microsoft_v2.pth", "microsoft_v2", SwinTransformerV2, 5, "microsoft or timm before 0.9", ("model",)),
    ("microsoft_detector.safetensors", "microsoft_detector", SwinTransformer, 0, DETECTOR, ("backbone.",)),
    ("mmpretrain_v1.safetensors", "mmpretrain_v1", SwinTransformer, 5, OPENMMLAB, ("backbone.",)),
    ("mmpretrain_v2.safetensors", "mmpretrain_v2", SwinTransformerV2, 5, OPENMMLAB, ("backbone.",)),
    ("mmdet.pth", "mmdet", SwinTransformer, 0, OPENMMLAB, ("state_dict", "backbone.")),
    ("mmdet_bare.safetensors", "mmdet", SwinTransformer, 0, OPENMMLAB, ()),
    ("timm_cr_old.safetensors", "timm_cr_old", SwinTransformerV2CR, 5, "timm V2-CR", ()),
    ("reich.pth", "reich", SwinTransformerV2CR, 5, "C. Reich", ("model", "model.")),
]
MORE = {"microsoft_v2.pth": {"pretrained_windows": 6}, "reich.pth": {"extra_norm": "none"}}


@pytest.fixture(scope="module")
def outputs(library):
    with np.load(library / "outputs.npz") as arrays:
        yield arrays


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "whose", "build", "classes", "dialect", "wrappers"), CASES, ids=[case[0] for case in CASES]
)
def test_keras_computes_what_the_library_computes(library, outputs, file, whose, build, classes, dialect, wrappers):
    found = checkpoint_files.read(library / file)
    assert (found.dialect, found.wrappers, found.num_classes) == (dialect, wrappers, classes)
    model = build(**NUMBERS, **MORE.get(file, {}), num_classes=classes)
    swin_rules.assign(model, found.state)
    ours, theirs = np.asarray(model(outputs["images"])), outputs[whose]
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 2e-5 * np.abs(theirs).max()


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("torchvision_v2.safetensors", {"relative_coords_table", "relative_position_index"}),
        ("hugging_face_v1_mim.safetensors", {"embeddings.mask_token", "decoder.0.weight", "decoder.0.bias"}),
        ("simmim_v2.safetensors", {"mask_token", "decoder.0.weight", "attn_mask", "relative_coords_table"}),
        ("mmdet.pth", {"norm0.weight", "norm0.bias", "rpn_head.rpn_conv.weight", "roi_head.bbox_head.fc_cls.bias"}),
        ("reich.pth", {"attention_mask", "relative_coordinates_log"}),
    ],
)
def test_what_is_left_out_is_listed(library, file, names):
    found = checkpoint_files.read(library / file)
    left_out = set(found.left_out) | {name.rpartition(".")[2] for name in found.left_out}
    assert names <= left_out
    assert not names & set(found.state)
    assert {**found.state, **found.left_out}.keys() == found.tensors.keys()


def test_every_tensor_of_a_detector_is_kept_for_another_table(library):
    """A table of its own takes the head and the norms of maps, and leaves the Swin to the Swin's."""
    found = checkpoint_files.read(library / "mmdet.pth")
    raw = checkpoint_files.read_content(library / "mmdet.pth")["state_dict"]
    assert len(found.tensors) == len(raw)
    heads = Table(
        (Rule("rpn", "rpn_head.rpn_conv.weight"), *norm("norm{s}", "norm{s}", over="maps")),
        {"maps": [{"s": 0}]},
        leaves_out=lambda name: name.startswith("roi_head.") or name in found.state,
    )
    shapes = {"rpn": (3,), "norm0/gamma": (24,), "norm0/beta": (24,)}
    variables = {path: keras.Variable(np.full(shape, 7.0)) for path, shape in shapes.items()}
    fill(variables, found.tensors, heads, "heads")
    assert np.asarray(variables["norm0/gamma"]).tolist() == [1.0] * 24
    with pytest.raises(SwinsError, match=r"roi_head\.bbox_head\.fc_cls\.bias .* not used"):
        fill(variables, found.tensors, dataclasses.replace(heads, leaves_out=found.state.__contains__), "heads")


def test_what_is_no_swins_keeps_its_name_and_nothing_is_copied():
    """A DETR's layers have names that the dialect's renames would fit."""
    blocks = "stages.0.blocks.0."
    state = {
        f"backbone.{blocks}attn.w_msa.relative_position_bias_table": np.zeros((9, 1), "float32"),
        f"backbone.{blocks}ffn.layers.0.0.weight": np.ones((4, 1), "float32"),
        "bbox_head.transformer.encoder.ffn.layers.0.0.weight": np.ones((2, 2), "float32"),
        "neck.convs.0.conv.weight": np.ones((2, 2, 1, 1), "float32"),
    }
    translation = dialects.to_timm(state)
    assert set(translation.tensors) == {
        "layers.0.blocks.0.attn.relative_position_bias_table",
        "layers.0.blocks.0.mlp.fc1.weight",
        "bbox_head.transformer.encoder.ffn.layers.0.0.weight",
        "neck.convs.0.conv.weight",
    }
    assert set(map(id, translation.tensors.values())) == set(map(id, state.values()))
    assert translation.dense and translation.size_rule == "open_mmlab"
    assert len(translation.original) == 2


def test_the_order_of_unfold_as_a_literal():
    """Two channels: unfold gives c0 (row, column) = 00 01 10 11, then c1; timm 00 of both, 10, 01, 11."""
    state = {"layers.1.downsample.reduction.weight": np.arange(8.0)[None], "layers.1.downsample.norm.bias": np.ones(4)}
    dialects.undo_unfold(state)
    assert state["layers.1.downsample.reduction.weight"].tolist() == [[0, 4, 2, 6, 1, 5, 3, 7]]
    assert state["layers.1.downsample.norm.bias"].tolist() == [1, 1, 1, 1]


def test_reordered_arrays_are_written_in_order(tmp_path):
    """safetensors writes memory as it lies, and numpy's reordered arrays lie otherwise."""
    value = np.arange(6.0).reshape(2, 3)[..., [2, 0, 1]]
    checkpoint_files.write({"a": value, "b": value.T}, tmp_path / "a.safetensors")
    read = checkpoint_files.read_safetensors(tmp_path / "a.safetensors")
    assert read["a"].tolist() == value.tolist() and read["b"].tolist() == value.T.tolist()


def test_tau_is_clamped_then_inverted():
    state = {"stages.0.blocks.0.attn.tau": np.array([[[[1.0]], [[0.001]]]], "float32")}
    dialects.scale_of_tau(state)
    assert state["stages.0.blocks.0.attn.logit_scale"] == pytest.approx([0.0, np.log(100)])


def block(stage="layers.0"):
    return {f"{stage}.blocks.0.attn.relative_position_bias_table": np.zeros((9, 1), "float32")}


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({**block(), **block("encoder.layers.0")}, "SimMIM's under 'encoder.' and timm's"),
        ({**block(), "features.1.0.attn.logit_scale": 0}, "timm's and torchvision's"),
        ({**block(), "head.weight": 0, "head.fc.weight": 0}, "two tensors of the file are both 'head.fc.weight'"),
        ({"conv1.weight": 0, "fc.bias": 0}, "this one has conv1.weight, fc.bias"),
        ({}, "this one has nothing"),
    ],
)
def test_what_is_not_one_swin_is_refused(state, words):
    with pytest.raises(SwinsError, match=words):
        dialects.to_timm(state)


def test_parts_that_cannot_be_joined_are_left_for_the_list_of_differences():
    """A query without its key, a bias that is no multiple of three: nothing is lost, nothing is guessed."""
    q = {f"layers.0.blocks.0.attn.{part}.weight": np.zeros((4, 4)) for part in "qv"}
    dialects.join_qkv(joined := dict(q))
    assert joined == q
    odd = {"a.attn.cpb_mlp.0.weight": np.zeros(2), "a.attn.qkv.bias": np.zeros(4)}
    dialects.split_bias(split := dict(odd))
    assert split == odd


def test_a_dense_backbone_whose_last_output_has_no_norm_says_so(library):
    found = checkpoint_files.read(library / "mmdet.pth")
    state = {name: value for name, value in found.state.items() if not name.startswith("norm.")}
    with pytest.raises(SwinsError, match=r"- norm/gamma \(48,\): no tensor norm.weight"):
        swin_rules.assign(SwinTransformer(**NUMBERS, num_classes=0), state)


def test_another_model_of_hugging_face_is_refused(library, command, tmp_path):
    code, _, err = command("convert", "--checkpoint", library / "vit.safetensors", "-o", tmp_path / "out")
    assert code == 1 and "windowed attention" in err and "classifier.bias" in err and "pass a file of a Swin" in err
    assert not list(tmp_path.iterdir())


def test_what_lies_beside_a_swin_under_timms_names_is_told(checkpoint, tmp_path):
    state = checkpoint_files.read(checkpoint).tensors
    state = {**state, "decoder.weight": np.ones((2, 2), "float32"), "norm0.weight": np.ones(48, "float32")}
    checkpoint_files.write(state, tmp_path / "more.safetensors")
    with pytest.warns(UserWarning, match="only its Swin was taken; left out decoder, norm0"):
        swins.create("swin_mini_patch2_window4_28", weights=tmp_path / "more.safetensors")
