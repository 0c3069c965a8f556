"""The command line's small commands, how it starts, and what it says of names that are wrong."""

import csv
import importlib
import math
import os
import pathlib
import subprocess
import sys

import pytest
from shared_fixtures import needs_tensorflow

from swins.cli.command_line import hidden, main
from swins.describe import stage_costs
from swins.errors import unknown_name
from swins.notices import SETTINGS, without_notices
from swins.plans import VariantV2CR, plan_stages
from swins.tags import PRETRAINED, list_variants, look_up

ROOT = pathlib.Path(__file__).parents[1]
PUBLISHED = pathlib.Path(__file__).parents[1] / "swins" / "published.csv"


def test_list(command):
    code, out, _ = command("list", "swin_s3_*")
    assert code == 0 and out.split() == ["swin_s3_tiny_224", "swin_s3_small_224", "swin_s3_base_224"]
    code, out, _ = command("list", "--pretrained")
    assert len(out.split()) == sum(map(len, PRETRAINED.values()))


def test_describe_prints_the_plan(command):
    code, out, _ = command("describe", "swin_s3_tiny_224")
    assert code == 0
    rows = {line.split()[0]: line.split() for line in out.splitlines()}
    assert rows["2"][1:6] == ["14x14", "14x14", "0x0", "384", "12"]
    assert rows["all"][-2] == "28,328,674"
    code, out, _ = command("describe", "swin_tiny_patch4_window7_224", "--image-size", "64", "--num-classes", "0")
    assert code == 0 and "2x2" in out
    code, _, err = command("describe", "swin_tiny_patch4_window7")
    assert code == 1 and "swin_tiny_patch4_window7_224" in err


def pairs_of_timm(variant):
    """Multiply-adds that timm's V2-CR spends and ours does not: its network sees every pair of positions."""
    if not isinstance(variant, VariantV2CR):
        return 0
    total = 0
    for plan in plan_stages(variant):
        pairs = math.prod(plan.window_size) ** 2 - math.prod(2 * side - 1 for side in plan.window_size)
        total += len(plan.drop_path) * pairs * variant.meta_dim * (2 + plan.num_heads)
    return total


def test_costs_are_the_published_ones():
    with open(PUBLISHED, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["variant"].partition(".")[0] in PRETRAINED]
    assert len(rows) == 26
    for row in rows:
        variant = look_up(row["variant"]).variant
        costs = stage_costs(variant)
        assert sum(p for p, _ in costs) / 1e6 == pytest.approx(float(row["params_M"]), abs=0.006)
        # published counts include norms and softmax, up to 1%
        macs = sum(m for _, m in costs) + pairs_of_timm(variant)
        assert macs / 1e9 == pytest.approx(float(row["gmacs"]), rel=0.012)


def test_version(command):
    code, out, _ = command("--version")
    assert code == 0 and out.startswith("swins 0.")


def run(*command, **environment):
    """A process of its own, without our settings -> (exit code, standard output, standard error)."""
    clean = {name: value for name, value in os.environ.items() if name not in (*SETTINGS, "KERAS_BACKEND")}
    done = subprocess.run(command, capture_output=True, text=True, env={**clean, **environment}, cwd=ROOT)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A path on which neither Keras nor a backend can be imported."""
    folder = tmp_path_factory.mktemp("bare")
    for name in ("keras", "tensorflow", "jax", "torch"):
        text = f"raise ModuleNotFoundError({f'No module named {name!r}'!r}, name={name!r})"
        (folder / f"{name}.py").write_text(text)
    return str(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        (pathlib.Path(sys.executable).with_name("swins"), "--help"),
        ("-m", "swins.cli", "--help"),
        ("convert.py", "--help"),
        ("in1k_eval/evaluate.py", "--help"),
        ("hub_export/export.py", "--help"),
        ("-m", "swins.cli", "list"),
        ("-m", "swins.cli", "describe", "swin_s3_tiny_224"),
        ("-m", "swins.cli", "train", "--list"),
    ],
    ids=lambda command: " ".join(str(part).rpartition("/")[2] for part in command),
)
def test_small_commands_import_neither_keras_nor_a_backend(bare, command):
    first = () if command[0] not in ("-m",) and not str(command[0]).endswith(".py") else (sys.executable,)
    code, out, err = run(*first, *command, PYTHONPATH=bare)
    assert (code, err) == (0, "") and len(out.splitlines()) > 5


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("command", [("--help",), ("train", "--list"), ("describe", "none")], ids=" ".join)
def test_a_command_that_nobody_reads_ends_without_a_word(bare, command, buffered, tmp_path):
    """The error of the last goes to standard error, which nobody reads either."""
    environment = {**os.environ, "PYTHONPATH": bare, "PYTHONUNBUFFERED": "" if buffered else "1"}
    reader, writer = os.pipe()
    os.close(reader)
    with open(tmp_path / "err", "w+") as file, os.fdopen(writer, "w") as pipe:
        error = pipe if "none" in command else file
        done = subprocess.run(
            [sys.executable, "-m", "swins.cli", *command], stdout=pipe, stderr=error, env=environment, cwd=ROOT
        )
    assert not (tmp_path / "err").read_text() and done.returncode in ((0, 141) if "--help" in command else (141,))


@pytest.mark.slow
def test_without_a_backend_commands_and_the_import_say_what_to_do(bare, checkpoint):
    (pathlib.Path(bare) / "keras.py").rename(pathlib.Path(bare) / "kept.py")
    code, out, err = run(sys.executable, "-m", "swins.cli", "inspect", checkpoint, PYTHONPATH=bare)
    (pathlib.Path(bare) / "kept.py").rename(pathlib.Path(bare) / "keras.py")
    assert (code, out) == (1, "") and len(err.splitlines()) == 1
    assert err.startswith("swins inspect: Keras needs a backend") and "pip install 'swins[tensorflow]'" in err


AFTERWARDS = """
import swins, sys
assert "swins.models" in sys.modules
import keras
model = keras.saving.load_model(sys.argv[1])
from swins import *
assert isinstance(model, SwinTransformer) and deploy is swins.deploy and callable(resize)
print(model.name)
"""


@pytest.mark.slow
def test_importing_swins_alone_registers_its_classes(converted):
    code, out, err = run(sys.executable, "-c", AFTERWARDS, converted / "model.keras")
    assert code == 0 and out.split()[-1] == "swin_mini_patch2_window4_28", err


UNNEEDED = """
import sys
sys.argv[0] = "swins"
from swins.cli.command_line import start
start()
print("tensorflow" in sys.modules, "jax" in sys.modules, "matplotlib" in sys.modules)
import matplotlib.pyplot
"""


@needs_tensorflow
@pytest.mark.slow
def test_commands_import_no_large_package_that_none_needs():
    code, out, err = run(sys.executable, "-c", UNNEEDED)
    assert (code, out) == (0, "True False False\n"), err


def test_hidden_modules_are_hidden_for_a_while():
    with hidden("antigravity", "json"):
        assert importlib.import_module("json")
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("antigravity")
    assert "antigravity" not in sys.modules and "json" in sys.modules


@pytest.mark.slow
def test_commands_write_no_line_of_tensorflows(checkpoint, tmp_path):
    code, out, err = run(sys.executable, "-m", "swins.cli", "inspect", checkpoint)
    assert (code, err) == (0, "") and "loads     everything" in out
    code, _, err = run(sys.executable, "-m", "swins.cli", "inspect", tmp_path / "none.pth", TF_CPP_MIN_LOG_LEVEL="0")
    assert code == 1 and err.endswith("no such checkpoint file\n")


def test_what_is_no_notice_is_written(capfd):
    with without_notices():
        os.write(2, b"I0000 00:00:1 5 port.cc:153] oneDNN custom operations are on.\nan error\n")
        os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n")
    assert capfd.readouterr().err == "an error\n"


def test_a_users_settings_stay(monkeypatch, command):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
    assert main(["inspect", "none.pth"]) == 1
    assert (os.environ["TF_ENABLE_ONEDNN_OPTS"], os.environ["TF_CPP_MIN_LOG_LEVEL"]) == ("0", "3")


@pytest.mark.parametrize(("name", "takes"), [("convert", "NAME"), ("eval", "NAME"), ("explain", "MODEL")])
def test_m_is_a_variant_in_every_command(command, name, takes):
    """`explain`, as `predict`, takes paths of models there too."""
    code, out, _ = command(name, "--help")
    assert code == 0 and f"-m {takes}" in out


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("swin_tiny", "swin_tiny_patch4_window7_224"),
        ("swin-tiny-patch4-window7-224", "swin_tiny_patch4_window7_224"),
        ("microsoft/swin-tiny-patch4-window7-224", "swin_tiny_patch4_window7_224"),
        ("microsoft/swinv2-tiny-patch4-window8-256", "swinv2_tiny_window8_256"),
        ("swin_t", "swin_tiny_patch4_window7_224"),
        ("swin_b", "swin_base_patch4_window7_224"),
        ("swin_v2_t", "swinv2_tiny_window8_256"),
        ("swinv2_t", "swinv2_tiny_window8_256"),
        ("SwinT", "swin_tiny_patch4_window7_224"),
        ("SwinV2B", "swinv2_base_window8_256"),
        ("swin_base_384", "swin_base_patch4_window12_384"),
        ("swin_large", "swin_large_patch4_window7_224"),
        ("swin_s3_t", "swin_s3_tiny_224"),
        ("swin_tini_patch4_window7_224", "swin_tiny_patch4_window7_224"),
        ("tiny_224", "swin_tiny_patch4_window7_224"),
        ("swinv2_cr_tiny", "swinv2_cr_tiny_224"),
        ("SWIN_TINY_PATCH4_WINDOW7_224", "swin_tiny_patch4_window7_224"),
    ],
)
def test_a_wrong_name_is_answered_by_the_obvious_one_first(name, first):
    said = str(unknown_name("variant", name, list_variants()))
    assert f"unknown variant {name!r}: the closest are {first}" in said and said.count(", ") == 2


def test_other_names_are_answered_too():
    settings = ["optim.ema", "optim.learning_rate", "optim.weight_decay", "epochs"]
    for name, first in (("optim.lr", "optim.learning_rate"), ("optim.wd", "optim.weight_decay"), ("epoch", "epochs")):
        assert f"the closest are {first}" in str(unknown_name("setting", name, settings))
    assert "known: resnet, vit, ..." in str(unknown_name("model", "xyz", ["vit", "resnet"]))
    assert "known: " in str(unknown_name("variant", "", list_variants()))
