"""Exports: loaded and trained where swins is not, compared, packed, described; refused when they lie."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from shared_fixtures import NAME, needs_tensorflow
from training import optimised_graphs

from swins.convert import certificate, conversion
from swins.convert.certificate import seeded_images
from swins.errors import SwinsError
from swins.exports import saved_model_writer, saved_models
from swins.exports.statements import Statement
from swins.images import preprocess
from swins.task import Part
from swins.tasks.classification import CLASSIFICATION
from swins.tasks.classification_export import accuracy
from swins.weights import artefacts, checkpoint_files

pytestmark = needs_tensorflow


def test_the_folder_is_complete(exported):
    assert sorted(p.name for p in exported.iterdir()) == [
        "1",
        "README.md",
        "certificate.json",
        "model.keras",
        "model.tar.gz",
        "model_deploy.tar.gz",
        "model_fe.tar.gz",
        "saved_model",
        "saved_model_deploy",
        "saved_model_fe",
    ]
    exports = artefacts.read_certificate(exported)["exports"]
    assert exports["saved_model"]["output"] == "logits" and exports["saved_model_fe"]["output"] == "features"
    assert "all_outputs" in exports["saved_model"] and "all_outputs" not in exports["saved_model_fe"]
    for record in exports.values():
        assert max(record["call"], record["serving_default"]) <= 1e-5
        assert record["serving_bytes"] <= 1e-5
        assert record.get("all_outputs", 0) <= 1e-5
        assert record["pixels_from_pillow"] <= 1e-6  # of the worst file, PNG or JPEG


HUB = """
import sys, numpy as np, tensorflow as tf, tensorflow_hub as hub
folder, out = sys.argv[1:]
model = hub.load(folder)
x = tf.constant(np.load(out + "/x.npy"))
y = tf.constant([i % 3 for i in range(len(x))])
np.save(out + "/call.npy", model(x).numpy())
np.save(out + "/signature.npy", model.signatures["serving_default"](images=x)["logits"].numpy())
print("differ", float(tf.reduce_max(tf.abs(model(x, training=True) - model(x, training=True)))))
before = [v.numpy() for v in model.trainable_variables]
losses = []
for _ in range(15):
    with tf.GradientTape() as tape:
        logits = model(x, training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
    for v, g in zip(model.trainable_variables, tape.gradient(loss, model.trainable_variables)):
        v.assign_sub(0.02 * tf.convert_to_tensor(g))
    losses.append(float(loss))
print("changed", all((a != v.numpy()).any() for a, v in zip(before, model.trainable_variables)))
print("fell", losses[-1] < 0.7 * losses[0], losses[0], losses[-1])
print("regularization", len(model.regularization_losses), "swins", "swins" in sys.modules)
"""


@pytest.mark.slow
def test_hub_load_gives_the_numbers_and_trains(exported, tmp_path):
    model = artefacts.load_model(exported)
    x = seeded_images(model.variant, 9)
    np.save(tmp_path / "x.npy", x)
    script = [sys.executable, "-P", "-c", HUB, str(exported / "saved_model"), str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    facts = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    assert float(facts["differ"][0]) > 0, "drop-path is not active"
    assert facts["changed"] == ["True"] and facts["fell"][0] == "True", facts
    assert facts["regularization"] == ["0", "swins", "False"]
    import tensorflow as tf

    # The signature's graph gives the very bits that it gives here; the call, made without an outer graph, is optimised
    # less and differs in the last ones.
    signature = [tf.TensorSpec((None, *x.shape[1:]))]
    graph = tf.function(lambda images: model(images, training=False), input_signature=signature)
    with optimised_graphs():
        ours = graph(x).numpy()
    np.testing.assert_array_equal(np.load(tmp_path / "signature.npy"), ours)
    assert certificate.difference(np.load(tmp_path / "call.npy"), ours)["relative"] <= 1e-6


def test_archives_are_what_the_hub_expects(exported):
    with tarfile.open(exported / "model.tar.gz") as tar:
        assert {"saved_model.pb", "variables", "fingerprint.pb"} <= set(tar.getnames())
        packed = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}
    folder = exported / "saved_model"
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert packed == files


def test_equal_input_gives_equal_archives(exported, tmp_path):
    saved_models.pack(exported / "saved_model", tmp_path / "a.tar.gz")
    assert (tmp_path / "a.tar.gz").read_bytes() == (exported / "model.tar.gz").read_bytes()


@pytest.mark.slow
def test_a_graph_that_differs_is_refused_and_nothing_is_kept(small_artefact, monkeypatch):
    artefact = small_artefact
    real, before = saved_model_writer.save, sorted(p.name for p in artefact.iterdir())

    def lie(model, prepare, folder, output, *more):
        head = model.layers[-1]
        weights = head.get_weights()
        head.set_weights([w * 1.01 for w in weights])
        real(model, prepare, folder, output, *more)
        head.set_weights(weights)

    monkeypatch.setattr(saved_model_writer, "save", lie)
    one = dataclasses.replace(CLASSIFICATION, parts=lambda model, *_: {"saved_model": Part("logits", lambda: model)})
    monkeypatch.setattr(saved_models, "task_of", lambda *_: one)
    with pytest.raises(SwinsError, match="must agree with Keras"):
        saved_models.export(artefact)
    assert sorted(p.name for p in artefact.iterdir()) == before
    assert [p.name for p in artefact.parent.iterdir()] == ["artefact"]


def test_existing_exports_are_kept(exported, command):
    code, _, err = command("export", exported)
    assert code == 1 and "saved_model_fe already; pass --overwrite" in err


def test_another_existing_folder_is_kept(converted, artefact, command):
    before = {p: p.read_bytes() for p in artefact.rglob("*") if p.is_file()}
    code, _, err = command("export", converted, "-o", artefact)
    assert code == 1 and "exists and would be replaced" in err
    assert {p: p.read_bytes() for p in artefact.rglob("*") if p.is_file()} == before


@pytest.mark.slow
def test_headless_models_export_features_only_and_other_channels_no_bytes(tmp_path, perturbed):
    file = perturbed("swin_mini_patch2_window4_28", in_chans=4)
    state = {k: v for k, v in checkpoint_files.read(file).state.items() if not k.startswith("head")}
    checkpoint_files.write(state, tmp_path / "headless.safetensors")
    folder, _ = conversion.convert("swin_mini_patch2_window4_28", tmp_path / "headless.safetensors", tmp_path / "out")
    _, proof = saved_models.export(folder, deployed=True)
    assert "serving_bytes" not in proof["exports"]["saved_model_fe"], "nothing is published for four channels"
    assert CLASSIFICATION.serving(artefacts.load_model(folder), proof) is None
    assert proof["exports"]["saved_model_fe"]["all_outputs"] <= 1e-5
    assert not (folder / "saved_model").exists() and (folder / "saved_model_fe").is_dir()
    assert "images to features" in (folder / "README.md").read_text()
    assert proof["exports"]["saved_model_deploy"]["output"] == "features"
    assert (folder / "model_deploy.tar.gz").is_file()


def test_once_there_the_deployed_one_is_made_again_with_the_rest(exported, tmp_path, monkeypatch):
    folder, written = shutil.copytree(exported, tmp_path / "artefact"), []

    def write(model, prepare, place, *_):
        written.append(place.name)
        place.mkdir()

    monkeypatch.setattr(saved_model_writer, "save", write)
    monkeypatch.setattr(saved_models, "check", lambda *_: artefacts.read_certificate(exported)["exports"])
    saved_models.export(folder, overwrite=True)
    assert written == ["saved_model", "saved_model_fe", "saved_model_deploy"]


@pytest.mark.parametrize("protocol", ["timm", "ms"])
@pytest.mark.parametrize(("size", "channels"), [((96, 160), 3), ((160, 96), 3), (96, 1)])
def test_decoding_follows_pillow_for_every_shape(size, channels, protocol):
    prepare = preprocess("swin_tiny_patch4_window7_224", protocol, size, channels)
    decode = saved_model_writer.decoder(prepare)
    for file in saved_models.photographs(prepare.image_size):
        pixels = np.asarray(decode(file))
        assert pixels.shape == (*prepare.image_size, channels)
        off = np.abs(pixels - prepare(file)) * np.float32(prepare.std) * 255
        assert off.mean() <= 0.1 and off.max() < 2.5  # /255; 1.0 in JPEG by TensorFlow's default


@pytest.mark.slow
def test_a_full_size_model_is_exported(tmp_path, perturbed, command, monkeypatch):
    one = dataclasses.replace(CLASSIFICATION, parts=lambda model, *_: {"saved_model": Part("logits", lambda: model)})
    monkeypatch.setattr(saved_models, "task_of", lambda *_: one)
    name = "swin_s3_tiny_224"
    arguments = ("-m", name, "--checkpoint", perturbed(name), "-o", tmp_path / "out", "--export")
    code, out, err = command("convert", *arguments)
    assert code == 0, err
    assert "173 trainable variables" in out


@pytest.mark.slow
def test_verify_runs_the_exports_again_and_nan_is_no_agreement(exported, command, monkeypatch):
    real, seen = saved_models.run_elsewhere, []

    def watched(*arguments):
        seen.append(real(*arguments))
        return seen[0]

    monkeypatch.setattr(saved_models, "run_elsewhere", watched)
    code, out, err = command("verify", exported)
    assert code == 0, err
    assert "saved_model " in out and "saved_model_fe" in out
    (outputs,) = seen
    outputs["saved_model"]["all_outputs/features"][0, 0] = np.nan
    monkeypatch.setattr(saved_models, "run_elsewhere", lambda *arguments: outputs)
    with pytest.raises(SwinsError, match="must agree with Keras"):
        saved_models.verify_exports(exported)


def test_not_an_artefact(tmp_path, command):
    code, _, err = command("export", tmp_path)
    assert code == 1 and "an artefact is a folder" in err


@pytest.mark.slow
def test_in_place_other_files_are_kept_and_the_card_quotes_the_row_of_these_weights(
    artefact, exported, idx, command, tmp_path, monkeypatch
):
    records = artefacts.read_certificate(exported)["exports"]
    monkeypatch.setattr(saved_model_writer, "save", lambda model, prepare, place, *_: place.mkdir())
    monkeypatch.setattr(saved_models, "check", lambda *arguments: {part: records[part] for part in arguments[3]})
    (artefact / "plots").mkdir()
    (artefact / "plots" / "a.txt").write_text("mine")
    results = tmp_path / "results.csv"
    code, out, _ = command("eval", artefact, "--data", idx, "--batch", 70, "--results", results, "--quiet")
    assert code == 0
    folder, _ = saved_models.export(artefact, statement=Statement(results=results))
    text = (folder / "README.md").read_text()
    assert f"top-1 {json.loads(out)['top1']:.2%}" in text and "Measured with these weights" in text
    assert text.startswith(f"# Module swins/{NAME.replace('.', '_')}/1\n")
    assert "$" not in text
    assert (artefact / "plots" / "a.txt").read_text() == "mine"


def test_the_card_marks_published_numbers(exported):
    proof = artefacts.read_certificate(exported)
    text = accuracy({**proof, "name": "swin_tiny_patch4_window7_224.ms_in1k"})
    assert text.startswith("Published for `swin_tiny_patch4_window7_224.ms_in1k`, not measured here")
    assert "top-1 81.388%" in text
    assert "Not measured" in accuracy({**proof, "name": "swin_tiny_patch4_window7_224.ms_in22k"})
    # an untagged name says nothing of where the weights come from
    assert "Not measured" in accuracy({**proof, "name": "swin_tiny_patch4_window7_224"})


def test_only_tensorflow_writes_saved_models(monkeypatch):
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    with pytest.raises(SwinsError, match="SavedModel is written under TensorFlow; Keras runs on jax"):
        saved_model_writer.require_tensorflow()


def test_a_collection_links_what_is_there_and_replaces_nothing_else(exported, tmp_path, command):
    page = tmp_path / "page.md"
    code, _, err = command("collection", exported, "-o", page)
    assert code == 0, err
    links = re.findall(r"\]\(([^)h][^)]*)\)", page.read_text())
    assert len(links) == 3 and all((tmp_path / link).is_file() for link in links)
    assert "| 28x28 | 0.5 | not measured |" in page.read_text()
    code, _, _ = command("collection", exported, "-o", page)
    assert code == 0
    page.write_text("mine")
    code, _, err = command("collection", exported, "-o", page)
    assert code == 1 and "is no collection page, so it is not replaced" in err and page.read_text() == "mine"
