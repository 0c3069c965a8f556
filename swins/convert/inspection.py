"""What `swins inspect` says of a file: dialect, numbers, the variants that fit, and what would not load, and why."""

import collections
from dataclasses import asdict

import numpy as np

from swins.convert import identify, load
from swins.errors import SwinsError


def kind(name):
    """What a tensor left out is of: the last word of a buffer's name, the first of another's."""
    words = name.split(".")
    return words[-1] if words[0] in ("layers", "stages") else words[0]


def problems(checkpoint, fits):
    """Why `swins convert` would refuse a Checkpoint -> lines; none if it would not."""
    if not fits:
        name, differences = identify.closest(checkpoint)
        return [f"fits no variant; the closest is {name}, from which it differs in {'; '.join(differences)}"]
    try:
        load.model_for(fits[0], checkpoint)
    except SwinsError as error:
        return str(error).splitlines()
    return []


def inspect(path):
    """Everything that a file tells, as a dict of plain values.

    Raises:
        SwinsError: a file that cannot be read, or that holds no Swin.
    """
    checkpoint = load.read(path)
    fits = identify.fitting(checkpoint)
    return {
        "file": str(path),
        "dialect": checkpoint.dialect,
        "stripped": list(checkpoint.wrappers),
        "tensors": len(checkpoint.state),
        "parameters": sum(int(np.size(value)) for value in checkpoint.state.values()),
        "left_out": dict(collections.Counter(kind(name) for name in checkpoint.dropped)),
        **asdict(identify.identify(checkpoint)),
        "fits": fits,
        "problems": problems(checkpoint, fits),
    }


def text(found):
    """The same for people, a line for each."""
    left_out = ", ".join(f"{count} {name}" for name, count in found["left_out"].items())
    identity = identify.Identity(**{name: found[name] for name in identify.Identity.__dataclass_fields__})
    lines = {
        "dialect": found["dialect"],
        "stripped": " ".join(found["stripped"]),
        "tensors": f"{found['tensors']}, {found['parameters']:,} parameters",
        "left out": left_out,
        "model": identity,
        "fits": ", ".join(found["fits"]),
        "loads": "everything" if not found["problems"] else "\n".join(["no", *found["problems"]]),
    }
    rows = (f"  {name:<10}{value}" for name, value in lines.items() if str(value))
    return "\n".join((found["file"], *rows))
