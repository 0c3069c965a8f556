"""Artefact folders: written whole or not at all, and read back."""

import contextlib
import glob
import json
import os
import pathlib
import re
import shutil
import tempfile

import keras

from swins.convert import checkpoint as checkpoints
from swins.convert import rules
from swins.errors import SwinsError, first_line

MODEL, CERTIFICATE, CARD = "model.keras", "certificate.json", "README.md"


def alive(pid):
    """Whether another process of this number runs; one that had this process's number does not."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def sweep(target):
    """Clear up after runs that were killed: put a replaced folder back if its successor never came."""
    target = pathlib.Path(target).resolve()
    for path in target.parent.glob(f".{glob.escape(target.name)}.*"):
        match = re.fullmatch(rf"\.{re.escape(target.name)}\.(\d+)\.\w+\.(partial|replaced)", path.name)
        if not match or alive(int(match[1])):
            continue
        if match[2] == "replaced" and not target.exists():
            path.rename(target)
        else:
            shutil.rmtree(path)


def refuse(target, overwrite):
    """Raise SwinsError if an artefact cannot be written to `target`, or writing it would lose something."""
    there = next(folder for folder in pathlib.Path(target).absolute().parents if folder.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise SwinsError(
            f"{target} cannot be made: {there} is not a folder that can be written; choose another with -o"
        )
    if not target.exists():
        return
    if not overwrite:
        raise SwinsError(f"{target} exists and would be replaced; pass --overwrite, or another folder with -o")
    if not (target.is_dir() and ((target / CERTIFICATE).is_file() or not any(target.iterdir()))):
        raise SwinsError(
            f"{target} is not an artefact (no {CERTIFICATE}), so it is not replaced; choose another with -o"
        )


@contextlib.contextmanager
def writing(target, overwrite=False):
    """Give an empty temporary sibling of `target`; rename it into place if the block ends well, else remove it.

    Raises:
        SwinsError: if the target exists and overwrite is False, or is a folder that is not an artefact.
    """
    target = pathlib.Path(target).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target)
    refuse(target, overwrite)
    prefix = f".{target.name}.{os.getpid()}."
    partial = pathlib.Path(tempfile.mkdtemp(dir=target.parent, prefix=prefix, suffix=".partial"))
    try:
        yield partial
        partial.chmod(0o777 & ~checkpoints.umask())
        refuse(target, overwrite)  # again: another run may have been faster
        replaced = partial.with_suffix(".replaced")
        try:
            if target.exists():
                target.rename(replaced)
            partial.rename(target)
        except BaseException:
            if replaced.exists() and not target.exists():
                replaced.rename(target)
            raise
        shutil.rmtree(replaced, ignore_errors=True)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def refuse_completing(source, target, made, overwrite):
    """Raise SwinsError if `completing` would lose something: an existing target, or files that it would make."""
    source, target = pathlib.Path(source), pathlib.Path(target)
    sweep(target)
    if source.resolve() in target.resolve().parents:
        raise SwinsError(f"{target} lies in {source}, which is copied there; choose a folder beside it with -o")
    if target.absolute() != source.absolute():
        refuse(target, overwrite)
        return
    there = sorted(name for name in made if (source / name).exists())
    if there and not overwrite:
        raise SwinsError(f"{source} has {', '.join(there)} already; pass --overwrite, or another folder with -o")


@contextlib.contextmanager
def completing(source, target, made, overwrite=False):
    """Give a temporary copy of an artefact to add files to; rename it into place if the block ends well.

    Args:
        source: the artefact.
        target: where the result goes: another folder, or the artefact itself.
        made: names of what the block makes; they are not copied.
        overwrite: replace an existing target, or files of those names that the artefact already has.

    Raises:
        SwinsError: if something would be lost, or the model is not the one that was certified.
    """
    source, target = pathlib.Path(source), pathlib.Path(target)
    certificate = read_certificate(source)
    refuse_completing(source, target, made, overwrite)

    def left_out(at, names):
        return set(made) & set(names) if pathlib.Path(at) == source else ()

    with writing(target, overwrite or target.absolute() == source.absolute()) as partial:
        shutil.copytree(source, partial, dirs_exist_ok=True, ignore=left_out)
        if checkpoints.sha256(partial / MODEL) != certificate["model"]["sha256"]:
            raise SwinsError(f"{source}: {MODEL} is not the file that was certified; convert again")
        yield partial


def write_json(path, content):
    """Write a dict as indented JSON."""
    pathlib.Path(path).write_text(json.dumps(content, indent=1) + "\n")


def read_certificate(folder):
    """certificate.json of an artefact folder -> dict. Raises SwinsError when there is none or it is not one."""
    sweep(folder)
    path = pathlib.Path(folder, CERTIFICATE)
    if not path.is_file():
        raise SwinsError(
            f"{folder}: an artefact is a folder with {MODEL} and {CERTIFICATE}; make one with `swins convert`"
        )
    try:
        certificate = json.loads(path.read_text())
        for key in ("name", "architecture", "weights_sha256", "seed"):
            certificate[key]
        for key in ("source", "model"):
            certificate[key]["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise SwinsError(f"{path}: not a certificate ({error!r}); convert again") from error
    return certificate


def load_model(path):
    """The Keras model of a .keras file or an artefact folder, in safe mode.

    Raises:
        SwinsError: no such file, or not a Swin of this package.
    """
    path = pathlib.Path(path)
    file = path / MODEL if path.is_dir() else path
    if not file.is_file():
        raise SwinsError(f"{path}: no {MODEL} there; pass an artefact folder or a .keras file")
    try:
        model = keras.saving.load_model(file, compile=False)
    except Exception as error:  # Keras and zipfile raise whatever a broken file leads them to
        raise SwinsError(f"{file}: not a readable .keras file ({first_line(error)[:300]})") from error
    if not hasattr(model, "variant"):
        raise SwinsError(f"{file}: holds a {type(model).__name__}, not a Swin of this package")
    return model


def open_evaluated(path):
    """What to evaluate, and its papers: an artefact or .keras file -> (model, certificate).

    A .keras file's certificate has only the digest of its weights.

    Raises:
        SwinsError: also if an artefact's model is not the one certified.
    """
    certificate = read_certificate(path) if pathlib.Path(path).is_dir() else {}
    model = load_model(path)
    digest = checkpoints.digest(rules.state_dict(model))
    if certificate and certificate["weights_sha256"] != digest:
        raise SwinsError(f"{path}: {MODEL} does not hold the weights that were certified; evaluate the .keras file")
    return model, {**certificate, "weights_sha256": digest}
