"""The small models and pictures that come with swins, in a clone or installed: what `swins predict --demo` shows."""

import pathlib
from dataclasses import dataclass

from swins.errors import SwinsError

INSTALLED = pathlib.Path(__file__).with_name("builtin_demo")  # where setup.py puts them in a wheel
CLONE = pathlib.Path(__file__).parents[1] / "demo"
CLASSIFIER = "swin_mini_patch2_window4_28.fashion_mnist"


@dataclass(frozen=True)
class Demo:
    """A model that comes with swins, and the pictures that it is shown.

    title: what it is; model: its file or folder; pictures: a folder; both are below that of all. variant: the name that
    tells its preparation and its classes, where the file does not.
    """

    title: str
    model: str
    pictures: str
    variant: str | None = None


DEMOS = (
    Demo(
        "What is it? A Swin that tells ten kinds of garments apart",
        f"fashion_mnist/{CLASSIFIER}.safetensors",
        "pictures/garments",
        CLASSIFIER,
    ),
    Demo(
        "What is where? An SSD on that Swin, which finds garments (those of a score of at least 0.5)",
        "ssd64_swin_mini",
        "pictures/canvases",
    ),
)


def find(name: str) -> pathlib.Path:
    """Where a file or a folder of these lies.

    Raises:
        SwinsError: if it is not there.
    """
    path = (INSTALLED if INSTALLED.is_dir() else CLONE) / name
    if not path.exists():
        raise SwinsError(f"the demo's files come with swins; {path} is not there; install swins anew, or clone it anew")
    return path


def pictures_of(demo: Demo) -> list[pathlib.Path]:
    """The pictures of a demo, by name; each is called as what is on it."""
    return sorted(find(demo.pictures).glob("*.png"))
