"""What tests share: the embedded checkpoint, its artefact, perturbed references, photographs."""

import contextlib
import functools
import hashlib
import importlib.util
import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import training
from filelock import FileLock
from PIL import Image
from training import NAME

import swins
from swins.cli import main
from swins.convert import conversion
from swins.exports import adopt
from swins.images import read_idx
from swins.labels import FASHION_MNIST
from swins.plans import with_overrides
from swins.processes import kept_process
from swins.reference import oracle
from swins.tags import look_up

ROOT = pathlib.Path(__file__).parents[1]
DATA = ROOT / "demo" / "fashion_mnist"

SHARED = ROOT.parent / "shared" / "data"
PHOTOS = SHARED / "photos" / "images"

kept_process.IDLE = 300  # seconds: importing timm anew takes several, keeping it a gigabyte

needs_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="SavedModels are written under TensorFlow alone"
)


TRAINING = ("test_train", "test_train_data", "test_checkpoints", "test_run_end", "test_phases")


@pytest.fixture(autouse=True)
def seeded():
    """The same random numbers in every run, drop-path's too."""
    keras.utils.set_random_seed(0)


@pytest.fixture
def curves():
    """Asked for by a test of a training run that looks at its picture."""


@pytest.fixture(autouse=True)
def quick_training(request, monkeypatch):
    """Tests of what a run leaves and refuses take its steps as they come: no picture, no graph optimised."""
    if request.path.stem not in TRAINING:
        yield
        return
    if "curves" not in request.fixturenames:
        monkeypatch.setattr("swins.train.folder.draw", lambda *_: None)
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    yield
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})


def script(path):
    """The module of a script that belongs to no package, by its path below the root; it finds those beside it."""
    spec = importlib.util.spec_from_file_location(path.replace("/", "_").removesuffix(".py"), ROOT / path)
    module = importlib.util.module_from_spec(spec)
    sys.path.append(str((ROOT / path).parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop()
    return module


@pytest.fixture(scope="session")
def checkpoint():
    """The committed PyTorch checkpoint."""
    return DATA / f"{NAME}.safetensors"


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory, worker_id):
    """A folder that the test processes of one run have in common."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.fixture(scope="session")
def converted(checkpoint, shared_folder):
    """An artefact of the committed checkpoint; tests must not change it."""
    folder = shared_folder / "converted" / NAME
    with FileLock(shared_folder / "converted.lock"):
        if not folder.is_dir():
            conversion.convert(NAME, checkpoint, folder)
    return folder


def swins_lines(text):
    """The `swins` lines of a page, as arguments; those of several lines joined."""
    blocks = "".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    return [shlex.split(line, comments=True)[1:] for line in blocks.splitlines() if line.startswith("swins ")]


def run_lines(page, folder):
    """Run the `swins` lines of a page of docs/ in a folder; each must succeed."""
    with contextlib.chdir(folder):
        for line in swins_lines((ROOT / "docs" / page).read_text()):
            assert main(line) == 0, line


@pytest.fixture(scope="session")
def exported(checkpoint, shared_folder):
    """The artefact with its SavedModels, as docs/tf-hub.md makes them; tests must not change it."""
    folder = shared_folder / "exported"
    with FileLock(shared_folder / "exported.lock"):
        if not (folder / "done").is_file():
            shutil.rmtree(folder, ignore_errors=True)  # what a process left that failed
            folder.mkdir()
            (folder / "my_swin.safetensors").symlink_to(checkpoint)
            run_lines("tf-hub.md", folder)
            (folder / "done").touch()
    return folder / "artefacts" / "my_swin"


@pytest.fixture(scope="session")
def targeted(converted, shared_folder):
    """The artefact with its files for other runtimes, as docs/runtimes.md makes them; tests must not change it."""
    folder = shared_folder / "targeted"
    with FileLock(shared_folder / "targeted.lock"):
        if not (folder / "done").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(converted, folder / "artefacts" / "my_swin")
            (folder / "photographs").symlink_to(DATA)
            run_lines("runtimes.md", folder)
            (folder / "done").touch()
    return folder / "artefacts" / "my_swin"


@pytest.fixture(scope="session")
def small_run(tmp_path_factory):
    """The folder of a finished run of a small model; tests must not change it."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    folder.mkdir()
    model = swins.create(NAME, num_classes=3, depths=(2, 1), embed_dim=24)
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign_add(0.1 * rng.standard_normal(variable.shape, dtype="float32"))
    model.save(folder / "model.keras")
    (folder / "result.json").write_text(json.dumps(training.RESULT))
    return folder


@pytest.fixture
def small_artefact(small_run, tmp_path):
    """An artefact of a small model, to be changed at will."""
    (tmp_path / "artefact").mkdir()
    adopt.make(small_run, tmp_path / "artefact")
    return tmp_path / "artefact"


@pytest.fixture
def artefact(converted, tmp_path):
    """A copy of the artefact, to be changed at will."""
    return shutil.copytree(converted, tmp_path / "artefact")


@pytest.fixture(scope="session")
def perturbed(shared_folder):
    """A function: name and overrides -> file of timm's model with every parameter moved; tests must not change it."""

    @functools.cache
    def make(name, **overrides):
        architecture = look_up(name).architecture
        numbers = oracle.numbers(with_overrides(look_up(name).variant, overrides))
        digest = hashlib.sha256(repr((architecture, sorted(numbers.items()))).encode()).hexdigest()[:16]
        target = shared_folder / f"perturbed_{architecture}_{digest}" / "model.safetensors"
        with FileLock(shared_folder / f"{target.parent.name}.lock"):
            if not target.is_file():
                target.parent.mkdir(exist_ok=True)
                with oracle.ask("perturb", architecture=architecture, numbers=numbers, seed=3) as results:
                    shutil.copy(results / "perturbed.safetensors", target.with_suffix(".part"))
                target.with_suffix(".part").rename(target)
        return target

    return make


@pytest.fixture(scope="session")
def library(shared_folder):
    """A folder of small Swins as other programs save them, and outputs.npz, what those programs compute; tests must
    not change it."""
    folder = shared_folder / "library"
    script = pathlib.Path(__file__).parent / "reference" / "dialects.py"
    with FileLock(shared_folder / "library.lock"):
        if not folder.is_dir():
            partial = folder.with_suffix(".part")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            subprocess.run([sys.executable, str(script), str(partial)], check=True, capture_output=True)
            partial.rename(folder)
    return folder


@pytest.fixture(scope="session")
def photos():
    """Paths of real photographs; skips where ../shared is absent."""
    files = sorted(PHOTOS.glob("*.png"))
    if not files:
        pytest.skip("../shared/data/photos is not on this machine")
    return files


@pytest.fixture(scope="session")
def coco_mini():
    """The folder of a part of COCO 2017; skips where ../shared is absent."""
    if not (SHARED / "coco_mini" / "annotations").is_dir():
        pytest.skip("../shared/data/coco_mini is not on this machine")
    return SHARED / "coco_mini"


@pytest.fixture
def command(capsys):
    """A function: arguments -> (exit code, standard output, standard error) of `swins`."""

    def run(*arguments):
        try:
            code = main([str(a) for a in arguments])
        except SystemExit as stop:  # argparse
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def pixels():
    """(images, labels) of the embedded test set."""
    return tuple(read_idx(DATA / f"t10k-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))


@pytest.fixture(scope="session")
def idx(tmp_path_factory, pixels):
    """An IDX data set: 200 images to train on, 70 to validate."""
    folder = tmp_path_factory.mktemp("idx")
    images, labels = pixels
    training.write_idx(folder, "train", images[:200], labels[:200])
    training.write_idx(folder, "t10k", images[-70:], labels[-70:])
    return folder


@pytest.fixture
def class_folders(tmp_path, pixels):
    """A folder a class: 14 images of each of three."""
    images, labels = pixels
    for name, number in zip(training.CLASSES, (9, 6, 1), strict=True):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in np.flatnonzero(labels == number)[:14]:
            Image.fromarray(images[i]).save(tmp_path / "data" / name / f"{i}.png")
    return tmp_path / "data"


@pytest.fixture(scope="session")
def samples():
    """The first test images and their labels."""
    pixels, labels = (read_idx(DATA / f"t10k-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    return pixels[:70], labels[:70]


@pytest.fixture
def folders(samples, tmp_path):
    """The images as one folder per class."""
    for i, (image, label) in enumerate(zip(*samples, strict=True)):
        path = tmp_path / "data" / FASHION_MNIST[label] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return tmp_path / "data"
