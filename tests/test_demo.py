"""The demo says in its last line whether it worked; `make demo` runs it whole."""

import itertools
import shutil

import pytest
from conftest import ROOT, needs_tensorflow, script

from swins.data import labelled
from swins.errors import SwinsError
from swins.weights import artefacts


@pytest.fixture
def demo():
    return script("demo/run.py")


@pytest.mark.parametrize("error", [SwinsError("a\n- b\n- c"), RuntimeError("graph"), OSError(28, "No space left")])
def test_any_failure_is_said_in_the_last_line(demo, monkeypatch, capsys, error):
    def fail():
        raise error

    monkeypatch.setattr(demo, "demo", fail)
    assert demo.main() == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"demo: FAILED {type(error).__name__}: ") and last.endswith(" s")


def test_facts_out_of_bounds_fail(demo, monkeypatch, capsys):
    monkeypatch.setattr(demo, "demo", lambda: ("disagree=1", False))
    assert demo.main() == 1
    assert capsys.readouterr().out.splitlines()[-1] == "demo: FAILED disagree=1 in 0 s"


@pytest.mark.slow
@needs_tensorflow
def test_every_step_works_on_two_hundred_images(demo, exported, tmp_path, monkeypatch, capsys):
    """Converting and exporting, which other tests do, are taken as done."""
    folder = shutil.copytree(exported, tmp_path / demo.NAME)
    proof, find = artefacts.read_certificate(folder), labelled.find_dataset
    monkeypatch.setattr(demo, "OUT", tmp_path)
    monkeypatch.setattr(demo.conversion, "convert", lambda *_, **__: (folder, proof))
    monkeypatch.setattr(demo.saved_models, "export", lambda *_, **__: (folder, proof))

    def find_some(*given):
        return labelled.Dataset("some", 200, list(itertools.islice(find(*given).samples, 200)))

    monkeypatch.setattr(demo.labelled, "find_dataset", find_some)
    assert demo.main() == 0
    out = capsys.readouterr().out
    assert "predictions that differ: 0 of 200" in out and out.splitlines()[-1].startswith("demo: ok logits_diff=")
    assert (tmp_path / "attention.png").is_file() and (tmp_path / "results.csv").is_file()


def test_the_committed_data_is_whole():
    images, labels = (
        labelled.read_idx(ROOT / "demo" / "fashion_mnist" / f"t10k-{kind}-ubyte.gz")
        for kind in ("images-idx3", "labels-idx1")
    )
    assert images.shape == (10_000, 28, 28) and labels.shape == (10_000,)
