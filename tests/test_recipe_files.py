"""Recipes by name, without a clone, and by path."""

import contextlib
import json

import pytest
from shared_fixtures import ROOT

from swins import recipe_files
from swins.errors import SwinsError


def test_every_recipe_of_the_repository_has_a_name_and_a_line():
    known = recipe_files.builtin()
    assert {path.stem for path in (ROOT / "recipes").glob("*.py")} == set(known)
    lines = dict(line.split(maxsplit=1) for line in recipe_files.listing())
    assert lines["finetune"].startswith("Fine-tune a pretrained Swin on your own folder of images")
    assert set(lines) == set(known) and all(len(line) < 121 for line in lines.values())


def test_a_path_comes_before_a_name_and_what_is_neither_is_told(tmp_path):
    assert recipe_files.find("finetune") == ROOT / "recipes" / "finetune.py"
    (tmp_path / "finetune").mkdir()  # a folder is no recipe
    (tmp_path / "mine.py").write_text("")
    with contextlib.chdir(tmp_path):
        assert recipe_files.find("finetune") == ROOT / "recipes" / "finetune.py"
        assert str(recipe_files.find("mine.py")) == "mine.py"
        for name, said in (
            ("recipes/finetune.py", "goes by its name: swins train finetune"),
            ("finetune.py", "goes by its name: swins train finetune"),
            ("finetunes", r"give a file, or a name: finetune, .*; `swins train --list` has all"),
            ("other/mine.py", "no such recipe; give a file, or a name"),
        ):
            with pytest.raises(SwinsError, match=said):
                recipe_files.find(name)


def test_the_command_takes_a_name(command, tmp_path):
    with contextlib.chdir(tmp_path):
        code, out, err = command("train", "finetune", "--print", "--set", "epochs=1")
        assert code == 0 and json.loads(out)["epochs"] == 1, err
        code, out, err = command("train", "--list")
        assert code == 0 and "imagenet1k_swin_tiny " in out and not err
        code, _, err = command("train")
        assert code == 1 and "train needs a recipe: a file, or a name such as finetune" in err
