"""The parts that a training run divided its data into, taken up again by an evaluation: train and val."""

import dataclasses
import json
import pathlib
import re
from collections.abc import Callable

from swins.data.split import Split
from swins.errors import SwinsError, unknown_name

PARTS = ("train", "val", "test")
RECORDED = {"train": "training data", "val": "validation data"}  # in a run's recipe.json


def recorded(path, part: str) -> str | None:
    """What the recipe.json of a run, or of one whose folder a .keras file is in, says of a part; None without one."""
    path = pathlib.Path(path)
    file = path.with_name("recipe.json") if path.suffix == ".keras" else path / "recipe.json"
    try:
        return json.loads(file.read_text()).get(RECORDED[part])
    except (OSError, ValueError, AttributeError):
        return None


def trained_on_too(path, count: int | None) -> str | None:
    """What to say of a data set of `count` images of which a run seems to have trained on some; None for nothing.

    path: of the model, as for `recorded`.
    """
    counts = [re.match(r"\d+(?= images)", str(recorded(path, part))) for part in RECORDED]
    if not all(counts) or count != sum(int(found[0]) for found in counts):
        return None
    trained = int(counts[0][0])
    return (
        f"{count} images, as many as {path} divided: if they are the same, it was trained on {trained} of them; "
        "--split val scores the others"
    )


def part_of_run(source, part: str, path, training: dict | None, splits: Callable) -> Split:
    """One of the Splits that a run divided a data set into that has no validation images of its own.

    Args:
        source: the data set.
        part: "train" or "val".
        path: of the model; training: what the run that made it says, None where it is none's.
        splits: (source, held_out, seed) -> (Split to train on, Split to validate on), as the run's kind of work does.

    Raises:
        SwinsError: if the model is of no run, or the images are not those that the run was of.
    """
    if part not in RECORDED:
        raise SwinsError(f"{source}: has no {part} images; leave --split out, or choose train or val")
    if not training:
        raise SwinsError(
            f"{source}: has no validation images of its own, so that --split {part} is of those that a training run "
            f"held out, and {path} is of none; give the run's folder, or leave --split out"
        )
    held_out, seed = training["recipe"].get("data.held_out", 0.1), training["recipe"].get("seed", 0)
    split = splits(source, held_out, seed)[list(RECORDED).index(part)]
    stated = recorded(path, part)
    if stated and stated != split.summary():
        raise SwinsError(
            f"{source}: its images are not those that {path} was trained with ({part}: {stated}; now "
            f"{split.summary()}), so that it is not known which were held out; give the same data, or leave --split out"
        )
    which = "held out to validate on" if part == "val" else "trained on"
    note = f"of {source} the {len(split)} images that the run {which} (data.held_out={held_out:g}, seed={seed})"
    if not stated:
        note += "; whether it was trained with the same images is not known: no recipe.json lies beside it"
    return dataclasses.replace(split, notes=(note, *split.notes))


def parts_of_run(source, path, training: dict | None, splits: Callable) -> Callable[[str], Split] | None:
    """A function: "train" or "val" -> that part of a data set that a run divided; None of a model that is of no run.

    Arguments as for `part_of_run`.
    """
    return (lambda part: part_of_run(source, part, path, training, splits)) if training else None


def divided_by_run(part: str | None, known, of_run: Callable | None) -> bool:
    """Whether a part of a data set is one that a run made of it: to train or validate on, where it has no other.

    Args:
        part: that is asked for; known: names of those that the data set has; of_run: what `parts_of_run` gives.
    """
    return bool(of_run) and part in RECORDED and "train" in known and "val" not in known


def require_part(part: str | None) -> None:
    """Raise SwinsError for what is no name of a part."""
    if part not in (None, *PARTS):
        raise unknown_name("split", part, PARTS)
