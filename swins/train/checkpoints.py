"""The state of a run in files: written whole or not at all, read back to the bit, the newest that is sound."""

import collections
import errno
import json
import os
import pathlib
import re
import zipfile
import zlib

import numpy as np
from keras import ops

from swins.errors import SwinsError, first_line

KEPT = 2
DAMAGE = (ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)  # with NotImplementedError


def mean_variables(model):
    """What the means of an epoch, of the loss and of what is measured beside it, are kept in."""
    return [variable for metric in model.metrics for variable in metric.variables]


def variables_of(model):
    """All that a step changes, each once: weights, states of random numbers, the optimiser's, the means."""
    found = [*model.variables, *model.optimizer.variables, *mean_variables(model)]
    return list({id(variable): variable for variable in found}.values())


def name_of(path):
    """The name of a variable in a file: its path, without the numbers that Keras gives to seeds as they are made."""
    return re.sub(r"(^|/)seed_generator(_\d+)?/", r"\1seed_generator/", path)


def matched(variables, recorded, arrays, path):
    """Pairs (variable, array) of the same name and shape; of several alike, in order.

    Args:
        recorded: [[path, shape]], of which arrays are the values.
        path: of the file.

    Raises:
        SwinsError: if there are variables without an array, or arrays without a variable.
    """
    values, missing = collections.defaultdict(list), []
    for (name, shape), array in zip(recorded, arrays, strict=True):
        values[name_of(name), tuple(shape)].append(array)
    pairs = []
    for variable in variables:
        name = name_of(variable.path), tuple(variable.shape)
        if values[name]:
            pairs.append((variable, values[name].pop(0)))
        else:
            missing.append(name)
    extra = [name for name, left in values.items() if left]
    if missing or extra:
        few = [f"- {name} {shape}" for name, shape in missing[:3]] + [f"+ {name} {shape}" for name, shape in extra[:3]]
        raise SwinsError(
            f"{path}: its variables are not this model's ({len(missing)} are missing, {len(extra)} are more: "
            f"{'; '.join(few)}); go on with the version of swins that wrote it, or begin anew, with --overwrite or in "
            "another folder (-o)"
        )
    return pairs


class Checkpoints:
    """A folder of checkpoints, of which the newest are kept.

    A file is a NumPy archive, whose every part has a checksum: the variables, and facts as JSON, their names among
    them.
    """

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)

    def paths(self):
        """Checkpoints, newest first."""
        found = [p for p in self.folder.glob("step-*.npz") if re.fullmatch(r"step-\d+\.npz", p.name)]
        return sorted(found, key=lambda p: int(p.stem.removeprefix("step-")), reverse=True)

    def path(self, step):
        """Where the state after a step is."""
        return self.folder / f"step-{step:08d}.npz"

    def steps(self):
        """Steps after which a state is kept, newest first."""
        return [int(path.stem.removeprefix("step-")) for path in self.paths()]

    def drop(self, first):
        """Take the checkpoints from a step on away, but the oldest there is."""
        for step in self.steps()[:-1]:
            if step >= first:
                self.path(step).unlink()

    def remedy(self, step):
        """What to do about weights that became NaN at a step."""
        way = f"the checkpoints in {self.folder} are from before; go on from there, without --overwrite,"
        if not any(kept < step for kept in self.steps()):
            way = "there is no checkpoint from before; begin again with --overwrite,"
        return f"{way} with a lower optim.learning_rate, or with optim.clip_norm"

    def save(self, model, step, facts):
        """Write the state after a step; facts are JSON. Raises SwinsError if weights are no numbers."""
        getattr(model, "jax_state_sync", lambda: None)()
        variables = variables_of(model)
        arrays = {f"{i:05d}": ops.convert_to_numpy(ops.convert_to_tensor(v)) for i, v in enumerate(variables)}
        names = [[v.path, list(v.shape)] for v in variables]
        weights = zip(model.variables, arrays.values(), strict=False)  # which come first
        wrong = [v.path for v, a in weights if a.dtype.kind == "f" and not np.isfinite(a).all()]
        if wrong:
            raise SwinsError(
                f"after step {step} {len(wrong)} variables are no numbers, such as {wrong[0]}, and not saved; "
                f"{self.remedy(step)}"
            )
        arrays["facts"] = np.frombuffer(json.dumps({**facts, "step": step, "variables": names}).encode(), "uint8")
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path(step)
        partial = path.with_name(f".{path.name}.partial")
        with open(partial, "wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        for old in self.paths()[KEPT:]:
            old.unlink()

    def sound(self, say):
        """The step of the newest checkpoint that can be read, or None where there are none; damaged ones are renamed.

        Raises:
            SwinsError: if none of them is sound, or one cannot be read for a reason that is not its content's.
        """
        paths, broken = self.paths(), []
        for path in paths:
            try:
                read(path)
            except (OSError, *DAMAGE) as error:
                if isinstance(error, OSError) and error.errno != errno.EINVAL:  # a seek to where a damaged file points
                    raise SwinsError(f"{path} cannot be read ({first_line(error)}); start again when it can") from error
                say(f"{path} is damaged ({first_line(error)}); trying the one before it")
                broken.append(path)
                continue
            for other in broken:
                other.rename(other.with_suffix(".damaged"))
            return int(path.stem.removeprefix("step-"))
        if paths:
            raise SwinsError(
                f"{self.folder}: none of its {len(paths)} checkpoints can be read; begin again in another folder with "
                "-o, or with --overwrite"
            )
        return None

    def load(self, model, step):
        """Load the state after a step into a compiled model whose optimiser is built -> its facts.

        Raises:
            SwinsError: if it is of another model.
        """
        facts, arrays = read(self.path(step))
        for variable, array in matched(variables_of(model), facts["variables"], arrays, self.path(step)):
            variable.assign(array)
        return facts


def read(path):
    """(facts, arrays) of a checkpoint. Raises one of DAMAGE if it is damaged."""
    with np.load(path, allow_pickle=False) as file:  # which gives bytes where a member is no array
        facts = json.loads(np.asarray(file["facts"], "uint8").tobytes())
        arrays = [file[f"{i:05d}"] for i in range(len(facts["variables"]))]
    if [list(np.shape(a)) for a in arrays] != [shape for _, shape in facts["variables"]]:
        raise ValueError("arrays are not those that it lists")
    return facts, arrays
