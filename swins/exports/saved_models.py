"""The exporter: completes an artefact with SavedModels that have been run where swins is not."""

import base64
import dataclasses
import functools
import gzip
import io
import json
import pathlib
import shutil
import tarfile
import tempfile

import keras
import numpy as np

from swins.convert.certificate import difference, normal_images
from swins.deploy import deploy
from swins.errors import SwinsError, ending, missing_package
from swins.exports import adopt, saved_model_writer
from swins.exports.card import measured_row, write_card
from swins.exports.statements import Statement, numbered, verify_numbered
from swins.exports.steps import Steps
from swins.files import tidy
from swins.image_files import pillow
from swins.opening import Opened
from swins.predictor import write_facts
from swins.processes.kept_process import FORKS, KeptProcess
from swins.task import image_input, task_of
from swins.weights import artefacts, checkpoint_files
from swins.weights.artefacts import archive_name

TOLERANCE = 1e-5  # of the largest output
PIXEL_TOLERANCE = 3e-3  # mean difference of decoded pixels from Pillow's, normalised (about 1/6 of 1/255)
MOST_OF_A_NUDGE = 0.01  # how far outputs may be where rounding is enlarged, whatever Keras' own are then
ROOT = "saved_model.pb"
ELSEWHERE = KeptProcess(pathlib.Path(__file__).with_name("run_saved_models.py"))


def run_elsewhere(folder, inputs, files):
    """Outputs of SavedModels in a process that has no swins -> {part: dict of arrays} (run_saved_models.py).

    Args:
        inputs: {part: {name of an input: array}}; files: images as bytes.
    """
    with tempfile.TemporaryDirectory() as temporary:
        place, parts = pathlib.Path(temporary), list(inputs)
        (place / "inputs").mkdir()
        for part, arrays in inputs.items():
            np.savez(place / "inputs" / f"{part}.npz", **arrays)
        (place / "bytes.json").write_text(json.dumps([base64.b64encode(f).decode() for f in files]))
        request = {"folder": str(folder), "parts": parts, "inputs": str(place / "inputs"), "out": str(place)}
        answer = ELSEWHERE.ask({**request, "encoded": str(place / "bytes.json")})
        if not FORKS:  # models would gather there
            ELSEWHERE.stop()
        if "missing" in answer:
            raise missing_package("running a SavedModel", answer["missing"], "tensorflow")
        if "crash" in answer:
            end = ending(answer["code"], answer["crash"])
            raise SwinsError(f"{folder.name} does not load in a process of its own: {end}")
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


def of_signature(outputs, signature):
    """{name: array} of one signature, of what `run_elsewhere` gives of a part."""
    return {k.partition("/")[2]: y for k, y in outputs.items() if k.startswith(f"{signature}/")}


def worst(outputs, expected):
    """The largest difference of named outputs, over the largest value of each."""
    if set(outputs) != set(expected):
        raise SwinsError(f"outputs must be {sorted(expected)}; got {sorted(outputs)}")
    each = [difference(outputs[name], keras.ops.convert_to_numpy(y))["relative"] for name, y in expected.items()]
    return float(np.max(each))  # NaN if any is


def check(task, model, folder, parts, certificate):
    """Compare SavedModels, {name: Part}, with the Keras models that they are of -> {name: record for the certificate}.

    The certificate is the artefact's. `serving_bytes` must give what the model gives for its decoded pixels, and these
    must be close to Pillow's.

    Raises:
        SwinsError: if an output differs, or not every trainable variable gets a gradient.
    """
    name, prepare = certificate["name"], task.serving(model, certificate)
    size = adopt.tested_size(model, name, certificate.get("training"))
    images = normal_images((*size, image_input(model).shape[-1]))
    files = photographs(size) if prepare else []
    given = {name: part.example(len(images)) if part.example else {"images": images} for name, part in parts.items()}
    outputs = run_elsewhere(folder, given, files)
    if prepare:
        pairs = [saved_model_writer.decoder(prepare, sized=True)(file) for file in files]
        decoded, sizes = (np.stack(part) for part in zip(*pairs, strict=True))
        pixels = max(float(np.abs(a - prepare(file)).mean()) for a, file in zip(decoded, files, strict=True))
        if not pixels <= PIXEL_TOLERANCE:
            raise SwinsError(f"{name}: decoded pixels must be within {PIXEL_TOLERANCE} of Pillow's; got {pixels:.4f}")
    records = {}
    for part, out in outputs.items():
        reference = (parts[part].reference or parts[part].make)()

        def expected(images, reference=reference, output=parts[part].output):
            outputs = reference(images, training=False)
            return outputs if isinstance(outputs, dict) else {output: outputs}

        wanted = expected(given[part] if parts[part].example else images)
        apart, tolerance = parts[part].difference or worst, parts[part].tolerance or TOLERANCE
        record = {
            "output": ", ".join(wanted),
            "call": apart(of_signature(out, "call"), wanted),
            "serving_default": apart(of_signature(out, "serving_default"), wanted),
            "trainable_variables": int(out["trainable"]),
        }
        if prepare:
            of_files = expected(decoded)
            if parts[part].of_files:
                of_files = parts[part].of_files(of_files, sizes)
            record["serving_bytes"] = apart(of_signature(out, "serving_bytes"), of_files)
            record["pixels_from_pillow"] = pixels
        if complete := of_signature(out, "all_outputs"):
            record["all_outputs"] = worst(complete, parts[part].everything()(images[:1]))  # attention weights are large
        if out["swins"]:
            raise SwinsError(f"{name}: {part} must be checked without swins, and it was imported")
        compared = ("call", "serving_default", "serving_bytes", "all_outputs")
        agree = all(record.get(k, 0.0) <= tolerance for k in compared)  # NaN is not
        if not agree and parts[part].nudged:
            record["of_a_nudge"] = apart(expected(parts[part].nudged(given[part])), wanted)
            tolerance = max(tolerance, min(record["of_a_nudge"], MOST_OF_A_NUDGE))
            agree = all(record.get(k, 0.0) <= tolerance for k in compared)
        if not agree:
            raise SwinsError(f"{name}: {part} must agree with Keras within {tolerance:g}; got {record}")
        trainable = len(reference.trainable_variables) if parts[part].trains else 0
        if not int(out["gradients"]) == int(out["trainable"]) == trainable:
            raise SwinsError(f"{name}: every trainable variable of {part} must get a gradient; got {record}")
        records[part] = record
    return records


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


def export(
    folder,
    output=None,
    *,
    deployed=False,
    number=None,
    statement=None,
    overwrite=False,
    say=lambda text: None,
):
    """Complete an artefact with SavedModels, archives and a model card -> (folder, certificate).

    Every file is made and checked in a temporary sibling, which then replaces the folder (or becomes `output`).

    Args:
        folder: an artefact made by `convert`, a training run's folder or a .keras file (see `adopt.places`).
        output: another folder for the result; by default the artefact itself is completed with what it has not yet.
        deployed: write `saved_model_deploy` too, for inference only and faster: see `swins.deploy`.
        number: write a copy in a folder called so, an integer of at least 1, as TF Serving wants it: of
            `saved_model_deploy` if `deployed`, else of the first SavedModel.
        statement: a Statement of what the card says, and of the classes' names.
        overwrite: replace an existing `output`, or the exports that the artefact already has.
        say: called with a line of text before each step that takes long.

    Raises:
        SwinsError: no artefact, a backend that cannot export, or a SavedModel that does not give the model's numbers.
    """
    saved_model_writer.require_tensorflow()
    if number is not None and not (type(number) is int and number >= 1):
        raise SwinsError(f"the number of a folder for TF Serving must be an integer of at least 1; got {number!r}")
    statement = Statement() if statement is None else statement  # one of results alone is false
    tidy(folder, say)
    with adopt.opened(folder, output) as (source, target):
        certificate = artefacts.read_certificate(source)
        in_place = source.absolute() == target.absolute()
        if not in_place:
            adopt.refuse(folder, target, overwrite)
        model = artefacts.read_model(source)
        task = task_of(model, certificate.get("task"), certificate["name"])
        known = tuple(task.known(Opened(source, model, task, certificate)).get("classes") or ())
        certificate = stated(statement, certificate, task, model, in_place and not overwrite)
        if statement.class_names and known not in ((), statement.class_names):
            new, old = (", ".join(names[:3]) for names in (statement.class_names, known))
            say(f"its classes are now called {new} ..., no longer {old} ...")
        every = task.parts_of(model, certificate, deploy)
        plain = task.parts_of(model, certificate)
        if deployed and set(every) == set(plain):
            raise SwinsError(f"{certificate['name']}: models of {task.name} have no deployed form; leave --deploy out")
        parts = every if deployed or set(certificate.get("exports", {})) - set(plain) else plain
        todo = parts
        if in_place and not overwrite:
            own = artefacts.own_files(source)
            todo = {name: part for name, part in parts.items() if not {archive_name(name), f"{name}/{ROOT}"} <= own}
        extra = [str(number)] if number and (overwrite or not served(source, number) or not in_place) else []
        asked = todo or ([] if extra or statement or statement.results else parts)  # else what is there is named
        names = [*asked, *map(archive_name, asked), *extra]
        if not in_place:
            names = [*every, *map(archive_name, every), *extra]
        with artefacts.completing(source, target, names, overwrite, say) as partial:
            certificate = statement.added(artefacts.read_certificate(source), task, model)
            opened = Opened(source, model, task, certificate)
            new = make_all(opened, partial, todo, Steps(2 * len(todo) + bool(todo), say)) if todo else {}
            records = {**certificate.get("exports", {}), **new} if in_place else new
            certificate["exports"] = {name: records[name] for name in every if name in records}
            if extra:
                serve(certificate, source, partial, number, deployed)
            certificate["measured"] = measured_row(statement.results, certificate) or certificate.get("measured")
            write_card(partial, task, model, certificate)
            artefacts.write_json(partial / artefacts.CERTIFICATE, certificate)
    return target, certificate


def stated(statement, certificate, task, model, kept):
    """A certificate with a Statement. Raises SwinsError for other names than those in SavedModels that are kept."""
    result = statement.added(certificate, task, model)
    names = [part.get("class_names") for part in (certificate, result)]
    if kept and certificate.get("exports") and names[0] != names[1]:
        raise SwinsError(
            f"{certificate['name']}: its SavedModels hold the names of its classes; pass --overwrite to make them again"
        )
    return result


def served(folder, number):
    """Whether an artefact has a numbered folder, as its certificate records."""
    record = artefacts.read_certificate(folder).get("served", {}).get(str(number))
    return bool(record) and {f"{number}/{name}" for name in record["files"]} <= artefacts.own_files(folder)


def serve(certificate, source, partial, number, deployed):
    """Copy a SavedModel of a certificate's, from its artefact or just made, to a numbered folder, and record it."""
    part = "saved_model_deploy" if deployed else next(iter(certificate["exports"]))
    place = next(folder / part for folder in (partial, source) if (folder / part / ROOT).is_file())
    shutil.copytree(place, partial / str(number))
    record = {str(number): numbered(partial / str(number), part)}
    if record[str(number)]["files"] != certificate["exports"][part]["files"]:
        raise SwinsError(f"{place} is not as it was exported; pass --overwrite to make it again")
    certificate["served"] = {**certificate.get("served", {}), **record}


def make_all(opened, folder, parts, steps):
    """Make, pack and check SavedModels of an Opened, {name: Part}, in a folder -> {name: record}."""
    task, model, certificate = opened.task, opened.model, opened.certificate
    prepare, kept = task.serving(model, certificate), {}
    for name, part in parts.items():
        with steps(f"writing {name} ({part.output})"):
            kept[name] = part.make()
            saved_model_writer.save(kept[name], prepare, folder / name, part)
            write_facts(opened, prepare, folder / name)
        with steps(f"packing {archive_name(name)}"):
            pack(folder / name, folder / archive_name(name))
    with steps(f"running {', '.join(parts)} where swins is not"):
        made = {name: dataclasses.replace(part, make=functools.partial(kept.get, name)) for name, part in parts.items()}
        records = check(task, model, folder, made, certificate)
    for name in parts:
        inside = sorted(path for path in (folder / name).rglob("*") if path.is_file())
        records[name]["sha256"] = checkpoint_files.sha256(folder / archive_name(name))
        records[name]["files"] = {
            path.relative_to(folder / name).as_posix(): checkpoint_files.sha256(path) for path in inside
        }
    return records


def verify_exports(folder):
    """Run an artefact's SavedModels again -> {name: record}. Raises SwinsError if one differs from the model."""
    folder = pathlib.Path(folder)
    certificate = artefacts.read_certificate(folder)
    if "exports" not in certificate:
        return {}
    model = artefacts.read_model(folder)
    task = task_of(model, certificate.get("task"), certificate["name"])
    verify_numbered(folder, certificate)
    for name, recorded in certificate["exports"].items():
        archive = folder / archive_name(name)
        if not archive.is_file() or checkpoint_files.sha256(archive) != recorded["sha256"]:
            raise SwinsError(f"{archive} is not the archive that was made with its artefact; export again")
    parts = {
        name: part for name, part in task.parts_of(model, certificate, deploy).items() if name in certificate["exports"]
    }
    return check(task, model, folder, parts, certificate)
