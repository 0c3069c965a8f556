"""What a file is: `swins inspect`, conversion without a name, and errors that name the variant a file fits."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import swins
from swins import v2
from swins.convert import inspection
from swins.errors import SwinsError
from swins.model_configs import VARIANTS
from swins.weights import artefacts, checkpoint_files, dialects, identify, swin_rules

NAME = "swin_mini_patch2_window4_28"
SWIN_TINY = """
import sys, torch
from torchvision.models import swin_t
torch.manual_seed(0)
model = swin_t()
with torch.no_grad():
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * (0.2 if parameter.ndim == 1 else parameter[0].numel() ** -0.5))
torch.save(model.state_dict(), sys.argv[1])
"""


def file_of(variant, path, **changes):
    """A file under timm's names with a fresh model's weights; None removes a tensor."""
    model = swins.build.FAMILIES[type(variant)](**dataclasses.asdict(variant), name="made")
    state = {**swin_rules.state_dict(model), **changes}
    checkpoint_files.write({name: value for name, value in state.items() if value is not None}, path)
    return path


def checkpoint_of(state, left_out=()):
    return checkpoint_files.Checkpoint(pathlib.Path("a.pth"), {**state, **dict(left_out)}, "timm", ())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """torchvision's swin_t, whole."""
    path = tmp_path_factory.mktemp("tiny") / "swin_t.pth"
    subprocess.run([sys.executable, "-c", SWIN_TINY, str(path)], check=True)
    return path


@pytest.mark.slow
def test_a_file_of_torchvision_is_inspected_converted_without_a_name_and_verified(tiny, command, tmp_path):
    code, out, err = command("inspect", tiny)
    assert code == 0, err
    assert "dialect   torchvision" in out and "28,288,354 parameters" in out
    assert "12 relative_position_index" in out
    assert "embed dim 96, depths 2 2 6 2, num heads 3 6 12 24, windows 7 7 7 7, num classes 1000" in out
    assert "fits      swin_tiny_patch4_window7_224" in out and "loads     everything" in out
    code, out, err = command("convert", "--checkpoint", tiny, "-o", tmp_path / "out")
    assert code == 0, err
    assert "it fits swin_tiny_patch4_window7_224" in err and "(torchvision)" in out
    assert "compared with torchvision 0." in out and ": pass, 28,288,354 parameters" in out
    proof = artefacts.read_certificate(tmp_path / "out")
    assert proof["name"] == "swin_tiny_patch4_window7_224" and proof["verdict"] == "pass"
    assert proof["source"]["sha256"] == checkpoint_files.sha256(tiny) and proof["source"]["translated"]
    for arguments in ((), ("--checkpoint", tiny)):
        code, out, err = command("verify", tmp_path / "out", *arguments)
        assert code == 0 and "pass" in out, err


@pytest.mark.slow
def test_c_reichs_own_variant_is_converted_without_a_name(perturbed, command, tmp_path):
    """timm has no such architecture: its V2-CR is given his position network and end."""
    state = checkpoint_files.read_safetensors(perturbed("swin_transformer_v2_t", image_size=64))
    checkpoint_files.write(state, tmp_path / "reich.safetensors")
    code, out, err = command(
        "convert", "--checkpoint", tmp_path / "reich.safetensors", "--image-size", 64, "-o", tmp_path / "out"
    )
    assert code == 0, err
    assert "it fits swin_transformer_v2_t" in err and "pass" in out


@pytest.mark.parametrize(
    ("file", "family", "windows", "pretrained", "classes"),
    [
        ("torchvision_v1.safetensors", "V1", (4, 4), (None, None), 5),
        ("torchvision_v2.safetensors", "V2", (4, 4), (4, 4), 5),
        ("hugging_face_v1_memory.safetensors", "V1", (4, 4), (None, None), 5),
        ("hugging_face_v2_memory.safetensors", "V2", (None, None), (None, None), 5),
        ("microsoft_v2.pth", "V2", (4, 4), (6, 6), 5),
        ("microsoft_detector.safetensors", "V1", (4, 4), (None, None), 0),
        ("simmim_v2.safetensors", "V2", (4, 4), (4, 4), 0),
        ("mmpretrain_v1.safetensors", "V1", (4, 4), (None, None), 5),
        ("mmdet.pth", "V1", (4, 4), (None, None), 0),
        ("timm_cr_old.safetensors", "V2-CR", (None, None), (None, None), 5),
        ("reich.pth", "V2-CR", (4, None), (None, None), 5),
    ],
)
def test_numbers_are_read_from_every_dialect(library, file, family, windows, pretrained, classes):
    found = identify.identify(checkpoint_files.read(library / file))
    numbers = {"patch_size": 4, "in_chans": 3, "embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4)}
    several = {"family": family, "windows": windows, "pretrained_windows": pretrained, "num_classes": classes}
    assert found == identify.Identity(**numbers, **several)


@pytest.mark.parametrize("file", ["mmdet.pth", "reich.pth"])
def test_inspect_says_why_a_file_cannot_be_converted(library, command, file):
    code, out, _ = command("inspect", library / file)
    assert code == 1
    assert "loads     no\nfits no variant; the closest is swin" in out
    assert "embed dim 24, not " in out and "depths (2, 2), not (2, " in out


def coordinates(window, pretrained):
    """V2's table of coordinates, as files keep it."""
    table = v2.log_coordinates((window, window), (pretrained, pretrained))
    return table.reshape(1, 2 * window - 1, 2 * window - 1, 2)


def test_every_variant_is_told_from_the_others():
    """By names, and by shapes that stand for tables, scales and buffers; no model is built."""
    for name, variant in ((name, v) for name, v in VARIANTS.items() if isinstance(v, swins.Variant)):
        state = {name: np.zeros(1, "float32") for name in swin_rules.table_of(variant).torch_names}
        p = variant.patch_size
        state["patch_embed.proj.weight"] = np.zeros((variant.embed_dim, variant.in_chans, p, p), "float32")
        buffers = {}
        for plan in swins.plan_stages(variant):
            m = plan.window_size[0]
            stage = "stages" if isinstance(variant, swins.VariantV2CR) else "layers"
            attention = f"{stage}.{plan.index}.blocks.0.attn."
            if f"{attention}logit_scale" in state:
                state[f"{attention}logit_scale"] = np.zeros(plan.num_heads)
                buffers[f"{attention}relative_position_index"] = np.zeros((m * m, m * m), "int8")
            else:
                state[f"{attention}relative_position_bias_table"] = np.zeros(((2 * m - 1) ** 2, plan.num_heads))
            if isinstance(variant, swins.VariantV2):
                pretrained = variant.pretrained[plan.index][0] or m
                buffers[f"{attention}relative_coords_table"] = coordinates(m, pretrained)
        assert identify.fitting(checkpoint_of(state, buffers)) == [name]


@pytest.mark.slow
def test_v2_is_told_apart_by_its_buffers_and_ambiguous_without(command, tmp_path):
    variant = VARIANTS["swinv2_tiny_window8_256"]
    file = file_of(variant, tmp_path / "v2.safetensors")
    found = checkpoint_files.read(file)
    several = ["swinv2_tiny_window8_256", "swinv2_tiny_window16_256"]
    assert identify.fitting(found) == several
    code, _, err = command("convert", "--checkpoint", file, "-o", tmp_path / "out")
    assert code == 1 and f"this one fits {', '.join(several)}, which differ in what it does not hold" in err
    assert not (tmp_path / "out").exists()
    index = {"layers.0.blocks.0.attn.relative_position_index": np.zeros((256, 256))}
    assert identify.fitting(checkpoint_of(found.state, index)) == several[1:]


def test_absurd_names_and_shapes_tell_nothing():
    digits = "9" * 5000
    state = {f"layers.{digits}.blocks.0.attn.relative_position_bias_table": np.zeros((9, 1))}
    for part in ("qkv.weight", "relative_coords_table", "attn_mask", "logit_scale", "relative_position_index"):
        state[f"layers.0.blocks.0.attn.{part}"] = np.zeros((1, 7, 7, 0))
    state["layers.0.downsample.reduction.weight"] = state[f"layers.{digits}.downsample.norm.weight"] = np.zeros(())
    kept = dialects.to_timm(state).tensors
    assert identify.identify(checkpoint_of(kept)).depths == (1,)
    assert identify.fitting(checkpoint_of(kept)) == []


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -1.0])
def test_strange_buffers_tell_nothing(value):
    table = np.full((1, 7, 7, 2), value)
    state = {
        "layers.0.blocks.0.attn.cpb_mlp.0.bias": np.zeros(512),
        "layers.0.blocks.0.attn.logit_scale": np.float32(1),
    }
    found = identify.identify(checkpoint_of(state, {"layers.0.blocks.0.attn.relative_coords_table": table}))
    assert (found.windows, found.pretrained_windows, found.num_heads) == ((4,), (None,), (None,))


def test_inspect_lists_what_would_not_load(command, tmp_path, checkpoint):
    state = checkpoint_files.read(checkpoint).state
    state["extra.w"] = np.zeros(3, "float32")
    state["norm.weight"] = np.full_like(state["norm.weight"], np.nan)
    del state["layers.1.blocks.0.mlp.fc1.bias"]
    checkpoint_files.write(state, tmp_path / "wrong.safetensors")
    code, out, _ = command("inspect", tmp_path / "wrong.safetensors")
    assert code == 1 and f"fits      {NAME}" in out
    for line in (
        "- stages_1_blocks_0/mlp/fc1/bias (384,): no tensor layers.1.blocks.0.mlp.fc1.bias",
        "! norm/gamma: norm.weight has 96 values NaN or infinite",
        "+ extra.w (3,): not used by the model",
    ):
        assert line in out


@pytest.mark.slow
def test_inspect_as_json_of_an_artefact(converted, command):
    for path in (converted, converted / "model.keras"):
        code, out, err = command("inspect", path, "--json")
        assert code == 0, err
        found = json.loads(out)
        assert (found["dialect"], found["fits"], found["problems"]) == ("keras", [NAME], [])
        assert found["parameters"] == 525_688 and found["num_classes"] == 10


def test_inspect_refuses_what_is_no_swin(command, tmp_path):
    checkpoint_files.write({"conv1.weight": np.zeros((1, 1), "float32")}, tmp_path / "resnet.safetensors")
    for path, words in (
        (tmp_path / "none.pth", "no such checkpoint"),
        (tmp_path / "resnet.safetensors", "conv1.weight"),
    ):
        code, out, err = command("inspect", path)
        assert code == 1 and words in err and not out


@pytest.mark.slow
def test_inspect_executes_nothing(command, tmp_path):
    script = (
        "import os, sys, torch\n"
        "class Evil:\n"
        "    def __reduce__(self): return os.system, (f'touch {sys.argv[2]}',)\n"
        "torch.save({'features.1.0.attn.logit_scale': Evil()}, sys.argv[1])"
    )
    file, trace = tmp_path / "evil.pth", tmp_path / "executed"
    subprocess.run([sys.executable, "-c", script, str(file), str(trace)], check=True)
    code, _, err = command("inspect", file)
    assert code == 1 and "nothing of it was executed" in err and not trace.exists()


@pytest.mark.slow
def test_create_names_the_variant_that_a_file_fits(checkpoint):
    with pytest.raises(SwinsError, match=f"^this checkpoint fits {NAME}; name that variant: -m {NAME}, or --set"):
        swins.create("swin_tiny_patch4_window7_224", weights=checkpoint)


def test_the_right_variant_gets_no_hint(checkpoint):
    found = checkpoint_files.read(checkpoint)
    assert identify.hint(found, NAME) == ""
    assert inspection.problems(found, [NAME]) == []


def test_a_file_of_no_variant_says_how_it_differs_from_the_closest(checkpoint):
    found = checkpoint_files.read(checkpoint)
    state = {name: value for name, value in found.state.items() if not name.startswith("layers.1.blocks.3.")}
    with pytest.raises(
        SwinsError, match=rf"the closest is {NAME}, from which it differs in depths \(2, 3\), not \(2, 4\)"
    ):
        identify.the_variant(checkpoint_of(state))
