"""Training runs and bare .keras files, exported: their own preparation and classes, and plainly what was proven."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image
from shared_fixtures import needs_tensorflow
from training import RESULT

import swins
from swins import files
from swins.errors import SwinsError
from swins.exports import adopt, saved_model_writer, saved_models, targets
from swins.opening import open_model
from swins.task import Prepared
from swins.tasks.classification import CLASSIFICATION
from swins.weights import artefacts

pytestmark = needs_tensorflow

NAME = "swin_mini_patch2_window4_28"
CLASSES = RESULT["classes"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a finished run, with a crop, mean and standard deviation of its own; tests must not change it."""
    folder = tmp_path_factory.mktemp("runs") / "bags"
    folder.mkdir()
    model = swins.create(NAME, num_classes=3, depths=(1, 1), embed_dim=24)
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign_add(0.05 * rng.standard_normal(variable.shape, dtype="float32"))
    model.save(folder / "model.keras")
    (folder / "result.json").write_text(json.dumps(RESULT))
    (folder / "recipe.json").write_text("{}")
    return folder


PARTS = ["saved_model", "saved_model_fe", "saved_model_deploy"]


@pytest.fixture
def run_folder(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(trained, tmp_path / "runs" / "bags")


@pytest.fixture
def stubbed(monkeypatch):
    """SavedModels that are written in no time and agree -> the list of those written."""
    written = []

    def save(model, prepare, folder, *_):
        written.append(folder.name)
        (folder / "variables").mkdir(parents=True)
        (folder / "saved_model.pb").write_text(folder.name)
        (folder / "variables" / "variables.index").write_text(str(prepare))

    def check(task, model, folder, parts, certificate):
        return {name: {"output": part.output, "call": 0.0, "trainable_variables": 1} for name, part in parts.items()}

    monkeypatch.setattr(saved_model_writer, "save", save)
    monkeypatch.setattr(saved_models, "check", check)
    return written


def real_files(rng, folder):
    """Files as people have them: JPEG and PNG, in colour, grey, of a palette and transparent, and turned by EXIF."""
    smooth = rng.integers(0, 256, (6, 7, 4), "uint8")
    colour = Image.fromarray(smooth[..., :3]).resize((90, 70), Image.Resampling.BICUBIC)
    turned = Image.Exif()
    turned[0x0112] = 6
    pictures = {
        "colour.jpg": (colour, {"quality": 90}),
        "grey.jpg": (colour.convert("L"), {}),
        "turned.jpg": (colour, {"exif": turned}),
        "large.jpg": (colour.resize((301, 222), Image.Resampling.BICUBIC), {}),
        "colour.png": (colour, {}),
        "grey.png": (colour.convert("L"), {}),
        "palette.png": (colour.convert("P"), {}),
        "transparent.png": (Image.fromarray(smooth).resize((33, 44), Image.Resampling.NEAREST), {}),
    }
    for name, (picture, options) in pictures.items():
        picture.save(folder / name, **options)
    return [str(folder / name) for name in pictures]


@pytest.mark.slow
def test_a_run_becomes_an_artefact_that_knows_what_the_run_knew(run_folder, command, tmp_path, rng):
    import tensorflow as tf

    before = {path: path.read_bytes() for path in run_folder.iterdir()}
    code, out, err = command("export", run_folder, "--to", "saved_model", "onnx", "litert", "openvino")
    assert code == 0, err
    folder = tmp_path / "artefacts" / "bags"
    assert {path: path.read_bytes() for path in run_folder.iterdir()} == before
    assert str(folder.relative_to(tmp_path) / "saved_model") in out and "model.onnx: " in out
    assert "[1/5] writing saved_model (logits)" in err and "[5/5] running saved_model, saved_model_fe" in err

    prepare = swins.preprocess(run_folder)
    assert prepare.resize == (40, 40) and swins.preprocess(folder) == prepare
    assert swins.class_names(folder) == CLASSES
    opened = open_model(folder)
    model, proof = opened.model, opened.certificate
    assert CLASSIFICATION.serving(model, proof) == prepare
    assert CLASSIFICATION.prepare(opened, {}) == Prepared(NAME, "run", prepare)
    assert "no PyTorch was involved" in proof["verdict"] and "blocks" not in proof
    assert proof["exports"]["saved_model"]["serving_bytes"] <= 1e-5
    assert max(proof["targets"]["model.onnx"]["difference"].values()) <= 1e-5

    paths = real_files(rng, tmp_path)
    predictor = swins.load(run_folder)
    results, pixels = predictor(paths), np.stack([prepare(path) for path in paths])
    logits = predictor.run(pixels)["logits"]
    other = model(swins.preprocess(NAME)(paths), training=False).numpy()
    assert np.abs(logits - other).max() > 0.01 * np.abs(logits).max()  # another preparation is seen
    given = {name: targets.run(folder / name, images=pixels)["images"]["logits"] for name in sorted(proof["targets"])}
    bytes_in = tf.saved_model.load(str(folder / "saved_model")).signatures["serving_bytes"]
    served = bytes_in(image_bytes=tf.constant([pathlib.Path(path).read_bytes() for path in paths]))
    given["serving_bytes"] = served["logits"].numpy()
    assert len(given) == 4
    for name, found in given.items():
        assert np.abs(found - logits).max() <= 1e-5 * np.abs(logits).max(), name
    best = [[name.decode() for name in names] for names in served["names"].numpy()]
    assert best == [list(result.names) for result in results]
    for ours, theirs in zip(results, swins.load(folder / "saved_model")(paths), strict=True):
        assert ours.names == theirs.names and np.allclose(ours.probabilities, theirs.probabilities, atol=1e-6)

    card = (folder / "README.md").read_text()
    for words in (
        "# Module swins/bags/1",
        "No PyTorch was involved",
        "trained here",
        "cover 40x40 pixels (height x width), cut to 28x28",
        "(0.4,)",
        json.dumps(CLASSES),
        "top-1 75.00%, top-5 100.00% on 70 validation images",
    ):
        assert words in card, words
    assert "proven equal" not in card and "Published" not in card

    code, out, err = command("verify", folder)
    assert code == 0, err
    assert "bags: its exports agree with Keras; no PyTorch was involved" in out and "model.onnx: " in out
    (folder / "result.json").write_text(json.dumps({**RESULT, "classes": CLASSES[::-1]}))
    code, _, err = command("verify", folder)
    assert code == 1 and "result.json is not the file that was certified" in err
    code, _, err = command("verify", folder, "--checkpoint", "x.pth")
    assert code == 1 and "of no PyTorch checkpoint" in err


@pytest.mark.slow
def test_what_is_missing_is_added_and_nothing_made_anew(run_folder, command, stubbed, tmp_path):
    assert command("export", run_folder)[0] == 0
    folder = tmp_path / "artefacts" / "bags"
    first = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    del stubbed[:]
    for source in (run_folder / "model.keras", folder, folder / "model.keras"):  # of the run, and of its artefact
        code, _, err = command("export", source)
        assert code == 1 and "has model.tar.gz, model_fe.tar.gz, saved_model, saved_model_fe already" in err
    code, _, err = command("export", run_folder, "--deploy")
    assert code == 0, err
    assert stubbed == ["saved_model_deploy"]
    now = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    changed = {path.name for path in now if now[path] != first.get(path)}
    assert changed == {
        "saved_model.pb",
        "swins.json",
        "variables.index",
        "model_deploy.tar.gz",
        "certificate.json",
        "README.md",
    }
    assert list(artefacts.read_certificate(folder)["exports"]) == [
        "saved_model",
        "saved_model_fe",
        "saved_model_deploy",
    ]
    (folder / "model_fe.tar.gz").unlink()  # what was lost is missing too; what is left of it is not taken for whole
    code, _, err = command("export", run_folder)
    assert code == 1 and "has saved_model_fe already; pass --overwrite" in err
    code, _, err = command("export", run_folder, "--overwrite")
    assert code == 0, err
    assert stubbed[1:] == PARTS


@pytest.mark.slow
def test_another_run_does_not_take_its_place(run_folder, command, stubbed, tmp_path):
    assert command("export", run_folder, "--deploy", "--serving")[0] == 0
    folder = tmp_path / "artefacts" / "bags"
    (folder / "notes.txt").write_text("mine")
    (run_folder / "result.json").write_text(json.dumps({**RESULT, "top1": 0.8}))
    code, _, err = command("export", run_folder)
    assert code == 1 and f"exists, made before {run_folder} was trained anew; pass --overwrite to make it of" in err
    code, _, err = command("export", run_folder, "--overwrite", "--classes", "a", "b", "c")
    assert code == 0, err
    assert f"its classes are now called a, b, c ..., no longer {', '.join(CLASSES[:3])} ..." in err
    last = err.splitlines()[-1]
    assert last.endswith(
        "1, saved_model_deploy of the model that was there are gone; --deploy, --serving and --to make them of this one"
    ), err
    assert "go with it" not in err
    assert artefacts.read_certificate(folder)["training"]["top1"] == 0.8
    assert (folder / "notes.txt").read_text() == "mine"


def test_results_that_the_card_quotes_outlive_the_next_export(run_folder, stubbed, tmp_path):
    row = {"top1": 0.9, "top5": 1, "images": 70, "dataset": "d", "protocol": "run", "image_size": "28x28"}
    saved_models.export(run_folder)
    folder = tmp_path / "artefacts" / "bags"
    proof = artefacts.read_certificate(folder)
    proof["measured"] = {**row, "backend": "jax", "date": "2026-11-20"}
    artefacts.write_json(folder / "certificate.json", proof)
    saved_models.export(folder, deployed=True)
    assert "top-1 90.00%" in (folder / "README.md").read_text()


def test_an_unfinished_run_says_so(run_folder, command):
    (run_folder / "result.json").unlink()
    code, _, err = command("export", run_folder)
    assert code == 1 and "its training has not come to its end; end it with `swins train`" in err


@pytest.mark.slow
def test_a_bare_file_is_exported_without_what_it_does_not_tell(run_folder, command, stubbed, tmp_path):
    shutil.copy(run_folder / "model.keras", tmp_path / "pets.v2.keras")
    code, _, err = command("export", "pets.v2.keras")
    assert code == 0, err
    folder = tmp_path / "artefacts" / "pets.v2"
    card = (folder / "README.md").read_text()
    assert "# Module swins/pets_v2/1" in card and "How images were prepared is not recorded." in card
    assert (folder / "saved_model" / "variables" / "variables.index").read_text() == "None"
    assert command("verify", folder)[0] == 0 and not (folder / "result.json").exists()
    custom = swins.SwinTransformer(image_size=(None, None), embed_dim=24, depths=(1,), num_heads=(2,), num_classes=2)
    custom.save(tmp_path / "custom.keras")
    assert command("export", "custom.keras", "-o", "out")[0] == 0  # of no variant


def test_collections_mark_what_was_not_compared(run_folder, exported, stubbed, command):
    saved_models.export(run_folder, "bags")
    code, out, _ = command("collection", exported, "bags")
    assert code == 0 and "| `bags` (no PyTorch) | 28x28 | 0.0 | 75.00% (validation images of its run)" in out
    assert "proven equal to it, but for those marked so" in out
    assert "marked so" not in command("collection", exported)[1]


def test_the_best_epoch_is_exported_as_itself(run_folder, stubbed):
    """Its name, its score, and nothing of the last epoch's."""
    result = json.loads((run_folder / "result.json").read_text())
    result |= {"best": {"epoch": 1, "top1": 0.875}, "recipe": {**result["recipe"], "epochs": 9}}
    (run_folder / "result.json").write_text(json.dumps(result))
    shutil.copy(run_folder / "model.keras", run_folder / "best.keras")
    folder, proof = saved_models.export(run_folder / "best.keras")
    assert folder.name == "bags_best" and proof["source"]["file"] == "bags/best.keras"
    assert proof["training"]["top1"] == 0.875 and "top5" not in proof["training"]
    card = (folder / "README.md").read_text()
    assert "After epoch 1 of 9 of its training, whose weights it has: top-1 87.50% on" in card


def test_tested_sizes_of_models_of_any_size(run_folder):
    model = swins.create(NAME, image_size=(None, None), depths=(1, 1), embed_dim=24)
    assert adopt.tested_size(model, NAME) == (28, 28)
    assert adopt.tested_size(model, NAME, {"preprocess": {"image_size": [32, 30]}}) == (32, 30)
    assert adopt.tested_size(model, "unknown") == (224, 224)


def test_the_certificate_is_of_the_very_file(run_folder, tmp_path):
    (tmp_path / "new").mkdir()
    adopt.make(run_folder, tmp_path / "new")
    proof = artefacts.read_certificate(tmp_path / "new")
    assert proof["model"]["sha256"] == files.sha256(run_folder / "model.keras") == proof["source"]["sha256"]
    assert proof["source"]["file"] == "bags/model.keras"
    with pytest.raises(SwinsError, match="not a readable"):
        (tmp_path / "bad.keras").write_text("x")
        adopt.make(tmp_path / "bad.keras", tmp_path / "new")
