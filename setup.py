"""Puts recipes/ into the wheel, as swins/builtin_recipes; all else is in pyproject.toml."""

import pathlib
import shutil

from setuptools import setup
from setuptools.command.build_py import build_py


class WithRecipes(build_py):
    """Building of packages, with the recipes beside them."""

    def run(self):
        super().run()
        if self.editable_mode:  # which finds them in the clone
            return
        folder = pathlib.Path(self.build_lib, "swins", "builtin_recipes")
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(pathlib.Path(__file__).parent.glob("recipes/*.py")):
            shutil.copy(path, folder)


setup(cmdclass={"build_py": WithRecipes})
