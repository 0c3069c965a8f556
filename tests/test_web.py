"""A classifier as a web page: what is written, what is refused, and the page in a browser beside the Predictor."""

import json
import re
import shutil

import numpy as np
import pytest
from browser import BROWSER, page_of, served
from PIL import Image
from shared_fixtures import needs_tensorflow

import swins
from swins.exports import targets, web
from swins.images import Preprocess

pytestmark = needs_tensorflow


@pytest.fixture
def quick(monkeypatch):
    """Without conversion and npm."""

    def export(source, wanted, output, say):
        shutil.copytree(source, output)
        (output / "model.onnx").write_bytes(b"a model")
        return output, json.loads((output / "certificate.json").read_text())

    monkeypatch.setattr(targets, "export", export)
    monkeypatch.setattr(web, "fetch_runtime", lambda folder: [(folder / name).touch() for name in web.PARTS])


def test_the_folder_and_what_is_not_replaced(small_artefact, quick, command, tmp_path):
    out = tmp_path / "site"
    code, text, err = command("export", small_artefact, "--to", "web", "-o", out)
    assert code == 0 and f"python -m http.server --directory {out}" in text, err
    assert sorted(path.name for path in out.iterdir()) == sorted([web.PAGE, "model.onnx", *web.PARTS])
    facts = json.loads(re.search(r'type="application/json">(.*?)</script>', (out / web.PAGE).read_text())[1])
    assert facts["names"] == ["Bag", "ankle boot", "Trouser"] and facts["size"] == [28, 28] and facts["mean"] == [0.4]
    code, _, err = command("export", small_artefact, "--to", "web", "-o", out)
    assert code == 1 and "exists and would be replaced; pass --overwrite for a page" in err
    assert command("export", small_artefact, "--to", "web", "-o", out, "--overwrite")[0] == 0
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    code, _, err = command("export", small_artefact, "--to", "web", "-o", tmp_path / "other", "--overwrite")
    assert code == 1 and "exists and would be replaced" in err
    code, _, err = command("export", small_artefact, "--to", "web", "onnx")
    assert code == 1 and "--to web is a command of its own" in err


def test_names_end_no_script_and_what_cannot_be_a_page(small_artefact, quick, command, tmp_path, monkeypatch):
    text = web.page("a<b>", Preprocess((2, 3), (4, 5), True, (0.1,), (0.2,)), ["</script>", "ü"])
    assert "<title>a&lt;b&gt;</title>" in text and text.count("</script>") == 2 and "ü" in text
    swins.create("swin_mini_patch2_window4_28", num_classes=3).save(tmp_path / "bare.keras")
    proof = json.loads((small_artefact / "certificate.json").read_text())
    (small_artefact / "certificate.json").write_text(json.dumps({k: v for k, v in proof.items() if k != "training"}))
    code, _, err = command("export", small_artefact, "--to", "web", "-o", tmp_path / "out")
    assert code == 1 and "does not tell how images are prepared" in err and not (tmp_path / "out").exists()
    monkeypatch.undo()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(swins.SwinsError, match="npm is not installed"):
        web.fetch_runtime(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not (BROWSER and shutil.which("npm")), reason="needs Chromium and npm")
def test_the_page_says_in_a_browser_what_the_predictor_says(exported, targeted, tmp_path, pixels, monkeypatch):
    """Files of other sizes and colours than the model's; the same numbers, as pixels are Pillow's."""

    def export(source, wanted, output, say):
        shutil.copytree(source, output)
        shutil.copy(targeted / "model.onnx", output)
        return output, json.loads((output / "certificate.json").read_text())

    monkeypatch.setattr(targets, "export", export)
    try:
        site = web.export_page(exported, tmp_path / "site")
    except swins.SwinsError as error:
        pytest.skip(str(error))  # no network
    grey = Image.fromarray(pixels[0][0])
    files = {"same.png": grey, "wide.png": grey.resize((83, 61), 3), "tall.png": grey.resize((40, 130), 3)}
    files["colour.png"] = Image.merge("RGB", [grey, grey.rotate(90), grey.rotate(180)]).resize((57, 57), 3)
    for name, image in files.items():
        image.save(site / name)
    with served(site) as address:
        for name, result in zip(files, swins.load(exported)([site / name for name in files]), strict=True):
            page = page_of(f"{address}/index.html?picture={name}", tmp_path / "profile")
            said = re.findall(r'<div>([^<]*) [\d.]+%</div><meter value="([\d.e-]+)">', page)
            assert tuple(text for text, _ in said) == result.names, page[-2000:]
            np.testing.assert_allclose([float(p) for _, p in said], result.probabilities, atol=1e-5)
