"""What people say of a model when they export it: of what data it is, its licence, what its classes are called."""

import json
import pathlib
from dataclasses import dataclass

from swins.errors import SwinsError, first_line
from swins.files import sha256
from swins.weights.artefacts import CERTIFICATE


@dataclass(frozen=True)
class Statement:
    """What is said of a model; None where nothing is.

    data: what it was trained on, and license, both for the card; class_names: a text for each class, in the order of
    the outputs, in place of those that are known; results: a results table whose row for these weights the card quotes.
    """

    data: str | None = None
    license: str | None = None
    class_names: tuple | None = None
    results: str | pathlib.Path | None = None

    def __post_init__(self):
        for name in ("data", "license"):
            text = getattr(self, name)
            if text is not None and not (isinstance(text, str) and text.strip() and text.isprintable()):
                raise SwinsError(f"{name} must be a line of text; got {text!r}")
            if text and "--" in text:
                raise SwinsError(f'{name} stands in a comment of the card, so it has no "--"; got {text!r}')
        if self.results and not pathlib.Path(self.results).is_file():
            raise SwinsError(f"{self.results}: no such results table")
        if self.class_names is not None:
            names = [self.class_names] if isinstance(self.class_names, str) else list(self.class_names)
            if strange := [name for name in names if not (isinstance(name, str) and name.strip())]:
                raise SwinsError(f"class_names must be texts, one for each class; got {strange[0]!r}")
            object.__setattr__(self, "class_names", tuple(names))

    def __bool__(self):
        return any(value is not None for value in (self.data, self.license, self.class_names))

    def added(self, certificate: dict, task, model) -> dict:
        """A certificate with what is said. Raises SwinsError for names of other classes than the model has."""
        stated = {"data": self.data, "license": self.license}
        stated = (certificate.get("stated") or {}) | {key: text for key, text in stated.items() if text is not None}
        certificate = certificate | ({"stated": stated} if stated else {})
        if self.class_names is None:
            return certificate
        count = task.namable(model)
        if not count:
            raise SwinsError(
                f"{certificate['name']}: class_names are for models whose answers are one class an image; got one of "
                f"{task.name} that has none; leave them out"
            )
        if len(self.class_names) != count:
            raise SwinsError(
                f"{certificate['name']}: class_names must be as many as its classes; got {len(self.class_names)} names "
                f"({', '.join(self.class_names[:3])}, ...) and {count} classes"
            )
        return certificate | {"class_names": list(self.class_names)}


def read_names(values: list[str]) -> tuple:
    """Names of classes as the command line has them: the names, or one file, a name a line or a JSON list.

    Raises:
        SwinsError: a file that holds no such.
    """
    path = pathlib.Path(values[0])
    if len(values) > 1 or not path.is_file():
        return tuple(values)
    try:
        text = path.read_text(encoding="utf-8")
        names = json.loads(text) if text.lstrip().startswith("[") else text.splitlines()
    except (ValueError, UnicodeDecodeError) as error:
        raise SwinsError(f"{path}: must have a name a line, or be a JSON list of them ({first_line(error)})") from error
    while names and not names[-1]:  # empty lines at the end
        names.pop()
    return tuple(names)


def numbered(folder, part: str) -> dict:
    """The record of a SavedModel in a numbered folder: {"part": of which it is a copy, "files": {path: digest}}."""
    inside = sorted(path for path in pathlib.Path(folder).rglob("*") if path.is_file())
    return {"part": part, "files": {path.relative_to(folder).as_posix(): sha256(path) for path in inside}}


def verify_numbered(folder, certificate: dict) -> None:
    """Raise SwinsError if a numbered folder of an artefact is not as its certificate records."""
    for number, record in certificate.get("served", {}).items():
        place = pathlib.Path(folder, number)
        if numbered(place, record["part"]) != record:
            raise SwinsError(f"{place} is not the SavedModel that {CERTIFICATE} records; export again")
