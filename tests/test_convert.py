"""Conversion: every layout gives the same weights, both directions are exact, certificates can be recomputed."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from swins.convert import certificate, conversion
from swins.errors import SwinsError
from swins.weights import artefacts, checkpoint_files, conversion_table, dialects, swin_rules

NAME = "swin_mini_patch2_window4_28"

WRITE_LAYOUTS = """
# Microsoft's and old timm's layouts of a state dict, written by torch as their programs write them.
import re, sys, torch
from safetensors.torch import load_file
state = load_file(sys.argv[1]); out = sys.argv[2]
def rename(key):
    key = re.sub(r"layers.(\\d+).downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", key)
    return re.sub(r"^head.fc", "head", key)
old = {rename(k): v for k, v in state.items()}
buffers = {"layers.0.blocks.1.attn_mask": torch.zeros(4, 16, 16),
           "layers.0.blocks.0.attn.relative_position_index": torch.zeros(16, 16, dtype=torch.long)}
torch.save(state, f"{out}/timm.pth")
torch.save(old, f"{out}/old_timm.pth")
torch.save({"model": {**old, **buffers}}, f"{out}/microsoft.pth")
torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, f"{out}/module.pt")
torch.save({"state_dict": {k: v + 1 for k, v in state.items()}, "state_dict_ema": state}, f"{out}/ema.bin")
import argparse
torch.save({"epoch": 1, "arch": "swin", "state_dict": old, "args": argparse.Namespace(lr=0.1),
            "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}}}, f"{out}/training.pth.tar")
torch.save({"model": {k: v.half() for k, v in state.items()}}, f"{out}/half.pth")
torch.save({k: v for k, v in old.items() if not k.startswith("head")}, f"{out}/headless_old.pth")
"""
QUICK = ("microsoft.pth", "ema.bin", "training.pth.tar")  # in `make test`
LAYOUTS = ("timm.pth", "old_timm.pth", "microsoft.pth", "module.pt", "ema.bin", "training.pth.tar")


@pytest.fixture(scope="module")
def layouts(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("layouts")
    subprocess.run([sys.executable, "-c", WRITE_LAYOUTS, str(checkpoint), str(folder)], check=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "file", [file if file in QUICK else pytest.param(file, marks=pytest.mark.slow) for file in LAYOUTS]
)
def test_every_layout_gives_identical_weights(layouts, file, converted, tmp_path):
    _, proof = conversion.convert(NAME, layouts / file, tmp_path / "out")
    assert proof["verdict"] == "pass"
    assert proof["weights_sha256"] == artefacts.read_certificate(converted)["weights_sha256"]


@pytest.mark.slow
def test_dialects_are_recognised(layouts):
    found = {file: checkpoint_files.read(layouts / file) for file in LAYOUTS}
    assert found["timm.pth"].dialect == "timm"
    assert found["microsoft.pth"].dialect == found["old_timm.pth"].dialect == "microsoft or timm before 0.9"
    assert found["microsoft.pth"].wrappers == ("model",)
    assert found["module.pt"].wrappers == ("state_dict", "module.")
    assert found["ema.bin"].wrappers == ("state_dict_ema",)


def test_half_precision_files_are_read_as_float32(layouts):
    state = checkpoint_files.read(layouts / "half.pth").state
    assert {v.dtype.name for v in state.values()} == {"float32"}


@pytest.mark.slow
def test_headless_file_of_an_untagged_name_becomes_a_feature_extractor(layouts, tmp_path):
    folder, proof = conversion.convert(NAME, layouts / "headless_old.pth", tmp_path / "out")
    assert artefacts.load_model(folder).variant.num_classes == 0
    assert proof["verdict"] == "pass"


def parts_of(path):
    """The header and the bytes of all tensors of a safetensors file."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


@pytest.mark.backends
def test_keras_to_torch_gives_the_identical_tensors(converted, checkpoint, command, tmp_path):
    target = tmp_path / "back.safetensors"
    code, out, _ = command("convert", "--to-torch", converted, "-o", target)
    assert code == 0, out
    (header, tensors), (given, as_given) = parts_of(target), parts_of(checkpoint)
    assert tensors == as_given
    metadata = header.pop("__metadata__")
    assert given.pop("__metadata__") == {"format": metadata["format"]} and header == given
    assert json.loads(metadata["swins"])["numbers"]["window_size"] == 4
    before = target.read_bytes()
    code, _, err = command("convert", "--to-torch", converted / "model.keras", "-o", target)
    assert code == 1 and "pass --overwrite" in err
    assert target.read_bytes() == before


def test_the_artefact_holds_what_it_says(converted, checkpoint):
    proof = json.loads((converted / "certificate.json").read_text())
    assert sorted(p.name for p in converted.iterdir()) == ["certificate.json", "model.keras"]
    assert proof["name"] == f"{NAME}.fashion_mnist"
    assert proof["source"]["sha256"] == checkpoint_files.sha256(checkpoint)
    assert proof["model"]["sha256"] == checkpoint_files.sha256(converted / "model.keras")
    assert proof["outputs"]["logits"]["relative"] <= 2e-5 and proof["worst_block"] <= 1e-5
    assert proof["agreement"] == {"top5": 1.0}
    assert list(proof["blocks"]) == [
        "patch_embed",
        *(f"stages_0_blocks_{b}" for b in range(2)),
        "stages_1_downsample",
        *(f"stages_1_blocks_{b}" for b in range(4)),
        "norm",
    ]
    assert {"timm", "torch", "keras", "backend"} <= set(proof["versions"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["swin_tiny_patch4_window7_224.ms_in22k", "swin_s3_tiny_224", "swinv2_tiny_window8_256"],
)
def test_perturbed_timm_models_convert_within_tolerance(name, perturbed, tmp_path, command):
    code, out, err = command("convert", "-m", name, "--checkpoint", perturbed(name), "-o", tmp_path / "out")
    assert code == 0, err
    assert "pass" in out
    proof = artefacts.read_certificate(tmp_path / "out")
    assert proof["outputs"]["logits"]["relative"] <= 2e-5 and proof["worst_block"] <= 1e-5
    assert proof["parameters"]["keras"] == proof["parameters"]["torch"]


@pytest.mark.slow
def test_verify_recomputes(converted, checkpoint, command):
    for arguments in ((), ("--checkpoint", checkpoint)):
        code, out, err = command("verify", converted, *arguments)
        assert code == 0, err
        assert "pass" in out and "recorded" in out


@pytest.mark.slow
def test_verify_notices_another_model(artefact, command):
    model = artefacts.load_model(artefact)
    table = next(v for v in model.weights if v.path.endswith("bias_table"))
    table.assign(table + 1e-3)
    model.save(artefact / "model.keras")
    code, _, err = command("verify", artefact)
    assert code == 1 and "not hold the weights that were certified" in err


def test_verify_notices_another_checkpoint(converted, command, tmp_path, checkpoint):
    other = tmp_path / "other.safetensors"
    state = checkpoint_files.read(checkpoint).state
    checkpoint_files.write({**state, "norm.bias": state["norm.bias"] + 1}, other)
    code, _, err = command("verify", converted, "--checkpoint", other)
    assert code == 1 and "is not the file" in err


@pytest.mark.slow
def test_a_wrong_model_gets_no_certificate(checkpoint, monkeypatch, tmp_path):
    """The comparison must be able to fail: a model whose GELU is the tanh form is refused."""
    from keras import ops

    from swins import layers

    monkeypatch.setattr(layers, "gelu", lambda x: ops.gelu(x, approximate=True))
    with pytest.raises(SwinsError, match=r"the first to differ is stages_0_blocks_0"):
        conversion.convert(NAME, checkpoint, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_certificate_fails_when_numbers_do(converted):
    proof = artefacts.read_certificate(converted)
    certificate.require_pass(proof, NAME)
    with pytest.raises(SwinsError, match="parameters"):
        certificate.require_pass({**proof, "verdict": "fail"}, NAME)


def test_difference_is_of_the_largest_value():
    result = certificate.difference(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    assert result == {"max_abs": 2.0, "relative": 0.5}


@pytest.mark.core
@pytest.mark.backends
def test_rules_cover_a_model_once(converted):
    model = artefacts.load_model(converted)
    table = swin_rules.table_of(model.variant)
    assert set(table.filled) == set(conversion_table.weights_of(model))
    assert len(table.torch_names) == len(table.filled)


def test_to_timm_keeps_todays_names():
    mark = "layers.0.blocks.0.attn.relative_position_bias_table"
    state = {mark: 1, "layers.1.downsample.norm.weight": 2, "head.fc.weight": 3, "head.bias": 4}
    translation = dialects.to_timm(state)
    assert (translation.dialect.name, translation.prefix) == ("timm", "")
    assert translation.tensors == {
        mark: 1,
        "layers.1.downsample.norm.weight": 2,
        "head.fc.weight": 3,
        "head.fc.bias": 4,
    }


@pytest.mark.slow
def test_convert_py_is_the_same_door(checkpoint, tmp_path):
    root = artefacts.pathlib.Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "convert.py", "-m", NAME, "--checkpoint", checkpoint, "-o", tmp_path / "out"],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "certificate.json").is_file()


@pytest.mark.slow
def test_an_image_size_of_ones_own(checkpoint, tmp_path):
    _, proof = conversion.convert(NAME, checkpoint, tmp_path / "out", image_size=40)
    assert proof["images"] == [4, 40, 40, 1] and proof["verdict"] == "pass"


@pytest.mark.slow
def test_copies_of_artefacts_stay_valid(converted, tmp_path, command):
    shutil.copytree(converted, tmp_path / "moved")
    assert command("verify", tmp_path / "moved")[0] == 0
