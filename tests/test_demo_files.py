"""What comes with swins for `swins predict --demo`: its files, its pictures, what is refused, what is shown."""

import importlib.util
import pathlib
import types

import numpy as np
import pytest
from PIL import Image
from shared_fixtures import ROOT, script

from swins import demo_files
from swins.errors import SwinsError
from swins.results import Classes


def test_the_pictures_are_what_the_script_makes():
    made = script("demo/pictures.py")
    pictures = made.garments() | made.canvases()
    committed = {
        str(path.relative_to(ROOT / "demo" / "pictures")) for path in (ROOT / "demo").rglob("pictures/*/*.png")
    }
    assert committed == set(pictures), "python demo/pictures.py"
    for name, pixels in pictures.items():
        with Image.open(ROOT / "demo" / "pictures" / name) as image:
            np.testing.assert_array_equal(np.asarray(image), pixels, err_msg="python demo/pictures.py")
    assert all(len(demo_files.pictures_of(demo)) in (5, 6) for demo in demo_files.DEMOS)


def test_what_the_demo_shows_travels_in_the_wheel_and_in_the_source():
    setup, manifest = ((ROOT / name).read_text() for name in ("setup.py", "MANIFEST.in"))
    patterns = [line for line in setup.splitlines() if line.startswith('        "')]
    patterns = [line.strip(' ",') for line in patterns]
    travelling = {path for pattern in patterns for path in (ROOT / "demo").glob(pattern)}
    for demo in demo_files.DEMOS:
        place = demo_files.find(demo.model)
        needed = {place} if place.is_file() else {place / "model.keras", place / "result.json"}
        assert needed | set(demo_files.pictures_of(demo)) <= travelling
    assert sum(path.stat().st_size for path in travelling) < 7 * 2**20
    assert all(f"demo/{pattern}" in manifest for pattern in patterns)


def test_a_file_that_is_not_there_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_files, "INSTALLED", tmp_path)
    with pytest.raises(SwinsError, match=r"ssd64_swin_mini is not there; install swins anew"):
        demo_files.find("ssd64_swin_mini")


class Told:
    """Stands for a Predictor that says of every picture that it is a bag."""

    task = types.SimpleNamespace(
        predict_options=(),
        select=lambda result, options: result,
        pictures={"": lambda result, image: result.draw(image)},
    )

    def __call__(self, images, batch):
        return [Classes((8,), ("bag",), (0.9,))] * len(images)


def test_it_shows_every_picture_and_draws_it(command, tmp_path, monkeypatch):
    """Without the models, which tests/test_wheel.py has."""
    loaded = []
    monkeypatch.setattr("swins.predictor.load", lambda path, variant: loaded.append((path, variant)) or Told())
    code, out, err = command("predict", "--demo", "-o", tmp_path / "drawn")
    assert code == 0 and err.splitlines() == ["loading the models that come with swins", f"wrote {tmp_path / 'drawn'}"]
    assert (
        out.count("  bag 90.0%\n") == 11 and "demo: ok, 2 models, 11 pictures, " in out and "\nNext:\n  swins " in out
    )
    assert [(path.exists(), variant) for path, variant in loaded] == [(True, demo_files.CLASSIFIER), (True, None)]
    assert len(list((tmp_path / "drawn").glob("*/*.png"))) == 11
    code, out, err = command("predict", "--demo", "-o", tmp_path / "drawn")
    assert code == 1 and "exists and would be replaced; pass --overwrite" in err and len(loaded) == 2 and not out
    assert command("predict", "--demo", "-o", tmp_path / "drawn", "--overwrite")[0] == 0


def test_what_does_not_go_together_and_what_is_missing_is_said_first(command, monkeypatch):
    code, _, err = command("predict")
    assert code == 1 and "predict needs pictures: files, or folders of them; --demo brings its own" in err
    code, _, err = command("predict", "photo.jpg", "--demo", "-m", "model.keras", "--json", "r.json")
    assert code == 1 and "--demo brings its models and pictures; got pictures, -m, --json too" in err
    assert "loading" not in err
    there = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "PIL" else there(name))
    code, _, err = command("predict", "--demo")
    assert code == 1 and "the demo needs Pillow: pip install 'swins[eval]'" in err
    assert pathlib.Path(there("PIL").origin).is_file()
