"""What SavedModels say of image files, and what people say of a model: names, numbered folders, the card."""

import json

import keras
import numpy as np
import pytest
from shared_fixtures import DATA, NAME, needs_tensorflow
from training import RESULT

import swins
from swins.errors import SwinsError
from swins.exports import order, saved_model_writer, saved_models
from swins.exports.statements import Statement, read_names
from swins.labels import FASHION_MNIST
from swins.tasks import classification_export
from swins.tasks.classification import CLASSIFICATION
from swins.weights import artefacts

pytestmark = needs_tensorflow
CLASSES = RESULT["classes"]


@pytest.fixture
def stubbed(monkeypatch):
    """SavedModels that are written in no time and agree -> their (name, Part), as they are written."""
    written = []

    def save(model, prepare, folder, part):
        written.append((folder.name, part))
        (folder / "variables").mkdir(parents=True)
        (folder / "saved_model.pb").write_text(folder.name)

    def check(task, model, folder, parts, certificate):
        record = {"call": 0.0, "trainable_variables": 1}
        record |= {"serving_bytes": 0.0} if task.serving(model, certificate) else {}
        return {name: {"output": part.output, **record} for name, part in parts.items()}

    monkeypatch.setattr(saved_model_writer, "save", save)
    monkeypatch.setattr(saved_models, "check", check)
    return written


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_files_are_answered_with_names_as_a_predictor_answers(exported):
    """By the numbered folder, which is what TF Serving runs."""
    import tensorflow as tf

    photographs = saved_models.photographs((28, 28))
    model = tf.saved_model.load(str(exported / "1"))
    answers = model.signatures["serving_bytes"](image_bytes=tf.constant(photographs))
    answers = {name: value.numpy() for name, value in answers.items()}
    predictor = swins.load(exported)
    for i, result in enumerate(predictor(photographs)):
        assert tuple(text.decode() for text in answers["names"][i]) == result.names
        assert tuple(answers["indices"][i].tolist()) == result.labels
        np.testing.assert_allclose(answers["scores"][i], result.probabilities, atol=1e-4)  # pixels differ by rounding
    np.testing.assert_allclose(answers["probabilities"].sum(1), 1, atol=1e-6)
    assert set(result.names) <= set(FASHION_MNIST)
    proof = artefacts.read_certificate(exported)
    assert proof["exports"]["saved_model_deploy"]["serving_bytes"] <= 1e-5
    assert proof["served"]["1"] == {
        "part": "saved_model_deploy",
        "files": proof["exports"]["saved_model_deploy"]["files"],
    }
    assert "license: apache-2.0" in (exported / "README.md").read_text()


def test_wrong_answers_are_seen(rng):
    """Each of them changed alone; classes of one probability may change places."""
    names = ("ant", "bee", "cow", "dog", "elk", "fox")
    logits = rng.normal(size=(3, 6)).astype("float32")
    logits[1, :] = 0.5
    expected = {k: np.array(v) for k, v in classification_export.answers(names, {"logits": logits}).items()}
    expected["names"] = np.char.decode(expected["names"].astype("S"))

    def apart(**changed):
        return classification_export.difference(names, {**expected, **changed}, expected)

    assert apart() <= 1e-6
    swapped = {key: expected[key].copy() for key in ("indices", "names")}
    for values in swapped.values():
        values[1, :2] = values[1, 1::-1]
    assert apart(**swapped) <= 1e-6
    for values in swapped.values():
        values[0, :2] = values[0, 1::-1]
    assert apart(**swapped) > 0.01
    assert apart(names=np.roll(expected["names"], 1, axis=1)) == np.inf
    assert apart(indices=np.zeros_like(expected["indices"])) == np.inf
    assert apart(scores=expected["scores"] + 0.01) > 0.009
    assert apart(probabilities=expected["probabilities"] * 1.01) > 0.001
    assert apart(logits=logits * 1.01) > 0.001
    assert classification_export.difference(names, {"logits": logits}, expected) == np.inf


@pytest.mark.slow
def test_a_model_of_ones_own_is_exported_from_python(tmp_path, stubbed, capsys):
    """Without touching it: its names, its preparation as its weights', a card, and the next export adds to it."""
    model = swins.create(NAME, weights=DATA / f"{NAME}.safetensors", num_classes=3)
    before = dict(model.origin)
    folder = swins.export(
        model, tmp_path / "mine", class_names=CLASSES, data="my photographs", license="MIT", serving=True
    )
    assert model.origin == before
    out, err = capsys.readouterr()
    assert not out and "writing saved_model (logits)" in err
    (_, part), *_ = stubbed
    assert part.of_files.args == (tuple(CLASSES),)
    card = (folder / "README.md").read_text()
    for words in (json.dumps(CLASSES), "dataset: my photographs", "license: MIT", "as the model remembers", "mine"):
        assert words in card, words
    assert swins.load(folder).facts["classes"] == CLASSES
    assert CLASSIFICATION.serving(model, artefacts.read_certificate(folder)) == swins.preprocess(NAME)
    with pytest.raises(SwinsError, match="exists and would be replaced"):
        swins.export(model, tmp_path / "mine")
    assert swins.export(folder, deploy=True, serving=2, say=None) == folder
    assert not capsys.readouterr().err
    assert [name for name, _ in stubbed] == ["saved_model", "saved_model_fe", "saved_model_deploy"]
    served = artefacts.read_certificate(folder)["served"]
    assert [served[n]["part"] for n in ("1", "2")] == ["saved_model", "saved_model_deploy"]
    card = (folder / "README.md").read_text()
    assert "| `2/` | a copy of `saved_model_deploy` for TF Serving and `swins serve` |" in card
    assert tree(folder / "2") == tree(folder / "saved_model_deploy") != tree(folder / "1")
    with pytest.raises(SwinsError, match="its SavedModels hold the names of its classes; pass --overwrite"):
        swins.export(folder, class_names=["x", "y", "z"])
    swins.export(folder, class_names=["x", "y", "z"], overwrite=True)
    assert swins.load(folder).facts["classes"] == ["x", "y", "z"] and (folder / "1").is_dir()
    (folder / "2" / "saved_model.pb").write_text("other")
    with pytest.raises(SwinsError, match="2 is not the SavedModel"):
        saved_models.verify_exports(folder)


@pytest.mark.slow
def test_the_command_states_and_says_what_has_no_name(tmp_path, stubbed, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    swins.create(NAME, weights=DATA / f"{NAME}.safetensors", num_classes=3).save("bare.keras")
    (tmp_path / "names.txt").write_text("ein\nzwei\ndrei\n\n")
    code, out, err = command("export", "bare.keras", "-o", "plain", "--serving", 7, "--license", "cc0")
    assert code == 0, err
    assert "nothing tells the names of its classes, so its answers are numbers: class 0, class 1" in err
    assert f"plain/7: for TF Serving: --model_base_path={tmp_path / 'plain'} --model_name=plain" in out
    assert "Its classes have no names, only numbers" in (tmp_path / "plain" / "README.md").read_text()
    code, _, err = command("export", "plain", "--data", "photographs of mine")  # the card alone
    assert code == 0 and "writing" not in err, err
    card = (tmp_path / "plain" / "README.md").read_text()
    assert "dataset: photographs of mine" in card and "license: cc0" in card
    code, _, err = command("export", "bare.keras", "-o", "named", "--classes", "names.txt")
    assert code == 0 and "class 0" not in err, err
    assert artefacts.read_certificate(tmp_path / "named")["class_names"] == ["ein", "zwei", "drei"]
    for arguments, text in (
        (("--classes", "one", "two"), "must be as many as its classes; got 2 names (one, two, ...) and 3 classes"),
        (("--license", "a -- b"), 'it has no "--"'),
        (
            ("--to", "onnx", "--serving"),
            "ask for them too: --to saved_model onnx, in Python to=['saved_model', 'onnx']",
        ),
        (("--to", "onnx", "--data", "x"), "a statement for the card: only SavedModels and their card have it; ask for"),
        (("--precision", "float16"), "a SavedModel has one form"),
    ):
        code, _, err = command("export", "bare.keras", "-o", "other", *arguments)
        assert code == 1 and text in err
    assert not (tmp_path / "other").exists()


def test_what_is_no_name_or_no_model_of_ours(tmp_path):
    (tmp_path / "names.json").write_text('["a", 3]')
    (tmp_path / "broken.json").write_text('["a", ')
    with pytest.raises(SwinsError, match="class_names must be texts, one for each class; got 3"):
        Statement(class_names=read_names([str(tmp_path / "names.json")]))
    with pytest.raises(SwinsError, match=r"broken.json: must have a name a line"):
        read_names([str(tmp_path / "broken.json")])
    assert read_names(["a", "b"]) == ("a", "b") and not Statement() and Statement(license="x")
    with pytest.raises(SwinsError, match="takes a model of this package; got a Sequential"):
        swins.export(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), tmp_path / "out")
    whole = swins.load(swins_file(tmp_path), raw=True)
    with pytest.raises(SwinsError, match=r"got a PixelClassifier; pass its \.classifier"):
        swins.export(whole, tmp_path / "out")
    with pytest.raises(SwinsError, match="at least 1; got 0"):
        swins.export(tmp_path / "mini.keras", tmp_path / "out", serving=0)
    assert order.Order().statement == Statement()


def swins_file(folder):
    """A .keras file of a small model that `swins.load` takes."""
    swins.create(NAME).save(folder / "mini.keras")
    return folder / "mini.keras"
