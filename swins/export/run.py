"""The exporter: completes an artefact with SavedModels that have been run where swins is not."""

import base64
import csv
import gzip
import io
import json
import pathlib
import shutil
import string
import subprocess
import sys
import tarfile
import tempfile
from importlib import resources

import numpy as np

from swins.convert import artefact
from swins.convert import checkpoint as checkpoints
from swins.convert.certificate import difference, native_size, seeded_images
from swins.errors import SwinsError
from swins.export import saved_model
from swins.images import preprocess
from swins.plans import ANY
from swins.tags import find

TOLERANCE = 1e-5  # of the largest output
PIXEL_TOLERANCE = 0.02  # mean difference of decoded pixels from Pillow's, normalised (about 1/255)
PARTS = {"saved_model": "logits", "saved_model_fe": "features"}
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
    """PNG files of smooth random pictures around a model's (height, width): landscape, portrait and small."""
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise SwinsError("exporting needs Pillow: pip install 'swins[eval]'") from error
    height, width = image_size
    sizes = ((width * 2, height * 5 // 4), (width * 5 // 4, height * 2), (width * 2 // 3, height * 3 // 4))
    files = []
    for size, coarse in zip(sizes, np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), "uint8"), strict=True):
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(buffer, "PNG")
        files.append(buffer.getvalue())
    return files


def check(model, prepare, folder, parts, name):
    """Compare SavedModels with the Keras model they were made from -> {part: record for the certificate}.

    `serving_bytes` must give what the model gives for its decoded pixels, and these must be close to Pillow's.

    Raises:
        SwinsError: if an output differs, or not every trainable variable gets a gradient.
    """
    size = native_size(name) if model.variant.image_size == ANY else model.variant.image_size
    images, files = seeded_images(model.variant, open_size=size), photographs(size) if prepare else []
    outputs = run_elsewhere(folder, parts, images, files)
    if prepare:
        decoded = np.stack([saved_model.decoder(prepare)(file) for file in files])
        pixels = float(np.abs(decoded - prepare(files)).mean())
        if pixels > PIXEL_TOLERANCE:
            raise SwinsError(f"{name}: decoded pixels must be within {PIXEL_TOLERANCE} of Pillow's; got {pixels:.3f}")
    records = {}
    for part, out in outputs.items():
        reference = model if PARTS[part] == "logits" else saved_model.features(model)
        expected = np.asarray(reference(images, training=False))
        record = {
            "output": PARTS[part],
            "call": difference(out["call"], expected)["relative"],
            "serving_default": difference(out["serving_default"], expected)["relative"],
            "trainable_variables": int(out["trainable"]),
        }
        if prepare:
            expected = np.asarray(reference(decoded, training=False))
            record["serving_bytes"] = difference(out["serving_bytes"], expected)["relative"]
            record["pixels_from_pillow"] = pixels
        if out["swins"]:
            raise SwinsError(f"{name}: {part} must be checked without swins, and it was imported")
        if max(record["call"], record["serving_default"], record.get("serving_bytes", 0)) > TOLERANCE:
            raise SwinsError(f"{name}: {part} must agree with Keras within {TOLERANCE:g}; got {record}")
        if not int(out["gradients"]) == int(out["trainable"]) == len(reference.trainable_variables):
            raise SwinsError(f"{name}: every trainable variable of {part} must get a gradient; got {record}")
        records[part] = record
    return records


def preparation(model, certificate):
    """The Preprocess of an artefact's model; None for channels that have no published one."""
    variant = model.variant
    if variant.in_chans not in (1, 3):
        return None
    return preprocess(certificate["name"], image_size=variant.image_size, in_chans=variant.in_chans)


def archive_name(part):
    """saved_model -> model.tar.gz"""
    return f"{part.replace('saved_model', 'model')}.tar.gz"


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


def measured_row(table, certificate):
    """The newest full row of a results table for these very weights, or None."""
    if not table:
        return None
    with open(table, newline="") as file:
        rows = [r for r in csv.DictReader(file) if r.get("weights_sha256") == certificate["weights_sha256"]]
    full = [r for r in rows if r["unreadable"] == "0"]
    return full[-1] if full else None


def published_row(name):
    """The published accuracies of a tagged name, or None."""
    with resources.files("swins").joinpath("published.csv").open(newline="") as file:
        return next((row for row in csv.DictReader(file) if row["variant"] == name), None)


def accuracy(name, certificate, table):
    """The card's paragraph on accuracy: measured for these weights, else published, else said to be missing."""
    row = measured_row(table, certificate)
    if row:
        return (
            f"Measured with these weights: top-1 {float(row['top1']):.2%}, top-5 {float(row['top5']):.2%} on "
            f"{row['images']} images of {row['dataset']} ({row['protocol']} protocol, {row['image_size']} pixels, "
            f"{row['backend']}, {row['date'][:10]})."
        )
    row = published_row(name)
    if row:
        return (
            f"Published for `{name}`, not measured here with these weights (from `{certificate['source']['file']}`): "
            f"ImageNet-1k top-1 {row['timm_top1']}%, top-5 {row['timm_top5']}%, timm's protocol. "
            "`swins eval ARTEFACT --data IMAGENET_VAL` measures it."
        )
    return "Not measured, and nothing is published under this name. `swins eval` measures it."


def card(model, certificate, exports, table):
    """The model card's text."""
    name, architecture = certificate["name"], certificate["architecture"]
    _, _, _, weights = find(name)
    tagged = "." in name
    headless = not model.variant.num_classes
    archives = [f"{part}/`, `{archive_name(part)}" for part in exports]
    template = string.Template(resources.files("swins.export").joinpath("card.md").read_text())
    variant = model.variant
    height, width = ("height", "width") if variant.image_size == ANY else variant.image_size
    return template.substitute(
        handle=name.replace(".", "_"),
        title=f"`{name}`",
        dataset=weights.dataset if tagged else "not stated",
        license=weights.license if tagged else "not stated",
        parameters=f"{certificate['parameters']['keras']:,}",
        image_size="any number of" if variant.image_size == ANY else f"{height}x{width}",
        height=height,
        width=width,
        channels=variant.in_chans,
        pad_order=variant.pad_order,
        classes=f"{variant.num_classes:,} classes" if variant.num_classes else "no classifier",
        features=variant.embed_dim * 2 ** (len(variant.depths) - 1),
        s3=" and Chen et al., [S3](https://arxiv.org/abs/2111.14725)" if "_s3_" in architecture else "",
        source=certificate["source"]["file"],
        sha256=certificate["source"]["sha256"],
        timm=certificate["versions"]["timm"],
        logits_diff=f"{certificate['logits']['relative']:.1e}",
        count=certificate["images"][0],
        blocks=len(certificate["blocks"]),
        worst_block=f"{certificate['worst_block']:.1e}",
        hub_diff=f"{max(e['call'] for e in exports.values()):.1e}",
        accuracy=accuracy(name, certificate, table),
        mean=", ".join(map(str, weights.mean)),
        std=", ".join(map(str, weights.std)),
        files="\n".join(
            f"| `{a}` | reusable, fine-tunable SavedModel: images to {e['output']} |"
            for a, e in zip(archives, exports.values(), strict=True)
        ),
        part=next(iter(exports)),
        archive=archive_name(next(iter(exports))),
        output="features" if headless else "logits",
    )


def export(folder, output=None, *, overwrite=False, results=None):
    """Complete an artefact with SavedModels, archives and a model card -> (folder, certificate).

    Every file is made and checked in a temporary sibling, which then replaces the folder (or becomes `output`).

    Args:
        folder: an artefact made by `convert`.
        output: another folder for the result; by default the artefact itself is completed.
        overwrite: replace an existing `output`, or the exports that the artefact already has.
        results: a results table whose row for these weights the card quotes.

    Raises:
        SwinsError: no artefact, a backend that cannot export, or a SavedModel that does not give the model's numbers.
    """
    saved_model.require_tensorflow()
    source = pathlib.Path(folder)
    certificate = artefact.read_certificate(source)
    target = pathlib.Path(output or source)
    artefact.sweep(target)
    in_place = target.absolute() == source.absolute()
    if in_place and "exports" in certificate and not overwrite:
        raise SwinsError(f"{source} has exports already, which would be replaced; pass --overwrite, or -o another")
    if not in_place:
        artefact.refuse(target, overwrite)
    if results and not pathlib.Path(results).is_file():
        raise SwinsError(f"{results}: no such results table")
    model = artefact.load_model(source)
    prepare = preparation(model, certificate)
    parts = {p: kind for p, kind in PARTS.items() if model.variant.num_classes or kind == "features"}
    with artefact.writing(target, overwrite or in_place) as partial:
        made = {*PARTS, *map(archive_name, PARTS), artefact.CARD, artefact.CERTIFICATE}
        shutil.copytree(source, partial, dirs_exist_ok=True, ignore=lambda _, names: made & set(names))
        if checkpoints.sha256(partial / artefact.MODEL) != certificate["model"]["sha256"]:
            raise SwinsError(f"{source}: {artefact.MODEL} is not the file that was certified; convert again")
        for part, kind in parts.items():
            exported = model if kind == "logits" else saved_model.features(model)
            saved_model.save(exported, prepare, partial / part, kind)
            pack(partial / part, partial / archive_name(part))
        exports = check(model, prepare, partial, parts, certificate["name"])
        for part, record in exports.items():
            record["sha256"] = checkpoints.sha256(partial / archive_name(part))
        certificate["exports"] = exports
        artefact.write_json(partial / artefact.CERTIFICATE, certificate)
        (partial / artefact.CARD).write_text(card(model, certificate, exports, results))
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
    return check(model, preparation(model, certificate), folder, list(certificate["exports"]), certificate["name"])
