"""Puts recipes/ and what the demo shows into the wheel, as swins/builtin_*; all else is in pyproject.toml."""

import pathlib
import shutil

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = pathlib.Path(__file__).parent
BUILTIN = {  # folder of the repository: what of it travels; swins/recipe_files.py and swins/demo_files.py find it
    "recipes": ("*.py",),
    "demo": (
        "fashion_mnist/*.safetensors",
        "fashion_mnist/LICENSE",
        "pictures/*/*.png",
        "ssd64_swin_mini/*.json",
        "ssd64_swin_mini/model.keras",
    ),
}


class WithBuiltin(build_py):
    """Building of packages, with these files beside them."""

    def run(self):
        super().run()
        if self.editable_mode:  # which finds them in the clone
            return
        for name, patterns in BUILTIN.items():
            source, target = HERE / name, pathlib.Path(self.build_lib, "swins", f"builtin_{name}")
            for path in sorted(path for pattern in patterns for path in source.glob(pattern)):
                copy = target / path.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, copy)


setup(cmdclass={"build_py": WithBuiltin})
