"""The recipes of this project by their names, in a clone or installed, and the files of one's own."""

import ast
import difflib
import pathlib

from swins.errors import SwinsError

INSTALLED = pathlib.Path(__file__).with_name("builtin_recipes")  # where setup.py puts them in a wheel
CLONE = pathlib.Path(__file__).parents[1] / "recipes"


def builtin() -> dict[str, pathlib.Path]:
    """{name: file} of the recipes that come with swins, by name."""
    folder = INSTALLED if INSTALLED.is_dir() else CLONE
    return {path.stem: path for path in sorted(folder.glob("*.py"))}


def listing() -> list[str]:
    """A line on each of these: its name, and the first line of what it says."""
    paths = builtin()
    wide = max(map(len, paths), default=0)
    return [f"{name:{wide}}  {summary(path)}" for name, path in paths.items()]


def summary(path) -> str:
    """The first line of a file's docstring; nothing is executed."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]


def find(name) -> pathlib.Path:
    """The file of a recipe, by its path or by a name of these.

    Raises:
        SwinsError: if there is none.
    """
    path, known = pathlib.Path(name), builtin()
    if path.is_file():
        return path
    if str(name) in known:
        return known[str(name)]
    if path.stem in known and (path.suffix == ".py" or path.parent.name == "recipes"):
        raise SwinsError(f"{path}: no such recipe; the one of this project goes by its name: swins train {path.stem}")
    likely = ", ".join(difflib.get_close_matches(path.stem, known, 3, 0.0))
    raise SwinsError(f"{path}: no such recipe; give a file, or a name: {likely}, ...; `swins train --list` has all")
