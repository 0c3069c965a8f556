"""The detector that the repository brings: it finds garments, and every export of it gives the same boxes."""

import json

import numpy as np
import pytest
from shared_fixtures import ROOT, needs_tensorflow

import swins
from swins.data.coco_scores import coco_scores
from swins.data.detection_layouts import find_evaluation_split
from swins.tasks.detection import DETECTION

DEMO = ROOT / "demo" / "ssd64_swin_mini"
RECIPE = ROOT / "recipes" / "ssd_garments_swin_mini.py"


@pytest.fixture(scope="module")
def canvases():
    """The first 200 canvases that its run was validated on: (images, Objects of each)."""
    text = RECIPE.read_text()
    source = text[text.index("garments:") :].partition("\n")[0].replace("demo/", f"{ROOT}/demo/")
    split = find_evaluation_split(source)
    samples = [split[i] for i in range(200)]
    return [image for _, image, _ in samples], [objects for *_, objects in samples]


@pytest.fixture(scope="module")
def results(canvases):
    """What it finds on these."""
    return swins.load(DEMO)(canvases[0])


def test_it_is_good_enough():
    assert json.loads((DEMO / "result.json").read_text())["AP50"] >= 0.85


@pytest.mark.slow
def test_it_finds_garments(canvases, results):
    scores = coco_scores(canvases[1], results, swins.load(DEMO).facts["classes"])
    assert scores["AP50"] >= 0.83  # of 200 canvases of 2000


def same(ours, theirs):
    """Whether two Detections are the same to a thousandth of a pixel, whatever the order of equal scores."""
    if len(ours) != len(theirs):
        return False
    rows = [np.c_[part.labels, part.scores, part.boxes] for part in (ours, theirs)]
    rows = [part[np.lexsort((part[:, 2].round(1), part[:, 1].round(4), part[:, 0]))] for part in rows]
    return np.abs(rows[0] - rows[1]).max(initial=0) <= 1e-3


@pytest.mark.slow
@needs_tensorflow
def test_every_export_gives_the_same_boxes(canvases, results, command, tmp_path):
    from swins.exports import targets

    out = tmp_path / "out"
    for arguments in ((DEMO, "--deploy", "-o", out), (out, "--to", "onnx", "litert")):
        code, _, err = command("export", *arguments)
        assert code == 0, err
    certificate = json.loads((out / "certificate.json").read_text())
    exports, files = certificate["exports"], certificate["targets"]
    assert exports["saved_model"]["output"] == "boxes, scores, labels, count"
    assert exports["saved_model_raw"]["call"] <= 1e-5
    assert all(max(record["difference"].values()) <= 1e-5 for record in files.values())
    assert b"Flex" not in (out / "model.tflite").read_bytes()
    card = (out / "README.md").read_text()
    assert "$" not in card and "image-object-detection" in card and "ankle boot" in card
    images, _ = canvases
    for place in ("saved_model", "saved_model_deploy", "saved_model_raw"):
        found = swins.load(out / place)(images)
        assert all(map(same, results, found)), place
    predictor = swins.load(DEMO)
    prepared = np.stack([predictor.preparation(image) for image in images])
    for file in ("model.onnx", "model.tflite"):
        raw = targets.run(out / file, images=prepared)["images"]
        found = DETECTION.answers(raw, predictor.facts, [(64, 64)] * len(images))
        assert all(map(same, results, found)), file
    code, _, err = command("verify", out)
    assert code == 0, err
