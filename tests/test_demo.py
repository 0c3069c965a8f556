"""The demo says in its last line whether it worked; `make demo` runs it whole."""

import pathlib

import pytest
from conftest import script

from swins.data import labelled
from swins.errors import SwinsError

ROOT = pathlib.Path(__file__).parents[1]


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


def test_the_committed_data_is_whole():
    images, labels = (
        labelled.read_idx(ROOT / "demo" / "fashion_mnist" / f"t10k-{kind}-ubyte.gz")
        for kind in ("images-idx3", "labels-idx1")
    )
    assert images.shape == (10_000, 28, 28) and labels.shape == (10_000,)
