"""Artefact folders: written whole or not at all, and read back.

What swins wrote into one is what its certificate records; everything else in it is its user's, and stays.
"""

import contextlib
import json
import os
import pathlib

import keras

from swins import files
from swins.errors import SwinsError, first_line
from swins.fresh_weights import weights_follow
from swins.weights import checkpoint_files, networks

MODEL, CERTIFICATE, CARD, RESULT = "model.keras", "certificate.json", "README.md", "result.json"
CARD_BEGINS = "# Module swins/"
SAVED_MODEL = ("saved_model.pb", "fingerprint.pb", "variables/variables.index", "assets")
SAVED_MODEL += ("variables/variables.data-00000-of-00001",)  # what TensorFlow calls the files of one


def quiet(text):
    """Say nothing."""


def archive_name(part):
    """saved_model -> model.tar.gz"""
    return f"{part.replace('saved_model', 'model')}.tar.gz"


def same(path, sha256):
    """Whether a file has this digest; any has, where none was recorded."""
    return path.is_file() and sha256 in (None, files.sha256(path))


def own_card(folder, certificate):
    """Whether a folder's card is as swins wrote it."""
    if "card" in certificate:
        return same(folder / CARD, certificate["card"]["sha256"])
    with contextlib.suppress(OSError, UnicodeDecodeError):  # certificates of 0.1.0 record none
        return "exports" in certificate and (folder / CARD).read_text().startswith(CARD_BEGINS)
    return False


def own_files(folder):
    """What swins wrote into an artefact and is as its certificate records -> set of relative paths, as text."""
    folder, own = pathlib.Path(folder), {MODEL, CERTIFICATE}
    try:
        certificate = read_certificate(folder)
    except SwinsError:
        return own
    own |= {CARD} if own_card(folder, certificate) else set()
    recorded = {RESULT: certificate["training"]["sha256"]} if "training" in certificate else {}
    for part, record in certificate.get("exports", {}).items():
        inside = record.get("files") or dict.fromkeys(SAVED_MODEL)  # certificates of 0.1.0 name none
        own |= {f"{part}/assets"}
        recorded |= {archive_name(part): record["sha256"], **{f"{part}/{name}": h for name, h in inside.items()}}
    for number, record in certificate.get("served", {}).items():
        own |= {f"{number}/assets"}
        recorded |= {f"{number}/{name}": sha256 for name, sha256 in record["files"].items()}
    for record in certificate.get("targets", {}).values():
        recorded |= record["files"]
    return own | {name for name, sha256 in recorded.items() if same(folder / name, sha256)}


def refuse(target, overwrite):
    """Raise SwinsError if an artefact cannot be written to `target`, or writing it would lose something."""
    target = pathlib.Path(target)
    there = next(folder for folder in target.absolute().parents if folder.exists())
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


def begin(target, overwrite=False, say=quiet):
    """Before long work: what `writing` would refuse at its end is refused, and what a killed run laid aside put back.

    Raises:
        SwinsError: as `writing` does.
    """
    files.tidy(target, say)
    refuse(target, overwrite)


def writing(target, overwrite=False, say=quiet, remedy="export again"):
    """Give an empty temporary sibling of `target`; rename it into place if the block ends well, else remove it.

    Of an artefact that is replaced, everything stays that swins did not write: see `own_files`. What goes is said with
    the remedy, unless that is empty.

    Raises:
        SwinsError: if the target exists and overwrite is False, or is a folder that is not an artefact; if another
            process writes it; if the new one has a file of a name that the user has.
    """
    target = pathlib.Path(target)
    begin(target, overwrite, say)

    def check(folder):
        refuse(folder, overwrite)

    def dropped(folder):
        own = own_files(folder)
        gone = sorted({name.partition("/")[0] for name in own} - {MODEL, CERTIFICATE, CARD, RESULT})
        if gone and remedy:
            say(f"{', '.join(gone)} of the model that was there go with it; {remedy}")
        return lambda path: path.as_posix() in own

    return files.folder(target, check, dropped, say)


def refuse_completing(source, target, made, overwrite):
    """Raise SwinsError if `completing` would lose something: an existing target, or files that it would make."""
    source, target = pathlib.Path(source), pathlib.Path(target)
    if source.resolve() in target.resolve().parents:
        raise SwinsError(f"{target} lies in {source}, which is copied there; choose a folder beside it with -o")
    if target.absolute() != source.absolute():
        refuse(target, overwrite)
        return
    there = sorted(name for name in made if (source / name).exists())
    if there and not overwrite:
        raise SwinsError(f"{source} has {', '.join(there)} already; pass --overwrite, or another folder with -o")
    own = own_files(source)
    theirs = [name for name in there if not any(path.partition("/")[0] == name for path in own)]
    has_card = "exports" in read_certificate(source) or any(name.startswith("saved_model") for name in made)
    if has_card and (source / CARD).exists() and CARD not in own:
        theirs.append(CARD)
    if theirs:
        raise SwinsError(
            f"{source}: {', '.join(theirs)} would be replaced, and is not as swins wrote it; move it away, or choose "
            "another folder with -o"
        )


@contextlib.contextmanager
def completing(source, target, made, overwrite=False, say=quiet):
    """Give a temporary folder for files to add to an artefact; all get into place at once, if the block ends well.

    Args:
        source: the artefact.
        target: where the result goes: another folder, or the artefact itself.
        made: names of what the block makes, beside the certificate and the card; what the artefact has under them is
            not kept.
        overwrite: replace an existing target, or files of those names that the artefact already has.
        say: called with a line of text on what others left.

    Raises:
        SwinsError: if something would be lost, or the model is not the one that was certified.
    """
    source, target = pathlib.Path(source), pathlib.Path(target)
    files.tidy(source, say)
    certificate, begun = read_certificate(source), state_of(source)
    refuse_completing(source, target, made, overwrite)
    if files.sha256(source / MODEL) != certificate["model"]["sha256"]:
        raise SwinsError(f"{source}: {MODEL} is not the file that was certified; convert again")

    def made_anew(path):
        return path.parts[0] in made or (partial / path).exists()

    def check(folder):
        if state_of(folder) != begun:
            raise SwinsError(f"{source} was changed while this ran; nothing was kept; run it again")

    def dropped(folder):
        own = own_files(folder)
        return lambda path: path.as_posix() in own and made_anew(path)

    if target.absolute() == source.absolute():
        with files.folder(source, check, dropped, say) as partial:
            yield partial
        return
    with writing(target, overwrite, say, remedy="") as partial:
        yield partial
        files.carry(source, partial, made_anew, files.copy)
        check(source)


def state_of(folder):
    """What another writer of an artefact would change."""
    try:
        facts = (folder / MODEL).stat()
        return read_certificate(folder), facts.st_size, facts.st_mtime_ns
    except (OSError, SwinsError):
        return None


def write_json(path, content):
    """Write a dict as indented JSON."""
    files.write(path, json.dumps(content, indent=1) + "\n")


def read_certificate(folder):
    """certificate.json of an artefact folder -> dict. Raises SwinsError when there is none or it is not one."""
    path = pathlib.Path(folder, CERTIFICATE)
    if not path.is_file():
        raise SwinsError(
            files.laid_aside(folder)
            or f"{folder}: an artefact is a folder with {MODEL} and {CERTIFICATE}; make one with `swins convert`, of a "
            "training run with `swins export`"
        )
    try:
        certificate = json.loads(path.read_text())
        for key in ("name", "architecture", "weights_sha256", "seed"):
            certificate[key]
        for key in ("source", "model"):
            certificate[key]["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise SwinsError(f"{path}: not a certificate ({error!r}); convert again") from error
    return today(certificate)


def today(certificate):
    """A certificate in the words of today: until 0.1.0 those of classifiers told of "logits" and "top1_agreement"."""
    if "logits" in certificate:
        outputs = {"logits": certificate.pop("logits")}
        shares = {"top5": certificate.pop("top5_agreement")} if "top5_agreement" in certificate else {}
        tolerance = certificate.get("tolerance", {})
        tolerance = {"outputs": tolerance.get("logits"), "block": tolerance.get("block")}
        certificate |= {"outputs": outputs, "agreement": shares, "tolerance": tolerance}
    for record in certificate.get("targets", {}).values():
        if "top1_agreement" in record:
            share = record.pop("top1_agreement")
            record["agreement"] = {} if share is None else {"top1": share}
    return certificate


def read_model(path):
    """The Keras model of a .keras file or an artefact folder, in safe mode, of whatever kind.

    Raises:
        SwinsError: no such file, or one that Keras cannot read.
    """
    path = pathlib.Path(path)
    file = path / MODEL if path.is_dir() else path
    if not file.is_file():
        raise SwinsError(
            files.laid_aside(path) or f"{path}: no {MODEL} there; pass an artefact folder or a .keras file"
        )
    try:
        with weights_follow():  # Keras refuses a file without one of them
            return keras.saving.load_model(file, compile=False)
    except Exception as error:  # Keras and zipfile raise whatever a broken file leads them to
        raise SwinsError(f"{file}: not a readable .keras file ({first_line(error)[:300]})") from error


def load_model(path):
    """The Swin or ResNet of a .keras file or an artefact folder, in safe mode.

    Raises:
        SwinsError: no such file, or not a Swin or ResNet of this package.
    """
    model = read_model(path)
    if not hasattr(model, "variant"):
        raise SwinsError(f"{path}: holds a {type(model).__name__}, not a Swin of this package")
    return model


def weights_digest(model):
    """Hex digest of a model's weights: of a Swin under today's timm names, as in every format; else by their paths."""
    if hasattr(model, "variant"):
        return checkpoint_files.digest(networks.state_dict(model))
    variables = (v for v in model.variables if not v.path.endswith("seed_generator_state"))
    return checkpoint_files.digest({v.path: keras.ops.convert_to_numpy(v) for v in variables})


def open_evaluated(path):
    """Open an artefact or a .keras file for evaluation -> (model, certificate).

    A .keras file's certificate has only the digest of its weights.

    Raises:
        SwinsError: also if an artefact's model is not the one certified.
    """
    certificate = read_certificate(path) if pathlib.Path(path).is_dir() else {}
    model = read_model(path)
    digest = weights_digest(model)
    if certificate and certificate["weights_sha256"] != digest:
        raise SwinsError(f"{path}: {MODEL} does not hold the weights that were certified; evaluate the .keras file")
    return model, {**certificate, "weights_sha256": digest}
