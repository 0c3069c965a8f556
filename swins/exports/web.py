"""A classifier as a web page: index.html, onnxruntime-web of npm and the model; pictures stay in the browser."""

import html
import json
import pathlib
import shutil
import subprocess
import tarfile
import tempfile
from importlib import resources

from swins import files
from swins.errors import SwinsError
from swins.exports import targets
from swins.images import Preprocess
from swins.opening import Opened
from swins.task import task_of
from swins.weights import artefacts

RUNTIME = "onnxruntime-web@1.30.0"  # of npm
PARTS = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
PAGE = "index.html"


def fetch_runtime(folder) -> None:
    """Put onnxruntime-web's files, PARTS, into a folder, by npm. Raises SwinsError if it cannot be had."""
    if not (npm := shutil.which("npm")):
        raise SwinsError(f"--to web takes {RUNTIME} of npm; npm is not installed; install Node.js, which has it")
    with tempfile.TemporaryDirectory() as temporary:
        done = subprocess.run([npm, "pack", "--silent", RUNTIME], cwd=temporary, capture_output=True, text=True)
        packed = list(pathlib.Path(temporary).glob("*.tgz"))
        if done.returncode or len(packed) != 1:
            raise SwinsError(f"npm cannot fetch {RUNTIME}: {done.stderr.strip()[-300:]}; connect to a network")
        with tarfile.open(packed[0]) as archive:
            for name in PARTS:
                with archive.extractfile(f"package/dist/{name}") as file:
                    pathlib.Path(folder, name).write_bytes(file.read())


def page(title: str, prepare: Preprocess, names) -> str:
    """The page's text, of a preparation and the classes' names."""
    facts = {key: value for key, value in prepare.numbers().items() if key != "image_size"}
    facts |= {"size": prepare.image_size, "names": list(names)}
    text = resources.files("swins.exports").joinpath("web.html").read_text(encoding="utf-8")
    written = json.dumps(facts, ensure_ascii=False).replace("<", "\\u003c")  # no name ends the script
    return text.replace("@TITLE@", html.escape(title)).replace("@FACTS@", written)


def export_page(source, folder, overwrite: bool = False, say=lambda text: None) -> pathlib.Path:
    """Write a folder that any web server serves -> it. The ONNX file is made, run and compared as every one is.

    Args:
        source: an artefact, a training run's folder or a .keras file, of a classifier.
        folder: that is made; with overwrite one that such a page is in is replaced.

    Raises:
        SwinsError: another kind of model, one that does not tell how images are prepared, no npm.
    """
    folder = pathlib.Path(folder)

    def check(there):
        if there.exists() and not (overwrite and ((there / PAGE).is_file() or not any(there.iterdir()))):
            raise SwinsError(f"{there} exists and would be replaced; pass --overwrite for a page, or choose another")

    check(folder)
    with files.folder(folder, check, lambda old: lambda path: True, say) as partial:
        with tempfile.TemporaryDirectory() as temporary:
            made, certificate = targets.export(source, ["onnx"], output=pathlib.Path(temporary, "artefact"), say=say)
            model = artefacts.read_model(made)
            task = task_of(model, certificate.get("task"), certificate["name"])
            prepare = task.serving(model, certificate)
            if not task.namable(model) or not isinstance(prepare, Preprocess):
                why = "does not tell how images are prepared" if task.namable(model) else "says no classes of an image"
                raise SwinsError(f"{source}: pages are of classifiers with their preparation; this one {why}")
            names = task.known(Opened(made, model, task, certificate)).get("classes") or ()
            shutil.copyfile(made / "model.onnx", partial / "model.onnx")
        say(f"fetching {RUNTIME} by npm")
        fetch_runtime(partial)
        files.write(partial / PAGE, page(certificate.get("title", certificate["name"]), prepare, names))
    return folder
