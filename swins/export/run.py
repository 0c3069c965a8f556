"""The exporter: completes an artefact with SavedModels that have been run where swins is not."""

import base64
import gzip
import io
import json
import pathlib
import subprocess
import sys
import tarfile
import tempfile

import numpy as np

from swins.convert import artefact
from swins.convert import checkpoint as checkpoints
from swins.convert.certificate import difference, native_size, seeded_images
from swins.deploy import deploy
from swins.errors import SwinsError
from swins.export import saved_model
from swins.export.card import archive_name, card, measured_row
from swins.images import pillow, preprocess
from swins.plans import ANY

TOLERANCE = 1e-5  # of the largest output
PIXEL_TOLERANCE = 3e-3  # mean difference of decoded pixels from Pillow's, normalised (about 1/6 of 1/255)
PARTS = {"saved_model": "logits", "saved_model_fe": "features", "saved_model_deploy": "logits"}  # the last if asked for
CHECK = pathlib.Path(__file__).with_name("check.py")


def run_elsewhere(folder, parts, images, files):
    """Outputs of SavedModels in a fresh process that has no swins -> {part: dict of arrays} (check.py)."""
    with tempfile.TemporaryDirectory() as temporary:
        place = pathlib.Path(temporary)
        np.save(place / "images.npy", images)
        (place / "bytes.json").write_text(json.dumps([base64.b64encode(f).decode() for f in files]))
        arguments = [folder, place / "images.npy", place / "bytes.json", place, *parts]
        command = [sys.executable, "-P", str(CHECK), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SwinsError(f"{folder.name} does not load in a fresh process: {done.stderr.strip()[-2000:]}")
        outputs = {}
        for part in parts:
            with np.load(place / f"{part}.npz") as out:
                outputs[part] = dict(out)
        return outputs


def photographs(image_size):
    """PNG and JPEG files of smooth random pictures around a model's (height, width): landscape, portrait and small."""
    Image = pillow()
    height, width = image_size
    sizes = ((width * 2, height * 5 // 4), (width * 5 // 4, height * 2), (width * 2 // 3, height * 3 // 4))
    files = []
    for size, coarse in zip(sizes, np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), "uint8"), strict=True):
        for kind in ("PNG", "JPEG"):
            buffer = io.BytesIO()
            Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(buffer, kind)
            files.append(buffer.getvalue())
    return files


def parts_of(model, deployed):
    """{part: what it gives} of an export of this model."""
    kinds = {part: kind if model.variant.num_classes else "features" for part, kind in PARTS.items()}
    if not model.variant.num_classes:
        del kinds["saved_model"]
    if not deployed:
        del kinds["saved_model_deploy"]
    return kinds


def giving(model, kind):
    """The Keras model that gives "logits" or "features"."""
    return model if kind == "logits" or not model.variant.num_classes else saved_model.features(model)


def check(model, prepare, folder, parts, name):
    """Compare SavedModels, {part: what it gives}, with the Keras model -> {part: record for the certificate}.

    `serving_bytes` must give what the model gives for its decoded pixels, and these must be close to Pillow's.

    Raises:
        SwinsError: if an output differs, or not every trainable variable gets a gradient.
    """
    size = native_size(name) if model.variant.image_size == ANY else model.variant.image_size
    images, files = seeded_images(model.variant, open_size=size), photographs(size) if prepare else []
    outputs = run_elsewhere(folder, parts, images, files)
    if prepare:
        decoded = np.stack([saved_model.decoder(prepare)(file) for file in files])
        pixels = max(float(np.abs(a - prepare(file)).mean()) for a, file in zip(decoded, files, strict=True))
        if not pixels <= PIXEL_TOLERANCE:
            raise SwinsError(f"{name}: decoded pixels must be within {PIXEL_TOLERANCE} of Pillow's; got {pixels:.4f}")
    records = {}
    for part, out in outputs.items():
        reference = giving(model, parts[part])
        expected = np.asarray(reference(images, training=False))
        record = {
            "output": parts[part],
            "call": difference(out["call"], expected)["relative"],
            "serving_default": difference(out["serving_default"], expected)["relative"],
            "trainable_variables": int(out["trainable"]),
        }
        if prepare:
            expected = np.asarray(reference(decoded, training=False))
            record["serving_bytes"] = difference(out["serving_bytes"], expected)["relative"]
            record["pixels_from_pillow"] = pixels
        complete = {k.removeprefix("all_outputs/"): y for k, y in out.items() if k.startswith("all_outputs/")}
        if complete:
            wanted = saved_model.everything(model)(images[:1])  # attention weights are large
            if set(wanted) != set(complete):
                raise SwinsError(f"{name}: all_outputs must be {sorted(wanted)}; got {sorted(complete)}")
            each = [difference(complete[k], np.asarray(y))["relative"] for k, y in wanted.items()]
            record["all_outputs"] = float(np.max(each))  # NaN if any is
        if out["swins"]:
            raise SwinsError(f"{name}: {part} must be checked without swins, and it was imported")
        compared = ("call", "serving_default", "serving_bytes", "all_outputs")
        if not all(record.get(k, 0.0) <= TOLERANCE for k in compared):  # NaN is not
            raise SwinsError(f"{name}: {part} must agree with Keras within {TOLERANCE:g}; got {record}")
        trainable = 0 if part == "saved_model_deploy" else len(reference.trainable_variables)
        if not int(out["gradients"]) == int(out["trainable"]) == trainable:
            raise SwinsError(f"{name}: every trainable variable of {part} must get a gradient; got {record}")
        records[part] = record
    return records


def preparation(model, certificate):
    """The Preprocess of an artefact's model; None for channels that have no published one."""
    variant = model.variant
    if variant.in_chans not in (1, 3):
        return None
    return preprocess(certificate["name"], image_size=variant.image_size, in_chans=variant.in_chans)


def pack(folder, archive):
    """Pack a SavedModel as TF-Hub expects: a tar.gz with saved_model.pb at its root; equal input, equal bytes."""

    def plain(member):
        member.mtime = member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    with (
        open(archive, "wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w") as tar,
    ):
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name, filter=plain)


def export(folder, output=None, *, deployed=False, overwrite=False, results=None, say=lambda text: None):
    """Complete an artefact with SavedModels, archives and a model card -> (folder, certificate).

    Every file is made and checked in a temporary sibling, which then replaces the folder (or becomes `output`).

    Args:
        folder: an artefact made by `convert`.
        output: another folder for the result; by default the artefact itself is completed.
        deployed: write `saved_model_deploy` too, for inference only and faster: see `swins.deploy`.
        overwrite: replace an existing `output`, or the exports that the artefact already has.
        results: a results table whose row for these weights the card quotes.
        say: called with a line of text before each step that takes long.

    Raises:
        SwinsError: no artefact, a backend that cannot export, or a SavedModel that does not give the model's numbers.
    """
    saved_model.require_tensorflow()
    source = pathlib.Path(folder)
    certificate = artefact.read_certificate(source)
    if results and not pathlib.Path(results).is_file():
        raise SwinsError(f"{results}: no such results table")
    target = pathlib.Path(output or source)
    with artefact.completing(source, target, {*PARTS, *map(archive_name, PARTS)}, overwrite) as partial:
        model = artefact.load_model(source)
        prepare = preparation(model, certificate)
        parts = parts_of(model, deployed or "saved_model_deploy" in certificate.get("exports", {}))
        for part, kind in parts.items():
            say(f"writing {part} ({kind})")
            complete = model if part == next(iter(parts)) else None
            exported = deploy(model) if part == "saved_model_deploy" else giving(model, kind)
            saved_model.save(exported, prepare, partial / part, kind, complete)
            pack(partial / part, partial / archive_name(part))
        say("running it where swins is not")
        exports = check(model, prepare, partial, parts, certificate["name"])
        for part, record in exports.items():
            record["sha256"] = checkpoints.sha256(partial / archive_name(part))
        certificate.update(exports=exports, measured=measured_row(results, certificate))
        artefact.write_json(partial / artefact.CERTIFICATE, certificate)
        (partial / artefact.CARD).write_text(card(model, certificate))
    return target, certificate


def verify_exports(folder):
    """Run an artefact's SavedModels again -> {part: record}. Raises SwinsError if one differs from the model."""
    folder = pathlib.Path(folder)
    certificate = artefact.read_certificate(folder)
    if "exports" not in certificate:
        return {}
    model = artefact.load_model(folder)
    for part, recorded in certificate["exports"].items():
        archive = folder / archive_name(part)
        if not archive.is_file() or checkpoints.sha256(archive) != recorded["sha256"]:
            raise SwinsError(f"{archive} is not the archive that was made with its artefact; export again")
    parts = {part: recorded["output"] for part, recorded in certificate["exports"].items()}
    return check(model, preparation(model, certificate), folder, parts, certificate["name"])
