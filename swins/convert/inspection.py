"""What `swins inspect` says of a file: dialect, numbers, the variants that fit, and what would not load, and why."""

import collections
import pathlib
import tempfile
from dataclasses import asdict, replace

import numpy as np

from swins import detectors, segmenters
from swins.convert import to_torch
from swins.errors import SwinsError
from swins.run_result import model_file, require_finished
from swins.weights import artefacts, checkpoint_files, identify, load, pretrained
from swins.weights.dialects import ELSEWHERE
from swins.weights.networks import UPERNET

KERAS = "keras"  # the dialect of this package's own files


def kind(name, buffers):
    """What a tensor left out is of: the last word of a buffer's name, the first of another's."""
    words = name.removeprefix(ELSEWHERE).split(".")
    return words[-1] if words[0] in ("layers", "stages") or words[-1] in buffers else words[0]


def problems(checkpoint, fits):
    """Why `swins convert` would refuse a Checkpoint -> lines; none if it would not."""
    if not fits:
        name, differences = identify.closest(checkpoint)
        return [f"fits no variant; the closest is {name}, from which it differs in {'; '.join(differences)}"]
    try:
        if checkpoint.network is UPERNET:
            segmenters.with_checkpoint(fits[0], checkpoint, {})
        elif checkpoint.inside:
            detectors.with_checkpoint(fits[0], checkpoint, {})
        else:
            load.model_for(fits[0], checkpoint)
    except SwinsError as error:
        return str(error).splitlines()
    return []


def of_whole(model, path) -> checkpoint_files.Checkpoint:
    """The Checkpoint of a Keras detector or segmenter that a path holds, read as a file of its program is."""
    state, _ = to_torch.program_state(model, path)
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "model.safetensors")
        checkpoint_files.write(state, file)
        return replace(load.read(file), path=pathlib.Path(path), dialect=KERAS, facts=load.known_of(path))


def checkpoint_at(path, weights_key) -> checkpoint_files.Checkpoint:
    """The Checkpoint of a file of any dialect, a folder of one, a .keras file, an artefact or a run."""
    path = pretrained.local(path)
    require_finished(path)
    if weights_key is not None or not load.is_keras(path):
        return load.read(path, weights_key)
    model = artefacts.read_model(model_file(path))
    return load.checkpoint_of(model, path) if hasattr(model, "variant") else of_whole(model, path)


def inspect(path, weights_key=None):
    """Everything that a file tells, as a dict of plain values.

    Raises:
        SwinsError: a file that cannot be read, or that holds no network that is known.
    """
    checkpoint = checkpoint_at(path, weights_key)
    fits, identity = identify.fitting(checkpoint), identify.identify(checkpoint)
    return {
        "file": str(path),
        "dialect": checkpoint.dialect,
        "stripped": list(checkpoint.wrappers),
        "weights": checkpoint.key,
        "other_weights": list(checkpoint.others),
        "tensors": len(checkpoint.state),
        "parameters": sum(int(np.size(value)) for value in checkpoint.state.values()),
        "left_out": dict(collections.Counter(kind(name, checkpoint.network.buffers) for name in checkpoint.left_out)),
        "facts": asdict(checkpoint.facts),
        "model": str(identity),
        **asdict(identity),
        "fits": fits,
        "problems": problems(checkpoint, fits),
    }


def facts_text(facts):
    """What a config.json says, a line for each part."""
    names = facts["class_names"]
    several = f", ... {names[-1]}" if len(names) > 3 else ""

    def listed(numbers):
        return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in numbers.items())

    return {
        "config": facts["source"] or "",
        "  variant": facts["architecture"] or "",
        "  numbers": listed(facts["numbers"]),
        "  images": listed(facts["preparation"]),
        "  classes": f"{', '.join(names[:3])}{several}",
    }


def text(report):
    """The same for people, a line for each."""
    left_out = ", ".join(f"{count} {name}" for name, count in report["left_out"].items())
    lines = {
        "dialect": report["dialect"],
        "stripped": " ".join(report["stripped"]),
        "weights": f"{report['weights'] or 'under no key'}; also {', '.join(report['other_weights'])} (--weights-key)"
        if report["other_weights"]
        else "",
        "tensors": f"{report['tensors']}, {report['parameters']:,} parameters",
        "left out": left_out,
        "model": report["model"],
        **facts_text(report["facts"]),
        "fits": ", ".join(report["fits"]),
        "loads": "everything" if not report["problems"] else "\n".join(["no", *report["problems"]]),
    }
    rows = (f"  {name:<10}{value}" for name, value in lines.items() if str(value))
    return "\n".join((report["file"], *rows))
