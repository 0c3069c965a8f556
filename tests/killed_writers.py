"""convert, export and eval, killed in every phase, then not: python tests/killed_writers.py ARTEFACT CHECKPOINT DATA.

Each run is a fork of this process, which has imported what it needs and computed nothing. What takes long and is not
about files (timm's part, TensorFlow's SavedModels) is stubbed. Prints {command: {phase: what was there after it}}.
"""

import json
import os
import pathlib
import signal
import sys

from swins import cli, files
from swins.convert import certificate
from swins.errors import SwinsError
from swins.evaluate import records, result_tables
from swins.exports import saved_model_writer, saved_models, targets  # noqa: F401
from swins.weights import artefacts

NAME = "swin_mini_patch2_window4_28"
WRITING = {
    "half written": (artefacts, "write_json"),
    "the old one is away": (pathlib.Path, "rename", ".replaced"),
    "put back": (pathlib.Path, "rename", "artefact"),
    "kept files are carried": (files, "carry"),
    "and the new one is there": (pathlib.Path, "rename", "artefact", 2),
    "the old one is to go": (pathlib.Path, "rename", ".obsolete"),
}
PHASES = {
    "convert": {"compared": (certificate, "certify"), "about to write": (artefacts, "writing"), **WRITING},
    "export": {
        "a part is written": (saved_model_writer, "save"),
        "checked": (saved_models, "check"),
        "the card": (saved_models, "write_card"),
        **WRITING,
    },
    "eval": {
        "some images": (records.Journal, "add"),
        "predictions are there": (result_tables, "write_predictions"),
        "the row is there": (result_tables, "append_row"),
    },
}


def kill_after(owner, name, end="", count=1):
    """Let a function be called so many times, its last argument ending so, then end the process as a power cut does."""
    real, left = getattr(owner, name), [count]

    def call(*arguments, **more):
        value = real(*arguments, **more)
        left[0] -= str(arguments[-1]).endswith(end)
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    setattr(owner, name, call)


def stub(proof):
    """Leave out what is not about files; proof is the certificate of the checkpoint."""
    certificate.certify = lambda *_: dict(proof)

    def save(model, prepare, place, *_):
        (place / "variables").mkdir(parents=True)
        (place / "saved_model.pb").write_text("graph")

    saved_model_writer.save = save
    saved_models.check = lambda task, model, place, parts, proof: {
        name: {"output": part.output, "call": 0.0, "trainable_variables": 0} for name, part in parts.items()
    }


def attempt(command, proof, phase=None):
    """Run a command in a fork, killed after a phase, or not -> how it ended."""
    child = os.fork()
    if not child:
        os.dup2(2, 1)
        try:
            stub(proof)
            if phase:
                kill_after(*phase)
            os._exit(cli.main(command))
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def listing(folder):
    """Every file below a folder, and its bytes' digest."""
    return {str(p.relative_to(folder)): files.sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def another_host(folder):
    """What a reader and a writer of another machine say, and whether they left everything as it was."""
    before, own, said = listing(folder.parent), files.host, []
    files.host = lambda: "other"
    try:
        files.tidy(folder, said.append)
        artefacts.read_certificate(folder)
    except SwinsError as error:
        said.append(str(error))
    files.host = own
    after = {k: v for k, v in listing(folder.parent).items() if not k.endswith(".lock")}
    return said, after == {k: v for k, v in before.items() if not k.endswith(".lock")}


def main(folder, checkpoint, data):
    folder, found = pathlib.Path(folder), {}
    proof = artefacts.read_certificate(folder)
    table, predictions = folder.parent / "results.csv", folder.parent / "predictions.csv"
    commands = {
        "convert": ["convert", "-m", NAME, "--checkpoint", checkpoint, "-o", str(folder), "--overwrite"],
        "export": ["export", str(folder), "--overwrite"],
        "eval": ["eval", str(folder), "--data", data, "--batch", "20", "--quiet"],
    }
    commands["eval"] += ["--results", str(table), "--predictions", str(predictions)]
    for name, phases in PHASES.items():
        found[name] = {}
        for phase, where in phases.items():
            end = attempt(commands[name], proof, where)
            there = listing(folder.parent)
            found[name][phase] = [end, there, *another_host(folder)]
        end = attempt(commands[name], proof)
        found[name]["undisturbed"] = [end, listing(folder.parent), *another_host(folder)]
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
