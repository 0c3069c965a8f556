"""Every notebook runs top to bottom on the embedded models; the committed ones hold what they gave, and pictures."""

import re

import nbformat
import pytest
from shared_fixtures import ROOT, needs_tensorflow, script

FOLDER = ROOT / "notebooks"
PICTURES = {
    "classification": 2,
    "finetune": 2,
    "hub": 1,
    "convert_your_own": 1,
    "detection": 2,
    "segmentation": 2,
    "diffusion": 4,
}
SMALLER = {  # parameters set for the test
    "classification": {"COUNT": 2},
    "finetune": {"PER_CLASS": 20, "EPOCHS_FROZEN": 2, "EPOCHS_ALL": 1},
    "hub": {"EPOCHS": 1},
    "convert_your_own": {},
    "detection": {"COUNT": 32, "EPOCHS": 1},
    "segmentation": {"COUNT": 32, "EPOCHS": 1},
    "diffusion": {"EACH": 1, "STEPS": 2, "PER_CLASS": 20, "EPOCHS": 1},
}
OWN_FOLDER = ("detection", "segmentation", "diffusion")  # which write into WORK


def runner():
    return script("notebooks/run.py")


def pictures(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def test_all_are_here():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(PICTURES)


@pytest.mark.slow
@needs_tensorflow
@pytest.mark.parametrize("name", PICTURES)
def test_runs_top_to_bottom(name, request, tmp_path):
    parameters = dict(SMALLER[name])
    if name == "hub":
        parameters["HANDLE"] = str(request.getfixturevalue("exported") / "saved_model")
    if name == "convert_your_own":
        parameters["DATA"] = str(request.getfixturevalue("idx"))  # fewer images
    if name in OWN_FOLDER:
        parameters["WORK"] = str(tmp_path)
    notebook = runner().execute(FOLDER / f"{name}.ipynb", **parameters)
    assert pictures(notebook) == PICTURES[name]


@pytest.mark.parametrize("name", PICTURES)
def test_committed_with_outputs_and_no_errors(name):
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert "google.colab" in code[0].source and "%pip install" in code[0].source
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run it: make notebooks"
    assert pictures(notebook) == PICTURES[name]
    assert not any(output.output_type == "error" for cell in code for output in cell.outputs)
    texts = [cell.source for cell in notebook.cells]
    texts += [str(output.get("text") or output.data) for cell in code for output in cell.outputs]
    assert not re.search(r"(?<![\w.:/])/(?:tmp|home|root|work|usr|var|Users)/", "\n".join(texts)), "a machine's path"
