"""`swins doctor`: what is there, what is missing for what, whether the core works; each import in its own process."""

import json
import pathlib
import re
import runpy
import subprocess
import sys
import tomllib

import pytest
from keras.src.backend import config
from shared_fixtures import ROOT

from swins import doctor, host, import_probe
from swins.cli import demonstration, doctor_commands
from swins.errors import ending

FINE = {"version": "1", "seconds": 0.1, "error": None, "missing": False}
ABSENT = {"version": None, "seconds": 0.1, "error": "ModuleNotFoundError: no", "missing": True}
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.fixture
def answers(monkeypatch):
    """A function: answers by module -> the report of an environment where all others import well, on no process."""

    def examine(**special):
        def ask(modules, core=False):
            names = [*(["swins"] if core else []), *modules]
            devices = {"devices": ["CPU"]}
            return {name: {"module": name, **FINE, **devices, **special.get(name, {})} for name in names}

        monkeypatch.setattr(doctor, "ask", ask)
        monkeypatch.setattr(doctor, "fits", lambda version, versions: version != "0")
        monkeypatch.setattr(
            doctor.importlib.metadata, "version", lambda name: {**FINE, **special.get(name, {})}["version"]
        )
        return doctor.examine()

    return examine


def test_the_core_works_here_and_the_command_says_so(command, answers, monkeypatch):
    """One process, on another backend than the tests'; packages are not asked for."""
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    core = doctor.ask(("json", "no_such_module"), core=True)
    assert core["swins"]["error"] is None and core["swins"]["backend"] == "jax", core
    assert not core["json"]["error"] and core["no_such_module"]["missing"]
    answers(swins=core["swins"])
    code, out, err = command("doctor")
    assert code == 0 and out.splitlines()[-1] == "doctor: ok, a small Swin computes on jax", out
    assert "on jax, chosen by KERAS_BACKEND" in out and "lacks" not in out and "importing every package" in err
    code, out, _ = command("doctor", "--json")
    assert code == 0 and json.loads(out)["works"] and list(json.loads(out)["extras"]) == list(EXTRAS)


def test_an_import_that_fails_is_said_with_what_it_is_for(answers, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as where it is not installed
    absent = import_probe.probe("matplotlib")
    assert absent["missing"] and not import_probe.probe("json")["error"]
    broken = {**FINE, "error": "OSError: libgrain.so: cannot open"}
    report = answers(matplotlib=absent, grain=broken, onnx={**FINE, "version": "0"})
    extras = report["extras"]
    assert report["works"] and report["reasons"] == []
    assert extras["plot"]["lacks"] == {"matplotlib": "is not installed"}
    assert set(extras["detection"]["lacks"]) == {"matplotlib", "grain"}
    assert extras["detection"]["install"] in ("pip install 'swins[detection]'", "pip install '.[detection]'")
    assert extras["onnx"]["lacks"] == {"onnx": "is 0, and >=1.20 is needed"}
    assert {name for name, facts in extras.items() if not facts["lacks"]} >= {"eval", "tensorflow", "hub"}
    text = "\n".join(doctor_commands.lines(report))
    assert (
        "  plot            lacks matplotlib: drawing: curves, reports, attention\n                  pip install "
        in text
    )
    assert (
        "  onnx   is 0, and >=1.20 is needed, for onnx" in text
        and text.count("libgrain.so: cannot open, for class") == 1
    )


def test_a_core_that_does_not_work_is_said_with_the_reason(answers, command, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    said = "ModuleNotFoundError: Keras needs a backend, and torch is not installed: pip install 'swins[tensorflow]'"
    report = answers(torch=ABSENT, swins={"error": said})
    assert report["reasons"] == [said, "tensorflow and jax can be used in its place: KERAS_BACKEND=tensorflow"]
    code, out, _ = command("doctor")
    assert code == 1 and out.splitlines()[-1].startswith(f"doctor: swins does not work: {said}; tensorflow and jax")
    report = answers(keras=ABSENT, filelock={**FINE, "version": "0"})
    assert not report["works"] and report["reasons"] == [
        "keras is not installed: pip install 'keras>=3.15'",
        "filelock is 0, and >=3.30 is needed: pip install 'filelock>=3.30'",
    ]
    broken = {**FINE, "error": "ImportError: built for NumPy 1"}
    assert answers(keras=broken)["reasons"] == [
        "keras cannot be imported: ImportError: built for NumPy 1: pip install --force-reinstall 'keras>=3.15'"
    ]


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({"HOME": "home"}, "home/.keras"),
        ({"HOME": "home", "KERAS_HOME": "elsewhere"}, "elsewhere"),
        ({"HOME": "home", "KERAS_HOME": "~/own"}, "home/own"),
        ({"HOME": "home", "KERAS_HOME": ""}, "."),
    ],
)
def test_the_backend_is_the_one_that_keras_finds(variables, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("KERAS_BACKEND", "KERAS_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, str(tmp_path / value) if value == "home" else value)
    for folder in ("home/.keras", place):
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    pathlib.Path(place, "keras.json").write_text('{"backend": "another"}')
    assert runpy.run_path(config.__file__)["_BACKEND"] == doctor.chosen_backend()[0] == "another"


def test_without_a_home_the_backend_is_known(monkeypatch):
    for name in ("KERAS_BACKEND", "KERAS_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    assert doctor.chosen_backend()[0] in ("tensorflow", "jax", "torch", "openvino")


def test_a_module_that_ends_its_process_is_named_and_the_others_asked_anew(tmp_path, monkeypatch):
    for name, text in (
        ("fine", "print('noise'); __version__ = '1.2'"),
        ("ends", "import os; os.abort()"),
        ("raises", "raise RuntimeError('lib.so')"),
        ("hangs", "import time; time.sleep(60)"),
    ):
        (tmp_path / f"probed_{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(doctor, "LONGEST", 1)
    names = [f"probed_{name}" for name in ("fine", "ends", "raises", "hangs", "none")]
    fine, ends, raises, hangs, none = doctor.ask(names).values()
    assert (fine["version"], fine["error"]) == ("1.2", None)
    assert ends["error"].startswith("its process ended with SIGABRT") and not ends["missing"]
    assert (raises["error"], raises["missing"]) == ("RuntimeError: lib.so", False)
    assert hangs["error"] == "its process had not ended after 1 seconds"
    assert none["missing"]


def test_an_ending_says_the_error_and_no_traceback():
    raised = subprocess.run([sys.executable, "-c", "raise ValueError('a\\nb')"], capture_output=True, text=True)
    assert "Traceback" in raised.stderr
    assert ending(1, raised.stderr) == "its process ended with code 1; the last that it said: ValueError: a b"
    assert ending(-11, "") == "its process ended with SIGSEGV"
    assert ending(2, "a notice") == "its process ended with code 2; the last that it said: a notice"
    assert len(ending(1, "x" * 10_000)) < 500


def test_extras_are_understood_as_written_and_as_installed(monkeypatch, tmp_path):
    always, extras = doctor.stated()
    assert set(doctor.PURPOSES) == set(extras) == set(EXTRAS), "each extra has its line in doctor.PURPOSES"
    assert doctor.resolved(extras["detection"], extras)["faster-coco-eval"] == ">=1.8"
    assert {"pillow", "grain", "matplotlib", "huggingface_hub"} <= set(doctor.resolved(extras["diffusion"], extras))
    installed = [*always, *(f"{text}; extra == '{extra}'" for extra, texts in extras.items() for text in texts)]
    monkeypatch.setattr(doctor, "FOLDER", tmp_path)
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: installed)
    assert doctor.stated() == (always, extras)
    page = (ROOT / "docs" / "install.md").read_text()
    assert all(f"| `{extra}` |" in page for extra in extras), "make extras"
    named = re.findall(r"swins(?:-[\w.-]+\.whl)?\[([\w,]+)\]|'\.\[([\w,]+)\]", page + str(demonstration.NEXT))
    assert {name for pair in named for names in pair for name in filter(None, names.split(","))} <= set(extras)
    assert len(named) > 8


def test_cards_that_a_backend_does_not_see_and_folders_that_cannot_be_written(answers, tmp_path, monkeypatch):
    (tmp_path / "0000:01").mkdir()
    (tmp_path / "0000:01" / "information").write_text("Model: \t\t NVIDIA H200\nIRQ: 1\n")
    monkeypatch.setattr(host, "NVIDIA", tmp_path)
    report = answers(jax={"devices": ["NVIDIA H200", "NVIDIA H200"]}, torch=ABSENT)
    (hint,) = report["hints"]  # none of JAX, which sees them, and of PyTorch, which is not there
    assert hint == "tensorflow sees none of 1 NVIDIA cards (NVIDIA H200): pip install 'tensorflow[and-cuda]'"
    assert "  jax         1  computes on 2 x NVIDIA H200" in doctor_commands.lines(report)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    facts = doctor.caches()["weights"]
    assert facts["folder"] == str(tmp_path / "hf" / "hub") and facts["writable"] and not facts["exists"]
    (tmp_path / "hf").write_text("no folder")
    assert not doctor.caches()["weights"]["writable"]


def test_memory_is_what_a_container_may_have(tmp_path, monkeypatch):
    (tmp_path / "meminfo").write_text("MemTotal:  8388608 kB\nMemFree: 1 kB\nMemAvailable:  4194304 kB\n")
    monkeypatch.setattr(host, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(host, "LIMITS", (tmp_path / "max",))
    assert host.memory() == {"total": 8.0, "free": 4.0}
    (tmp_path / "max").write_text(f"{2**30}\n")
    assert host.memory() == {"total": 1.0, "free": 1.0}
    (tmp_path / "max").write_text("max\n")
    assert host.memory()["total"] == 8.0


@pytest.mark.slow
def test_the_whole_command_here(command, tmp_path, monkeypatch):
    """Every package of this environment but one is imported, TensorFlow and timm in processes of their own."""
    (tmp_path / "matplotlib.py").write_text("raise ModuleNotFoundError('no matplotlib', name='matplotlib')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code, out, _ = command("doctor", "--json")
    report = json.loads(out)
    assert code == 0, report["reasons"]
    lacking = {name: set(facts["lacks"]) for name, facts in report["extras"].items() if facts["lacks"]}
    assert lacking["plot"] == {"matplotlib"} and "tensorflow" not in lacking and "convert" not in lacking
    assert {name for own in lacking.values() for name in own} - {"ray"} == {"matplotlib"}  # Ray is not pinned for tests
    assert all("CPU" in facts["devices"] for facts in report["backends"].values())
    assert report["machine"]["cores"] == host.cores() and pathlib.Path(report["swins"]["folder"]).is_dir()
