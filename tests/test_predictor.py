"""Prediction: the same answers from everything that people have of a model, and pictures of them."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from shared_fixtures import NAME, needs_tensorflow
from test_readme import PAGES, block

import swins
from swins.errors import SwinsError
from swins.labels import FASHION_MNIST
from swins.results import Classes, classes_of
from swins.weights import load


@pytest.fixture
def garment(tmp_path, pixels):
    """A picture of the first test image, an ankle boot, and its path."""
    Image.fromarray(pixels[0][0]).resize((112, 140), 3).save(tmp_path / "boot.png")
    return tmp_path / "boot.png"


@pytest.mark.slow
@pytest.mark.backends
def test_everything_that_people_have_of_a_model_gives_the_same(converted, checkpoint, garment, monkeypatch):
    monkeypatch.setattr("swins.weights.pretrained.fetch", lambda name: checkpoint)
    expected = swins.load(NAME)(garment)
    assert expected.names[0] == "ankle boot" and 0 < expected.probabilities[1] < expected.probabilities[0] <= 1
    keras_file = swins.load(converted / "model.keras", variant=NAME)
    for predictor in (swins.load(converted), keras_file, swins.load(checkpoint)):
        result = predictor(str(garment))
        assert result.labels == expected.labels
        np.testing.assert_allclose(result.probabilities, expected.probabilities, rtol=1e-4)
    assert swins.load(converted)(str(garment)).names == expected.names
    assert [name for name in keras_file(str(garment)).names if name.startswith("class ")]  # which it does not know
    with Image.open(garment) as picture:
        several = swins.load(converted)([garment, garment.read_bytes(), picture, np.asarray(picture)], batch=3)
    assert [result.labels for result in several] == [expected.labels] * 4
    with pytest.raises(SwinsError, match="not a readable image"):
        swins.load(converted)("none.png")


@pytest.mark.slow
def test_what_a_checkpoints_file_states_holds_for_its_predictor(converted, garment, tmp_path):
    """A safetensors file of a run says how images are prepared and what classes are called."""
    facts = {"image_size": [28, 28], "crop": 0.7, "mean": [0.4], "std": [0.2]}
    result = {"recipe": {"model.name": "swin_mini_patch2_window4_28"}, "preprocess": facts}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text(json.dumps({**result, "classes": [f"class {i}!" for i in range(10)]}))
    shutil.copy(converted / "model.keras", tmp_path / "run")
    load.export_torch(tmp_path / "run", tmp_path / "m.safetensors")
    of_file, of_run = (swins.load(tmp_path / name) for name in ("m.safetensors", "run"))
    assert of_file.preparation == of_run.preparation and of_file.preparation.resize == (40, 40)
    assert of_file(garment).names == of_run(garment).names and of_file(garment).names[0].endswith("!")


@pytest.mark.slow
@needs_tensorflow
def test_saved_models_say_themselves_how_images_are_prepared(exported, garment, tmp_path):
    expected = swins.load(exported)(garment)
    archive = exported / "model.tar.gz"
    for source in (exported / "saved_model", archive, shutil.copytree(exported / "saved_model", tmp_path / "alone")):
        result = swins.load(source)(garment)
        assert (result.labels, result.names) == (expected.labels, expected.names)
    assert swins.preprocess(exported / "saved_model") == swins.load(exported).preparation
    with pytest.raises(SwinsError, match="raw=True takes what holds a Keras model; got a SavedModel"):
        swins.load(exported / "saved_model", raw=True)
    with pytest.raises(SwinsError, match="classes are told of logits; this model gives features"):
        swins.load(exported / "saved_model_fe")(garment)
    other = swins.load(exported / "saved_model", variant="swin_tiny_patch4_window7_224", protocol="ms")
    assert other.preparation.image_size == (28, 28) and len(other.preparation.mean) == 1
    facts = tmp_path / "alone" / "assets.extra" / "swins.json"
    facts.write_text("[1]")
    with pytest.raises(SwinsError, match=r"swins.json: not what swins writes"):
        swins.load(tmp_path / "alone")
    facts.unlink()
    with pytest.raises(SwinsError, match=r"does not tell how images are prepared; name the variant .*--variant"):
        swins.load(tmp_path / "alone")
    assert swins.load(tmp_path / "alone", variant=NAME)(garment).labels == expected.labels


@pytest.mark.slow
def test_the_lines_of_the_page(converted, garment, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(converted, tmp_path / "artefacts" / "my_swin")
    Image.open(garment).convert("RGB").save("photo.jpg")
    exec(block(PAGES / "classification.md", "predictor = swins.load"), {"swins": swins})
    assert capsys.readouterr().out.startswith("ankle boot ")
    with Image.open("answer.png") as picture:
        assert picture.width == 480 and picture.height == 600 + 5 * 26 + 6


@pytest.mark.slow
def test_the_command(command, converted, garment, idx, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "more").mkdir()
    odd = tmp_path / "more" / os.fsdecode(b"caf\xe9.png")
    shutil.copy(garment, odd)
    shutil.copy(garment, tmp_path / "more" / "boot.png")
    arguments = ("predict", garment, "more", "-m", converted, "-o", "drawn", "--json", "r.json")
    code, out, err = command(*arguments)
    assert code == 0 and out.count("ankle boot") == 3 and err.startswith(f"loading {converted}\n"), err
    assert "loading" not in out
    assert sorted(p.name for p in (tmp_path / "drawn").iterdir()) == ["boot.png", "boot_2.png", "caf\\xe9.png"]
    rows = json.loads((tmp_path / "r.json").read_text())
    assert [row["classes"][0]["name"] for row in rows] == ["ankle boot"] * 3 and len(rows[0]["classes"]) == 5
    code, _, err = command(*arguments)
    assert code == 1 and "exists and would be replaced; pass --overwrite" in err
    assert command(*arguments, "--overwrite")[0] == 0
    (tmp_path / "broken.png").write_bytes(b"no image")
    code, out, err = command("predict", garment, "broken.png", "-m", converted)
    assert code == 1 and "1 of 2 images cannot be read" in err and not out
    frames = [Image.new("L", (28, 28), 80 * i) for i in range(3)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    code, out, err = command("predict", garment, "broken.png", "moving.gif", "-m", converted, "--skip-unreadable")
    assert code == 0 and out.startswith(f"{garment}: ankle boot") and out.count("\n") == 2
    assert err.count("1 file has several frames or pages, of which the first is taken: moving.gif (3)") == 1
    code, out, _ = command("predict", idx, "-m", converted, "--json", "all.json", "--batch", "50")
    assert code == 0 and len(json.loads((tmp_path / "all.json").read_text())) == 70
    code, _, err = command("predict", garment, "-m", tmp_path / "none" / "x")
    assert code == 1 and "neither an artefact, nor a file" in err


def test_results_of_logits_by_hand(garment):
    result = classes_of(np.array([0.0, np.log(3), np.log(6)]), ("a", "b, bee", "\u4e00"), most=2)
    assert (result.labels, result.names) == ((2, 1), ("\u4e00", "b, bee"))
    np.testing.assert_allclose(result.probabilities, (0.6, 0.3))
    assert str(result) == "\u4e00 60.0%, b 30.0%"
    assert classes_of(np.array([1000.0, 0.0])).to_json()["classes"][0] == {
        "label": 0, "name": "class 0", "probability": 1.0
    }  # fmt: skip
    long = Classes((0, 1), ("x" * 400, "\u4e00"), (1.0, 0.0))
    picture = np.asarray(long.draw(garment, width=200))
    assert picture.shape == (250 + 2 * 26 + 6, 200, 3)
    bar = np.all(picture == (213, 94, 0), axis=-1)
    assert bar[250 + 4 + 19].sum() == 193 and bar[250 + 4 + 26 + 19].sum() <= 1  # the whole width, and nothing
    assert long.draw(np.zeros((5, 4, 6), "uint8")).size[0] == 480  # of other channels the first
    assert set(swins.class_names(NAME)) == set(FASHION_MNIST)
