"""ONNX, LiteRT and OpenVINO files: run by their own runtimes, compared, refused when they lie."""

import csv
import importlib.metadata
import json
import re
import shutil
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image
from shared_fixtures import DATA, ROOT, needs_tensorflow
from test_adopt import NAME
from test_models import moved

import swins
from swins import files
from swins.exports import card, target_writers, targets, to_onnx
from swins.tasks.classification import CLASSIFICATION
from swins.weights import artefacts

pytestmark = needs_tensorflow


@pytest.fixture(scope="session")
def small_files(small_run, pixels, tmp_path_factory):
    """An artefact of it with a float32 file of every target, compared on 16 images; tests must not change it."""
    folder = tmp_path_factory.mktemp("targets")
    (folder / "images").mkdir()
    for i in range(16):
        Image.fromarray(pixels[0][i]).save(folder / "images" / f"{i}.png")
    return targets.export(small_run, list(targets.TARGETS), images=folder / "images", output=folder / "small")[0]


@pytest.fixture(params=["small_files", pytest.param("targeted", marks=pytest.mark.slow)])
def made(request):
    """An artefact with files of every target, and its certificate."""
    folder = request.getfixturevalue(request.param)
    return folder, artefacts.read_certificate(folder)


def test_a_file_of_every_target_agrees_with_keras(small_files):
    records = artefacts.read_certificate(small_files)["targets"]
    assert list(records) == ["model.onnx", "model.tflite", "model.xml"]
    for record in records.values():
        assert set(record["difference"]) == {"batch_1", "batch_3", "images"} and record["images"] == 16
        assert 0 < max(record["difference"].values()) <= 1e-5 and record["agreement"] == {"top1": 1}


@pytest.mark.slow
def test_every_file_agrees_with_keras(targeted):
    folder, certificate = targeted, artefacts.read_certificate(targeted)
    records = certificate["targets"]
    assert {(r["target"], r["precision"], r["deployed"]) for r in records.values()} == {
        *((target, precision, False) for target, its in targets.TARGETS.items() for precision in its.precisions),
        *((target, "float32", True) for target in targets.TARGETS),
    }
    for record in records.values():
        assert set(record["difference"]) == (
            {"images"} if record["precision"] == "int8" else {"batch_1", "batch_3", "images"}
        )
        assert 0 < max(record["difference"].values()) <= targets.TOLERANCES[record["precision"]]
        assert record["images"] == 512
        assert record["agreement"]["top1"] >= (1 if record["precision"].startswith("float") else 0.95)
        assert record["bytes"] == sum((folder / file).stat().st_size for file in record["files"])
        assert record["versions"][-1].split()[1] == importlib.metadata.version(record["versions"][-1].split()[0])
    sizes = {name: record["bytes"] for name, record in records.items()}
    for target in ("onnx", "tflite", "xml"):
        assert sizes[f"model_float16.{target}"] < 0.65 * sizes[f"model.{target}"]
        assert records[f"model_deploy.{target}"]["agreement"] == {"top1": 1}
    assert sizes["model_int8.tflite"] < 0.4 * sizes["model.tflite"]


def test_lite_files_have_built_in_operations_alone(made):
    folder, _ = made
    for file in folder.glob("*.tflite"):
        assert b"Flex" not in file.read_bytes()


def test_names_and_open_sides_of_onnx(made):
    import onnx

    folder, _ = made
    for file in folder.glob("*.onnx"):
        onnx.checker.check_model(str(file), full_check=True)
        graph = onnx.load(file).graph
        (images,), (logits,) = graph.input, graph.output
        assert (images.name, logits.name) == ("images", "logits")
        assert [d.dim_param or d.dim_value for d in images.type.tensor_type.shape.dim] == ["batch", 28, 28, 1]


def test_openvino_sends_nothing():
    target_writers.import_openvino()
    assert sys.modules["openvino.tools.ovc.telemetry_utils"].tm.__name__ == "openvino.tools.ovc.telemetry_stub"


def test_names_of_classes_are_inside(small_files, small_run):
    import onnx

    openvino = target_writers.import_openvino()
    names = json.loads((small_run / "result.json").read_text())["classes"]
    (entry,) = onnx.load(small_files / "model.onnx").metadata_props
    assert entry.key == "class_names" and json.loads(entry.value) == names
    assert json.loads(openvino.Core().read_model(small_files / "model.xml").get_rt_info("class_names").value) == names
    with zipfile.ZipFile(small_files / "model.tflite") as behind:
        assert behind.read("labels.txt").decode().splitlines() == names


@pytest.mark.slow
def test_verify_runs_them_again_and_sees_a_changed_file(made, tmp_path, command):
    folder = shutil.copytree(made[0], tmp_path / "artefact")
    certificate = artefacts.read_certificate(folder)
    if "model_int8.tflite" not in certificate["targets"]:  # which is not run again
        shutil.copy(folder / "model.tflite", folder / "model_int8.tflite")
        record = {"target": "litert", "precision": "int8"}
        record["files"] = {"model_int8.tflite": files.sha256(folder / "model_int8.tflite")}
        certificate["targets"]["model_int8.tflite"] = record
    for file in {*folder.glob("*float16*"), *folder.glob("*int8_d*"), *folder.glob("*.xml"), *folder.glob("*.bin")}:
        file.unlink()
    kept = ("model.onnx", "model.tflite", "model_int8.tflite")
    certificate["targets"] = {name: certificate["targets"][name] for name in kept}
    artefacts.write_json(folder / artefacts.CERTIFICATE, certificate)
    code, out, err = command("verify", folder)
    assert code == 0, err
    assert re.search(r"model\.onnx: \d", out) and "onnxruntime" in out
    assert "model_int8.tflite: its bytes are those certified; not run again" in out
    (folder / "model.onnx").write_bytes(b"other")
    code, _, err = command("verify", folder)
    assert code == 1 and "model.onnx is not the file that was certified" in err


@pytest.mark.slow
def test_any_size_in_one_file(tmp_path):
    moved(swins.create(NAME, image_size=(None, None), depths=(2, 1), embed_dim=24)).save(tmp_path / "open.keras")
    folder, certificate = targets.export(tmp_path / "open.keras", list(targets.TARGETS), output=tmp_path / "out")
    for record in certificate["targets"].values():
        assert set(record["difference"]) == {"batch_1", "batch_3", "other_size"}
        assert max(record["difference"].values()) <= 1e-5
    model = artefacts.load_model(folder)
    images = {side: np.random.default_rng(0).normal(size=(2, side, 30, 1)).astype("float32") for side in (9, 28, 53)}
    for side, batch in images.items():
        for file in ("model.onnx", "model.tflite", "model.xml"):
            ours = targets.run(folder / file, images=batch)["images"]["logits"]
            assert np.abs(ours - model.predict(batch, verbose=0)).max() <= 1e-5 * np.abs(ours).max(), (side, file)


@pytest.mark.slow
def test_a_file_that_differs_is_refused_and_nothing_is_kept(small_artefact, monkeypatch):
    artefact = small_artefact
    before = sorted(p.name for p in artefact.iterdir())
    real = targets.make

    def lie(target, precision, source, *arguments):
        head = source.model.layers[-1]
        weights = head.get_weights()
        head.set_weights([w * 1.01 for w in weights])
        real(target, precision, source, *arguments)
        head.set_weights(weights)

    monkeypatch.setattr(targets, "make", lie)
    with pytest.raises(
        swins.SwinsError, match=r"model.onnx must agree with Keras within 1e-05.*differs by .*nothing was kept"
    ):
        targets.export(artefact, ["onnx"])
    assert sorted(p.name for p in artefact.iterdir()) == before
    assert [p.name for p in artefact.parent.iterdir()] == ["artefact"]


@pytest.mark.slow
def test_a_stage_of_one_head_does_not_run_in_openvino_and_nothing_is_kept(tmp_path, command):
    """Its runtime folds an axis of one, and then finds another number of them: a file that it wrote itself.

    On one core it runs, and gives other rows than there are images.
    """
    moved(swins.create(NAME, image_size=8, depths=(1, 1), embed_dim=16, num_heads=(1, 2))).save(tmp_path / "one.keras")
    code, _, err = command("export", tmp_path / "one.keras", "--to", "openvino", "-o", tmp_path / "out")
    assert code == 1 and ("model.xml does not run: " in err or "outputs must have the shape" in err), err
    assert "shape" in err and "Traceback" not in err, err
    assert [path.name for path in tmp_path.iterdir()] == ["one.keras"]


def test_what_cannot_be_made(converted, made, command, tmp_path, monkeypatch):
    for arguments, text in (
        (("--to", "litert", "--precision", "int8"), "int8 needs images to calibrate on: --images FOLDER"),
        (("--to", "onnx", "--precision", "int8"), "onnx has no int8; it has float32, float16"),
        (("--to", "onnx", "--images", tmp_path / "none"), "no such folder of images"),
        (("--to", "onnx", "--images", tmp_path), "holds no images"),
        (("--images", DATA), "images and precision are for onnx, litert or openvino"),
        (
            ("--to", "onnx", "--results", ROOT / "in1k_eval/results.csv"),
            "the results: only SavedModels and their card have it",
        ),
        (
            ("--to", "saved_model", "onnx", "--images", tmp_path / "none", "-o", tmp_path / "o"),
            "no such folder of images",
        ),
        (("--to", "onnx", "-o", converted / "below"), "is copied there; choose a folder beside it"),
    ):
        code, _, err = command("export", converted, *arguments)
        assert code == 1 and text in err, err
    assert not (tmp_path / "o").exists() and not (converted / "below").exists()
    code, _, err = command("export", made[0], "--to", "onnx")
    assert code == 1 and "has model.onnx already; pass --overwrite" in err
    with pytest.raises(swins.SwinsError, match="unknown target 'tfjs'"):
        targets.export(converted, ["tfjs"])
    monkeypatch.setattr("keras.backend.backend", lambda: "torch")
    code, _, err = command("export", converted, "--to", "onnx")
    assert code == 1 and "onnx is written under TensorFlow; Keras runs on torch" in err
    monkeypatch.undo()
    missing = importlib.metadata.PackageNotFoundError("openvino")
    monkeypatch.setattr(importlib.metadata, "version", lambda name: (_ for _ in ()).throw(missing))
    code, _, err = command("export", converted, "--to", "openvino")
    assert code == 1 and "openvino needs openvino: pip install 'swins[openvino]'" in err
    code, _, err = command("export", converted, "--to", "saved_model", "onnx", "litert", "-o", tmp_path / "o")
    assert code == 1 and not (tmp_path / "o").exists()
    absent = "onnx needs tf2onnx, onnx, onnxruntime; litert needs tensorflow, ai-edge-litert: pip install"
    assert f"{absent} 'swins[onnx,litert]' where swins is installed, pip install '.[onnx,litert]' in a clone" in err


def test_unreadable_images_among_many_are_named(converted, tmp_path, command, rng):
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (30, 30), "uint8")).save(tmp_path / f"{i}.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "labels.csv").write_text("file,label\n")
    code, _, err = command("export", converted, "--to", "onnx", "--images", tmp_path)
    assert code == 1 and "1 of 4 images cannot be read" in err and "broken.png" in err
    assert not (converted / "model.onnx").exists()


def test_nan_is_no_agreement(made, tmp_path, monkeypatch):
    folder, real = shutil.copytree(made[0], tmp_path / "artefact"), targets.run
    certificate = artefacts.read_certificate(folder)
    certificate["targets"] = {"model.onnx": certificate["targets"]["model.onnx"]}
    artefacts.write_json(folder / artefacts.CERTIFICATE, certificate)

    def wrong(path, **batches):
        outputs = real(path, **batches)
        outputs["batch_3"]["logits"][2, 1] = np.nan
        return outputs

    monkeypatch.setattr(targets, "run", wrong)
    with pytest.raises(swins.SwinsError, match="must agree with Keras"):
        targets.verify(folder)


def test_completing_keeps_what_lies_deeper(artefact):
    (artefact / "old").mkdir()
    for place in (artefact, artefact / "old"):
        (place / "model.onnx").write_text("mine")
    with pytest.raises(swins.SwinsError, match=r"has model.onnx already"):
        artefacts.completing(artefact, artefact, ["model.onnx"]).__enter__()
    with pytest.raises(swins.SwinsError, match=r"model.onnx would be replaced, and is not as swins wrote it"):
        artefacts.completing(artefact, artefact, ["model.onnx"], overwrite=True).__enter__()
    proof = artefacts.read_certificate(artefact)
    proof["targets"] = {"model.onnx": {"files": {"model.onnx": files.sha256(artefact / "model.onnx")}}}
    artefacts.write_json(artefact / artefacts.CERTIFICATE, proof)
    with artefacts.completing(artefact, artefact, ["model.onnx"], overwrite=True) as partial:
        assert not (partial / "model.onnx").exists()
        (partial / "model.onnx").write_text("new")
    assert (artefact / "old" / "model.onnx").read_text() == "mine"
    assert (artefact / "model.onnx").read_text() == "new"


@pytest.mark.slow
def test_bfloat16_models_have_a_float32_twin(converted):
    model = artefacts.load_model(converted)
    half = swins.SwinTransformer(**{**model.get_config(), "dtype": "mixed_bfloat16"})
    half.set_weights(model.get_weights())
    twin = targets.float32_twin(half)
    assert twin.policy == "float32" and targets.float32_twin(model) is model
    x = np.zeros((1, 28, 28, 1), "float32")
    np.testing.assert_array_equal(twin(x), model(x))


def test_the_committed_table_is_within_tolerance():
    with open(ROOT / "in1k_eval" / "targets.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    full = [row for row in rows if not row["images"]]
    assert {row["name"] for row in full} == {
        "swin_tiny_patch4_window7_224",
        "swinv2_tiny_window8_256",
        "swin_s3_tiny_224",
    }
    assert len(full) == 9
    assert all(max(float(row["batch_1"]), float(row["batch_3"])) <= 1e-5 for row in full)
    embedded = [row for row in rows if row["images"]]
    assert len(embedded) == sum(len(its.precisions) for its in targets.TARGETS.values())
    for row in embedded:
        assert row["images"] == "10000" and float(row["keras_top1"]) - float(row["top1"]) <= 0.01


@pytest.mark.slow
def test_the_card_lists_them(made, exported):
    folder, certificate = made
    certificate = {**certificate, "exports": artefacts.read_certificate(exported)["exports"]}
    text = card.card(CLASSIFICATION, artefacts.load_model(folder), certificate)
    for name in certificate["targets"]:
        assert f"| `{name}` | " in text
    assert f"{certificate['targets']['model.onnx']['images']} images" in text and ("deployed" in text) == (
        "model_deploy.onnx" in certificate["targets"]
    )
    if "model_deploy.onnx" in certificate["targets"]:
        assert "512 images" in text and "onnx, deployed float32: differs" in text


def test_weights_stay_out_of_the_conversion(monkeypatch):
    """tf2onnx copies constants dozens of times: a Swin-T's took 6 GB. in1k_eval/export_memory.py measures it."""
    monkeypatch.setattr(to_onnx, "LEAST", 2**9)
    model = swins.create("swin_mini_patch2_window4_28", depths=(1,), num_heads=(2,), embed_dim=48)
    proto, weights = to_onnx.graph_of(model, "logits")
    total = sum(array.nbytes for array in weights.values())
    assert total > 0.9 * 4 * model.count_params() and proto.ByteSize() < 0.5 * total
    monkeypatch.setattr(to_onnx, "graph_of", lambda *_: (proto, weights))
    whole = to_onnx.convert(model, "logits")
    names = {tensor.name for tensor in whole.graph.initializer}
    assert {"stages_0_blocks_0/attn/qkv/kernel", "patch_embed/proj/kernel"} & names and set(weights) <= names
    assert [value.name for value in whole.graph.input] == ["images"]
    monkeypatch.setattr(to_onnx, "LARGEST", total)
    with pytest.raises(swins.SwinsError, match=r"an ONNX file holds at most 2 GiB; got [\d,]+ bytes"):
        to_onnx.convert(model, "logits")


@pytest.mark.slow
def test_files_that_are_missing_are_added(artefact, command, monkeypatch):
    made = []

    def make(target, precision, source, path, calibration):
        made.append(path.name)
        path.write_text(path.name)

    def check(tried, path, target, precision, deployed=False):
        record = {"files": {path.name: files.sha256(path)}, "bytes": 1, "versions": ["x 1"], "images": 0}
        return {
            **record,
            "target": target,
            "precision": precision,
            "deployed": deployed,
            "difference": {"batch_1": 0.0},
        }

    monkeypatch.setattr(targets, "make", make)
    monkeypatch.setattr(targets, "check", check)
    monkeypatch.setattr(targets.saved_model_writer, "save", lambda *_: None)
    assert command("export", artefact, "--to", "onnx")[0] == 0
    code, out, err = command("export", artefact, "--to", "onnx", "litert", "--precision", "float32", "float16")
    assert code == 0, err
    assert made == ["model.onnx", "model_float16.onnx", "model.tflite", "model_float16.tflite"]
    assert "model.tflite: " in out and "model.onnx: " not in out and "kept model.onnx, which" in err
    assert "[1/7] building the model to export" in err and "[7/7] running model_float16.tflite" in err
    assert set(artefacts.read_certificate(artefact)["targets"]) == set(made)
    (artefact / "model.onnx").write_text("quantised by hand")  # it is its user's now
    for more in ((), ("--overwrite",)):
        code, _, err = command("export", artefact, "--to", "onnx", *more)
        assert code == 1 and ("has model.onnx already" in err or "model.onnx would be replaced" in err)
    assert (artefact / "model.onnx").read_text() == "quantised by hand"
