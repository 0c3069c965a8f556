"""ONNX, LiteRT and OpenVINO files of an artefact's model, each run by its own runtime before it is kept.

Precisions: float32; float16, weights stored in half precision and computed with in float32; int8_dynamic, weights in 8
bits and activations quantised as they come; int8, both in 8 bits over ranges seen on calibration images.
"""

import importlib.metadata
import pathlib
import subprocess
import sys
import tempfile
from dataclasses import dataclass

import keras
import numpy as np

from swins import changes, files
from swins.convert.certificate import normal_images
from swins.deploy import deploy
from swins.errors import SwinsError, ending, install, unknown_name
from swins.exports import adopt, saved_model_writer
from swins.exports.card import write_card
from swins.exports.saved_models import worst
from swins.exports.steps import Steps
from swins.exports.target_writers import Source, write_litert, write_onnx, write_openvino
from swins.images import find_images, prepare_all
from swins.opening import Opened
from swins.task import Part, task_of
from swins.weights import artefacts, checkpoint_files

CALIBRATION = 128  # images that int8 sees
AGREEMENT = 512  # images that answers are compared on
FEW = 4  # images that are done one operation after another
OTHER_SIZE = "other_size"  # batch of images that models of any size take too
PATCH = 32  # pixels that images of other sizes are multiples of, where a model does not tell
TOLERANCES = {"float32": 1e-5, "float16": 1e-2, "int8_dynamic": 0.1, "int8": 0.25}  # of the largest output
RUNTIMES = pathlib.Path(__file__).with_name("runtimes.py")


@dataclass(frozen=True)
class Target:
    """A kind of file: its suffixes, packages that make and run it (the extra of the target's name), precisions, how it
    is written."""

    suffixes: tuple
    packages: tuple
    precisions: tuple
    write: object


TARGETS = {
    "onnx": Target((".onnx",), ("tf2onnx", "onnx", "onnxruntime"), ("float32", "float16"), write_onnx),
    "litert": Target((".tflite",), ("tensorflow", "ai-edge-litert"), tuple(TOLERANCES), write_litert),
    "openvino": Target((".xml", ".bin"), ("openvino",), ("float32", "float16"), write_openvino),
}


def files_of(target, precision, deployed=False):
    """Names of a target's files in an artefact; the first is the one to load."""
    stem = "model_deploy" if deployed else "model"
    if precision != "float32":
        stem += f"_{precision}"
    return tuple(stem + suffix for suffix in TARGETS[target].suffixes)


def version(package):
    """A package's version; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions_of(*targets):
    """ "package version" of what makes and runs targets. Raises SwinsError that names each that is missing."""
    versions = {target: {name: version(name) for name in TARGETS[target].packages} for target in targets}
    absent = {target: [name for name, v in own.items() if v is None] for target, own in versions.items()}
    if absent := {target: names for target, names in absent.items() if names}:
        needs = "; ".join(f"{target} needs {', '.join(names)}" for target, names in absent.items())
        raise SwinsError(f"{needs}: {install(*absent)}")
    return [f"{name} {v}" for own in versions.values() for name, v in own.items()]


def run(path, **batches):
    """A target's file on batches of images, by its own runtime in a fresh process -> {batch: {output: array}}."""
    with tempfile.TemporaryDirectory() as temporary:
        place = pathlib.Path(temporary)
        np.savez(place / "batches.npz", **batches)
        command = [sys.executable, "-P", RUNTIMES, path, place / "batches.npz", place / "out.npz"]
        done = subprocess.run([*map(str, command)], capture_output=True, text=True)
        if done.returncode:
            raise SwinsError(f"{path.name} does not run: {ending(done.returncode, done.stderr)}")
        with np.load(place / "out.npz") as out:
            pairs = {key: key.partition("/")[::2] for key in out.files}
            return {batch: {n: out[k] for k, (b, n) in pairs.items() if b == batch} for batch in batches}


def float32_twin(model):
    """The model with float32 policy: itself, or a copy; one that records no policy is taken to be float32."""
    if getattr(model, "policy", "float32") == "float32":
        return model
    return changes.copy(model, dtype="float32")


@dataclass(frozen=True)
class Trial:
    """What files of a model are tried on: {name: images (B, H, W, C)}, and {name: {output: what Keras gives}}."""

    task: object
    name: str
    batches: dict
    expected: dict


def trial(task, model, certificate, images=None):
    """The Trial of a model: seeded images, those of another size where it takes any, and real ones, prepared."""
    if isinstance(model.input, dict):
        raise SwinsError(
            f"{certificate['name']}: models of {task.name} take more than images, and are written as SavedModels "
            "alone: --to saved_model"
        )
    name, channels = certificate["name"], model.input.shape[-1]
    size = adopt.tested_size(model, name, certificate.get("training"))
    model = task.raw(model)
    batches = {"batch_1": normal_images((*size, channels), 1), "batch_3": normal_images((*size, channels), 3, seed=1)}
    if None in model.input.shape[1:3]:
        patch = model.variant.patch_size if hasattr(model, "variant") else PATCH
        height, width = (patch * max(1, side // patch * 3 // 4) for side in size)
        batches[OTHER_SIZE] = normal_images((height, width + patch, channels), 1, seed=2)
    if images is not None:
        batches["images"] = images
    expected = {batch: task.named(model, predict(model, images)) for batch, images in batches.items()}
    return Trial(task, name, batches, expected)


def predict(model, images, most=32):
    """Outputs of a model, so many images at a time; filled up with zeros, so that few shapes are compiled.

    On TensorFlow a few images are done as they come: a graph of a detector takes longer to trace.
    """
    if len(images) <= FEW and keras.backend.backend() == "tensorflow":
        return keras.tree.map_structure(keras.ops.convert_to_numpy, model(images, training=False))
    size = min(most, 4 * -(-len(images) // 4))
    padded = np.zeros((size * -(-len(images) // size), *images.shape[1:]), images.dtype)
    padded[: len(images)] = images
    outputs = model.predict(padded, batch_size=size, verbose=0)
    return keras.tree.map_structure(lambda y: y[: len(images)], outputs)


def check(trial, path, target, precision, deployed=False):
    """Run a file where swins is not and compare it with the model -> record for the certificate.

    Args:
        trial: a Trial of the model, in float32.
        path: the file.
        target, precision: what it is.
        deployed: whether it was made from `swins.deploy(model)`.

    Raises:
        SwinsError: if it differs; the message says by how much.
    """
    images, expected = trial.batches.get("images"), trial.expected
    batches = {k: v for k, v in trial.batches.items() if k != OTHER_SIZE or target not in trial.task.fixed_size}
    outputs = run(path, **batches)
    judged = ["images"] if precision == "int8" else list(batches)  # int8 has seen no noise
    differences = {key: worst(outputs[key], expected[key]) for key in judged}
    names = files_of(target, precision, deployed)
    record = {
        "target": target,
        "precision": precision,
        "deployed": deployed,
        "files": {file: checkpoint_files.sha256(path.with_name(file)) for file in names},
        "bytes": sum(path.with_name(file).stat().st_size for file in names),
        "versions": versions_of(target),
        "difference": differences,
        "tolerance": TOLERANCES[precision],
        "agreement": {} if images is None else trial.task.agreement(outputs["images"], expected["images"]),
        "images": 0 if images is None else len(images),
    }
    if not all(d <= TOLERANCES[precision] for d in differences.values()):  # NaN is not
        raise SwinsError(
            f"{trial.name}: {path.name} must agree with Keras within {TOLERANCES[precision]:g} of the largest "
            f"output; differs by {', '.join(f'{d:.1e} ({k})' for k, d in differences.items())}; nothing was kept"
        )
    return record


def plan(targets, precisions, images=None):
    """[(target, precision)] to make. Raises SwinsError for what cannot be made here, before anything is."""
    for target in targets:
        if target not in TARGETS:
            raise unknown_name("target", target, ["saved_model", *TARGETS])
        saved_model_writer.require_tensorflow(target)
    versions_of(*targets)
    for target in targets:
        for precision in precisions:
            if precision not in TOLERANCES:
                raise unknown_name("precision", precision, list(TOLERANCES))
            if precision not in TARGETS[target].precisions:
                offered = ", ".join(TARGETS[target].precisions)
                raise SwinsError(f"{target} has no {precision}; it has {offered}")
    if "int8" in precisions and images is None:
        raise SwinsError("int8 needs images to calibrate on: --images FOLDER")
    wanted = [(target, precision) for target in targets for precision in precisions]
    if wanted and images is not None:
        find_images(images)
    return wanted


def missing(wanted, path, output=None, overwrite=False, deployed=False):
    """Those of a plan's pairs that have no certified files yet where they go; all, to overwrite or elsewhere.

    Raises:
        SwinsError: if making them would lose something.
    """
    source, target = adopt.places(path, output)
    if not source:
        adopt.refuse(path, target, overwrite)
        return wanted
    recorded = artefacts.read_certificate(source).get("targets", {})
    todo = wanted
    if target.absolute() == source.absolute() and not overwrite:
        own = artefacts.own_files(source) if recorded else ()
        todo = [pair for pair in wanted if not set(files_of(*pair, deployed)) <= set(own)]
    if todo or target.absolute() != source.absolute():
        artefacts.refuse_completing(source, target, names_of(todo, deployed), overwrite)
    return todo


def names_of(pairs, deployed):
    """Names of the files of several targets and precisions."""
    return [name for pair in pairs for name in files_of(*pair, deployed)]


def real_images(source, prepare, limit=AGREEMENT):
    """Up to `limit` images of a folder, evenly spread and prepared -> (n, H, W, C) float32."""
    if prepare is None:
        raise SwinsError(
            "nothing tells how images are prepared for this model (of these channels nothing is published, or a bare "
            ".keras file does not say), so --images cannot be used; leave it out, or export an artefact or a run"
        )
    found = find_images(source)
    picked = [found[i] for i in np.linspace(0, len(found) - 1, min(limit, len(found))).round().astype(int)]
    return prepare_all(prepare, picked)


def make(target, precision, source, path, calibration):
    """Write one file from a Source. Raises SwinsError with the end of what the converter says, if it cannot."""
    try:
        TARGETS[target].write(source, path, precision, calibration)
    except SwinsError:
        raise
    except Exception as error:  # converters raise whatever a graph leads them to
        said = " ".join(str(error).split())[-300:] or type(error).__name__
        raise SwinsError(f"{path.name} cannot be made: {target}'s converter fails ({said})") from error


def export(
    folder,
    targets,
    precisions=("float32",),
    images=None,
    output=None,
    *,
    deployed=False,
    overwrite=False,
    say=lambda text: None,
):
    """Complete an artefact with files for other runtimes -> (folder, certificate).

    Args:
        folder: an artefact made by `convert`, a training run's folder or a .keras file (see `adopt.places`).
        targets: of "onnx", "litert", "openvino".
        precisions: of "float32", "float16", "int8_dynamic", "int8"; the last two are LiteRT's.
        images: a folder of real images, which calibrate int8 and on which answers are compared.
        output: another folder for the result; by default the artefact itself is completed with what it has not yet.
        deployed: make `model_deploy.*` from `swins.deploy(model, portable=True)`, which is faster.
        overwrite: replace an existing `output`, or such files that the artefact already has.
        say: called with a line of text before each step that takes long.

    Raises:
        SwinsError: a target that cannot be made here, images that cannot be read, or a file that does not give the
            model's numbers; nothing is then kept.
    """
    wanted = plan(targets, precisions, images)
    files.tidy(folder, say)
    todo = missing(wanted, folder, output, overwrite, deployed)
    with adopt.opened(folder, output) as (source, target):
        names = names_of(todo or wanted, deployed)
        with artefacts.completing(source, target, names, overwrite, say) as partial:
            certificate = artefacts.read_certificate(source)
            model = float32_twin(artefacts.read_model(source))
            task = task_of(model, certificate.get("task"), certificate["name"])
            prepare = task.serving(model, certificate)
            real = None if images is None else real_images(images, prepare)
            opened = Opened(source, model, task, certificate)
            records = make_all(opened, partial, todo, real, deployed, Steps(1 + 2 * len(todo), say))
            certificate.setdefault("targets", {}).update(records)
            if "exports" in certificate:
                write_card(partial, task, model, certificate)
            artefacts.write_json(partial / artefacts.CERTIFICATE, certificate)
    return target, certificate


def source_of(opened, form, folder, targets) -> Source:
    """The Source of a form of an Opened's model, with the SavedModels that some targets need in a folder."""
    output, place, certificate = opened.task.output(opened.model), folder / "any", opened.certificate
    names = tuple(opened.task.known(opened).get("classes") or ())
    fixed = {target for target in targets if target in opened.task.fixed_size and None in form.input.shape[1:3]}
    source = Source(form, output, place, folder / "fixed" if fixed else place, names)
    part = Part(output, lambda: form, trains=False)
    if targets - fixed - {"onnx"}:
        saved_model_writer.save(form, None, source.saved_model, part)
    if fixed:
        size = adopt.tested_size(form, certificate["name"], certificate.get("training"))
        saved_model_writer.save(form, None, source.fixed, part, size)
    return source


def make_all(opened, folder, pairs, images, deployed, steps):
    """Make and check an Opened's files, [(target, precision)], in a folder -> {name of the first file: record}."""
    task, model, certificate, records = opened.task, opened.model, opened.certificate, {}
    calibration = None if images is None else images[:: max(1, len(images) // CALIBRATION)][:CALIBRATION]
    with tempfile.TemporaryDirectory() as temporary:
        with steps("building the model to export"):
            if deployed and not task.deployable:
                raise SwinsError(
                    f"{certificate['name']}: models of {task.name} have no deployed form; leave --deploy out"
                )
            form = task.raw(deploy(model, portable=True) if deployed else model)
            source = source_of(opened, form, pathlib.Path(temporary), {target for target, _ in pairs})
            tried = trial(task, model, certificate, images)
        for target, precision in pairs:
            path = folder / files_of(target, precision, deployed)[0]
            with steps(f"writing {path.name}"):
                make(target, precision, source, path, calibration)
            with steps(f"running {path.name} where swins is not"):
                records[path.name] = check(tried, path, target, precision, deployed)
    return records


def verify(folder):
    """Run an artefact's ONNX, LiteRT and OpenVINO files again -> {file: record, or None for int8: only its bytes}.

    Raises:
        SwinsError: if one is not the file that was certified, or differs from the model.
    """
    folder = pathlib.Path(folder)
    certificate = artefacts.read_certificate(folder)
    records = {}
    if certificate.get("targets"):
        model = float32_twin(artefacts.read_model(folder))
        tried = trial(task_of(model, certificate.get("task"), certificate["name"]), model, certificate)
    for name, recorded in certificate.get("targets", {}).items():
        for file, sha256 in recorded["files"].items():
            if not (folder / file).is_file() or checkpoint_files.sha256(folder / file) != sha256:
                raise SwinsError(f"{folder / file} is not the file that was certified; export again")
        target, precision = recorded["target"], recorded["precision"]
        versions_of(target)
        if precision == "int8":  # judged on real images alone, which are not kept
            records[name] = None
        else:
            deployed = recorded.get("deployed", False)  # not in certificates of 0.1.0's first days
            records[name] = check(tried, folder / name, target, precision, deployed)
    return records
