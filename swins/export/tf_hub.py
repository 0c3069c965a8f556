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

from swins.convert.certificate import difference, seeded_images
from swins.deploy import deploy
from swins.errors import SwinsError
from swins.export import adopt, saved_model
from swins.export.card import measured_row, write_card
from swins.export.steps import Steps
from swins.files import tidy
from swins.images import pillow, preparation_of, preprocess, stated_preparation
from swins.weights import artefacts, checkpoint_files
from swins.weights.artefacts import archive_name

TOLERANCE = 1e-5  # of the largest output
PIXEL_TOLERANCE = 3e-3  # mean difference of decoded pixels from Pillow's, normalised (about 1/6 of 1/255)
PARTS = {"saved_model": "logits", "saved_model_fe": "features", "saved_model_deploy": "logits"}  # the last if asked for
ROOT = "saved_model.pb"
RUN_SAVED_MODELS = pathlib.Path(__file__).with_name("run_saved_models.py")


def run_elsewhere(folder, parts, images, files):
    """Outputs of SavedModels in a fresh process that has no swins -> {part: dict of arrays} (run_saved_models.py)."""
    with tempfile.TemporaryDirectory() as temporary:
        place = pathlib.Path(temporary)
        np.save(place / "images.npy", images)
        (place / "bytes.json").write_text(json.dumps([base64.b64encode(f).decode() for f in files]))
        arguments = [folder, place / "images.npy", place / "bytes.json", place, *parts]
        command = [sys.executable, "-P", str(RUN_SAVED_MODELS), *map(str, arguments)]
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


def check(model, prepare, folder, parts, certificate):
    """Compare SavedModels, {part: what it gives}, with the Keras model -> {part: record for the certificate}.

    The certificate is the artefact's. `serving_bytes` must give what the model gives for its decoded pixels, and these
    must be close to Pillow's.

    Raises:
        SwinsError: if an output differs, or not every trainable variable gets a gradient.
    """
    name = certificate["name"]
    size = adopt.tested_size(model, name, certificate.get("training"))
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
    """The Preprocess of an artefact's model: its training run's, or the published one; None where there is none."""
    variant = model.variant
    if variant.in_chans not in (1, 3):
        return None
    if "training" in certificate:
        return preparation_of(certificate["training"])
    if "blocks" not in certificate:  # a bare .keras file, which does not tell
        return None
    try:
        stated = stated_preparation(certificate.get("preparation") or {}, variant.image_size)
    except (
        SwinsError
    ):  # a preparation that this package has not: then there is no `serving_bytes`, and the card says so
        return None
    if stated and len(stated.mean) == variant.in_chans:
        return stated
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
        folder: an artefact made by `convert`, a training run's folder or a .keras file (see `adopt.places`).
        output: another folder for the result; by default the artefact itself is completed with what it has not yet.
        deployed: write `saved_model_deploy` too, for inference only and faster: see `swins.deploy`.
        overwrite: replace an existing `output`, or the exports that the artefact already has.
        results: a results table whose row for these weights the card quotes.
        say: called with a line of text before each step that takes long.

    Raises:
        SwinsError: no artefact, a backend that cannot export, or a SavedModel that does not give the model's numbers.
    """
    saved_model.require_tensorflow()
    if results and not pathlib.Path(results).is_file():
        raise SwinsError(f"{results}: no such results table")
    tidy(folder, say)
    with adopt.opened(folder, output) as (source, target):
        certificate = artefacts.read_certificate(source)
        in_place = source.absolute() == target.absolute()
        if not in_place:
            artefacts.refuse(target, overwrite)
        model = artefacts.load_model(source)
        parts = parts_of(model, deployed or "saved_model_deploy" in certificate.get("exports", {}))
        todo = parts
        if in_place and not overwrite:
            own = artefacts.own_files(source)
            todo = {part: kind for part, kind in parts.items() if not {archive_name(part), f"{part}/{ROOT}"} <= own}
        names = [*(todo or parts), *map(archive_name, todo or parts)]
        if not in_place:
            names = [*PARTS, *map(archive_name, PARTS)]
        with artefacts.completing(source, target, names, overwrite, say) as partial:
            certificate = artefacts.read_certificate(source)
            new = make_all(model, certificate, partial, todo, Steps(2 * len(todo) + 1, say))
            records = {**certificate.get("exports", {}), **new} if in_place else new
            certificate["exports"] = {part: records[part] for part in PARTS if part in records}
            certificate["measured"] = measured_row(results, certificate) or certificate.get("measured")
            write_card(partial, model, certificate)
            artefacts.write_json(partial / artefacts.CERTIFICATE, certificate)
    return target, certificate


def make_all(model, certificate, folder, parts, steps):
    """Make, pack and check SavedModels, {part: what it gives}, in a folder -> {part: record}."""
    prepare, first = preparation(model, certificate), next(iter(parts_of(model, False)))
    for part, kind in parts.items():
        with steps(f"writing {part} ({kind})"):
            complete = model if part == first else None
            exported = deploy(model) if part == "saved_model_deploy" else giving(model, kind)
            saved_model.save(exported, prepare, folder / part, kind, complete)
        with steps(f"packing {archive_name(part)}"):
            pack(folder / part, folder / archive_name(part))
    with steps(f"running {', '.join(parts)} where swins is not"):
        records = check(model, prepare, folder, parts, certificate)
    for part in parts:
        inside = sorted(path for path in (folder / part).rglob("*") if path.is_file())
        records[part]["sha256"] = checkpoint_files.sha256(folder / archive_name(part))
        records[part]["files"] = {
            path.relative_to(folder / part).as_posix(): checkpoint_files.sha256(path) for path in inside
        }
    return records


def verify_exports(folder):
    """Run an artefact's SavedModels again -> {part: record}. Raises SwinsError if one differs from the model."""
    folder = pathlib.Path(folder)
    certificate = artefacts.read_certificate(folder)
    if "exports" not in certificate:
        return {}
    model = artefacts.load_model(folder)
    for part, recorded in certificate["exports"].items():
        archive = folder / archive_name(part)
        if not archive.is_file() or checkpoint_files.sha256(archive) != recorded["sha256"]:
            raise SwinsError(f"{archive} is not the archive that was made with its artefact; export again")
    parts = {part: recorded["output"] for part, recorded in certificate["exports"].items()}
    return check(model, preparation(model, certificate), folder, parts, certificate)
