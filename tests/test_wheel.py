"""The built wheel works where only keras, tensorflow, numpy and filelock are, and names what is missing."""

import importlib.metadata
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from packaging.requirements import Requirement
from PIL import Image

from swins import demo_files, doctor

ROOT = pathlib.Path(__file__).parents[1]


def closure(*names):
    """Installed distributions that packages need, themselves included."""
    found, waiting = {}, list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        found[name] = importlib.metadata.distribution(name)
        for text in found[name].requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return found


def link(packages, *names):
    """Let an environment import packages of this one, with all that they need, from a folder."""
    for distribution in closure(*names).values():
        tops = {file.parts[0] for file in distribution.files if file.parts[0] not in ("..", "__pycache__", "bin")}
        for top in tops:
            place, target = packages / top, pathlib.Path(distribution.locate_file(top))
            if not place.exists() and target.exists():
                place.symlink_to(target)


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """An environment with the wheel and only keras, tensorflow, numpy, filelock (linked from this one); no network."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # built from a copy: nothing of an earlier build gets in, nothing is left behind
    shutil.copytree(ROOT / "swins", source / "swins", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "recipes", source / "recipes", ignore=shutil.ignore_patterns("results", "__pycache__"))
    shutil.copytree(ROOT / "demo", source / "demo", ignore=shutil.ignore_patterns("*.gz", "__pycache__"))
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    # as `python -m build` does: a source distribution, and the wheel from that
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "env")], check=True)
    python = folder / "env" / "bin" / "python"
    (packages,) = (folder / "env" / "lib").glob("*/site-packages")
    link(packages, "keras", "tensorflow", "numpy", "filelock")
    install = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--disable-pip-version-check",
        wheel,
    ]
    subprocess.run(install, check=True)
    return python


def run(python, *arguments, cwd=None, first=(), **environment):
    command = [*first, python, *map(str, arguments)]
    environment = {**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, **environment}
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd or python.parent, env=environment)
    return done.returncode, done.stdout, done.stderr


def without_network():
    """What to begin a command with, so that it has no network; nothing where the kernel does not let us."""
    way = ("unshare", "--map-root-user", "--net")
    allowed = shutil.which(way[0]) and subprocess.run([*way, "true"], capture_output=True).returncode == 0
    return way if allowed else ()


@pytest.mark.slow
def test_the_demo_without_a_clone_and_without_network(python, tmp_path):
    code, _, err = run(python, python.with_name("swins"), "predict", "--demo")
    assert code == 1 and "the demo needs Pillow and safetensors: pip install 'swins[eval]'" in err
    _, extras = doctor.stated()
    (tmp_path / "eval").mkdir()
    link(tmp_path / "eval", *doctor.resolved(extras["eval"], extras))
    (tmp_path / "bare").mkdir()
    command = (python.with_name("swins"), "predict", "--demo", "-o", "drawn")
    code, out, err = run(
        python, *command, cwd=tmp_path / "bare", first=without_network(), PYTHONPATH=str(tmp_path / "eval")
    )
    assert code == 0, err
    lines = dict(line.split(maxsplit=1) for line in out.splitlines() if ".png  " in line)
    pictures = [path for demo in demo_files.DEMOS for path in demo_files.pictures_of(demo)]
    assert set(lines) == {path.name for path in pictures}
    assert lines["ankle_boot.png"].startswith("ankle boot 9") and "trouser 1.00" in lines["ankle_boot_and_trouser.png"]
    assert "demo: ok, 2 models, 11 pictures, " in out and "  swins doctor " in out
    drawn = sorted(path.relative_to(tmp_path / "bare" / "drawn") for path in (tmp_path / "bare").rglob("*.png"))
    assert drawn == sorted(pathlib.Path(path.parent.name, path.name) for path in pictures)
    with Image.open(tmp_path / "bare" / "drawn" / "canvases" / "bag.png") as picture:
        assert picture.width == 480


@pytest.mark.slow
def test_the_doctor_of_what_is_installed(python):
    code, out, err = run(python, python.with_name("swins"), "doctor", "--json")
    report = json.loads(out)
    assert code == 0 and report["works"], out + err
    assert "site-packages" in report["swins"]["folder"] and report["keras"]["backend"] == "tensorflow"
    lacking = {name: set(facts["lacks"]) for name, facts in report["extras"].items()}
    assert set(lacking) == set(doctor.stated()[1])
    assert lacking["tensorflow"] == set() and lacking["eval"] == {"pillow", "safetensors", "tqdm"}
    assert lacking["detection"] >= {"faster-coco-eval", "grain", "matplotlib", "pillow"}
    assert report["extras"]["detection"]["install"] == "pip install 'swins[detection]'"
    assert report["backends"]["torch"]["problem"] == "is not installed"


@pytest.mark.slow
def test_list_and_forward_pass(python):
    code, out, err = run(python, python.with_name("swins"), "list")
    assert code == 0 and "swin_tiny_patch4_window7_224" in out, err
    script = (
        "import numpy as np, sys, swins; m = swins.create('swin_tiny_patch4_window7_224', image_size=64);"
        "print(m(np.zeros((1, 64, 64, 3), 'float32')).shape, swins.__file__)"
    )
    code, out, err = run(python, "-c", script)
    assert code == 0 and "(1, 1000)" in out and "site-packages" in out, err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("convert", "-m", "swin_tiny_patch4_window7_224"), "swins[pretrained]"),
        (("convert", "-m", "swin_tiny_patch4_window7_224", "--checkpoint", "x.pth"), "swins[convert]"),
        (("convert", "-m", "swin_tiny_patch4_window7_224", "--checkpoint", "x.safetensors"), "swins[pretrained]"),
        (("convert", "--to-torch", "mini.keras", "-o", "y.safetensors"), "swins[pretrained]"),
        (("eval", "mini.keras", "--data", "data"), "swins[eval]"),
        (("export", "artefact", "--to", "onnx"), "swins[onnx]"),
        (("export", "artefact", "--to", "litert"), "swins[litert]"),
        (("export", "artefact", "--to", "openvino"), "swins[openvino]"),
    ],
)
def test_missing_packages_are_named_with_their_extra(python, arguments, extra):
    for name in ("x.pth", "x.safetensors"):
        (python.parent / name).write_bytes(b"")
    (python.parent / "data").mkdir(exist_ok=True)
    (python.parent / "data" / "labels.csv").write_text("file,label\na.png,1\n")
    if not (python.parent / "mini.keras").exists():
        code, _, err = run(python, "-c", "import swins; swins.create('swin_mini_patch2_window4_28').save('mini.keras')")
        assert code == 0, err
    code, _, err = run(python, python.with_name("swins"), *arguments)
    assert code == 1 and f"pip install '{extra}'" in err, err


@pytest.mark.slow
def test_recipes_go_by_their_names_without_a_clone(python):
    code, out, err = run(python, python.with_name("swins"), "train", "--list")
    names = {path.stem for path in (ROOT / "recipes").glob("*.py")}
    assert code == 0 and {line.split()[0] for line in out.splitlines()} == names, err
    code, out, err = run(python, python.with_name("swins"), "train", "upernet_camvid", "--print")
    assert code == 0 and '"recipe": "Segmentation"' in out, err


@pytest.mark.slow
def test_missing_pillow_and_matplotlib(python):
    script = (
        "import numpy as np, swins; from swins import explain\n"
        "for f in (lambda: swins.preprocess('swin_tiny_patch4_window7_224')(np.zeros((9, 9, 3), 'uint8')),\n"
        "          lambda: explain.draw([], {}, [])):\n"
        "    try: f()\n"
        "    except swins.SwinsError as error: print(error)"
    )
    code, out, err = run(python, "-c", script)
    assert code == 0 and "swins[eval]" in out and "swins[plot]" in out, out + err
