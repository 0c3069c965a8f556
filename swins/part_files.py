"""Rows of many images in the files of a folder, part by part: written once each, whole, by one process.

FOLDER holds `_parts.json`, which says what the rows are of, and `part-00000.parquet`, `part-00001.parquet`, ... or,
where FOLDER's name ends in .jsonl, `part-00000.jsonl` of a line of JSON a row. What begins with _ is no data to those
that read such folders: Ray Data, Spark, pandas.
"""

import json
import pathlib
import re

from swins import files
from swins.errors import SwinsError, missing_package

LINES, PARQUET = ".jsonl", ".parquet"
IDENTITY = "_parts.json"
KEYS = ("image", "unreadable")  # of every row: the image's name; why it could not be read, or None
PLAIN = {int: "int64", float: "float64", str: "string"}  # how Arrow calls Python's types


def arrow():
    """The modules pyarrow and pyarrow.parquet. Raises SwinsError if they are missing."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise missing_package("writing Parquet", "pyarrow", "ray") from error
    return pyarrow, parquet


def arrow_type(kind):
    """The type of Arrow for a type of Python: int, float, str, [kind] for a list, {name: kind} for a row of these."""
    pyarrow, _ = arrow()
    if isinstance(kind, list):
        return pyarrow.list_(arrow_type(kind[0]))
    if isinstance(kind, dict):
        return pyarrow.struct([(name, arrow_type(inner)) for name, inner in kind.items()])
    return pyarrow.type_for_alias(PLAIN[kind])


class Parts:
    """The files of a folder.

    Args:
        folder: it is made, if it is not there.
        identity: what the rows are of, as JSON: files of another identity are not gone on with.
        overwrite: whether files of another identity are removed; a user's own files never are.

    Raises:
        SwinsError: if the folder holds something else.
    """

    def __init__(self, folder, identity, overwrite=False):
        self.folder = pathlib.Path(folder)
        self.ending = LINES if self.folder.suffix == LINES else PARQUET
        if self.ending == PARQUET:
            arrow()  # before long work
        text, stated = json.dumps(identity, sort_keys=True) + "\n", self.folder / IDENTITY
        if self.folder.exists() and not self.folder.is_dir():
            raise SwinsError(f"{folder} is a file, and rows go into a folder; choose another")
        there = sorted(path.name for path in self.folder.iterdir()) if self.folder.is_dir() else []
        if there and not (stated.is_file() and stated.read_text(encoding="utf-8") == text):
            own = [name for name in there if name == IDENTITY or re.fullmatch(r"part-\d+\.(jsonl|parquet)", name)]
            if IDENTITY not in own or len(own) < len(there):
                raise SwinsError(f"{folder} exists and holds other files, as {there[0]}; choose another folder")
            if not overwrite:
                raise SwinsError(
                    f"{folder} exists and holds rows of another model, other images or options; pass --overwrite, or "
                    "choose another folder"
                )
            for name in sorted(own, reverse=True):  # what they are of goes last
                (self.folder / name).unlink()
        self.folder.mkdir(parents=True, exist_ok=True)
        files.write(stated, text)

    def path(self, number) -> pathlib.Path:
        """The file of a part, which is there if the part is done."""
        return self.folder / f"part-{number:05}{self.ending}"

    def trim(self, count) -> None:
        """Remove parts from this number on: of images that are no longer there."""
        for path in self.folder.glob(f"part-*{self.ending}"):
            if int(path.stem.removeprefix("part-")) >= count:
                path.unlink()

    def read(self, number, columns=None) -> list[dict]:
        """The rows of a part that is done; of Parquet the columns that are named, or all."""
        path = self.path(number)
        if self.ending == PARQUET:
            return arrow()[1].read_table(path, columns=columns).to_pylist()
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def holds(self, number, named, skip_unreadable) -> bool:
        """Whether a part is done, and has the rows of these images.

        Args:
            named: (image's name, what is true of it, as JSON, where rows have that) of each.
            skip_unreadable: whether what could not be read stays so; it is tried again otherwise.
        """
        if not self.path(number).is_file():
            return False
        rows = self.read(number, list(KEYS))
        alike = [(row["image"], *([row["truth"]] if "truth" in row else [])) for row in rows] == named
        return alike and (skip_unreadable or not any(row.get("unreadable") for row in rows))

    def write(self, number, rows, kinds) -> None:
        """Write a part, whole or not at all.

        Args:
            rows: dicts with an "image" each and, where it could not be read, "unreadable".
            kinds: {name: kind of `arrow_type`} of what else they have; lines of JSON need none.
        """
        unknown = set().union(*rows) - {*KEYS, *kinds}
        if self.ending == PARQUET and unknown:
            raise SwinsError(
                f"Parquet needs to know what {', '.join(sorted(unknown))} of these results are; choose a folder whose "
                f"name ends in {LINES}"
            )
        with files.replacing(self.path(number)) as partial:
            if self.ending == PARQUET:
                pyarrow, parquet = arrow()
                fields = {**dict.fromkeys(KEYS, str), **kinds}
                schema = pyarrow.schema([(name, arrow_type(kind)) for name, kind in fields.items()])
                parquet.write_table(pyarrow.Table.from_pylist(rows, schema), partial)
            else:
                partial.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
