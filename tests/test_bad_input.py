"""Every bad input: its message on standard error, its exit code, and that nothing was left behind or lost."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from swins.weights import artefacts, checkpoint_files

NAME = "swin_mini_patch2_window4_28"


@pytest.fixture
def state(checkpoint):
    return checkpoint_files.read(checkpoint).state


@pytest.fixture
def convert(command, tmp_path):
    """Run `swins convert` into an empty folder that must stay empty -> standard error."""
    room = tmp_path / "room"
    room.mkdir()

    def run(file, name=NAME, code=1):
        found, _, err = command("convert", "-m", name, "--checkpoint", file, "-o", room / "out")
        assert found == code, err
        assert not list(room.iterdir())
        return err

    return run


def listing(folder):
    """Every file of a folder with its bytes and time."""
    return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in pathlib.Path(folder).rglob("*") if p.is_file()}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_truncated_file(convert, checkpoint, tmp_path, suffix):
    file = tmp_path / f"cut{suffix}"
    if suffix == ".pth":
        script = "import sys, torch; torch.save({'a': torch.zeros(10000)}, sys.argv[1])"
        subprocess.run([sys.executable, "-c", script, str(file)], check=True)
        file.write_bytes(file.read_bytes()[:20000])
    else:
        file.write_bytes(checkpoint.read_bytes()[:-1000])
    err = convert(file)
    assert str(file) in err and "download or save it again" in err


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".bin"])
def test_corrupt_file(convert, tmp_path, suffix):
    file = tmp_path / f"noise{suffix}"
    file.write_bytes(np.random.default_rng(0).bytes(5000))
    err = convert(file)
    assert "not a readable" in err and "download or save it again" in err


EXPORTS = {"model.onnx": "ONNX", "model.tflite": "LiteRT", "model.xml": "OpenVINO", "model.bin": "OpenVINO"}
EXPORTS |= dict.fromkeys(("saved_model/saved_model.pb", "saved_model"), "SavedModel")


@pytest.mark.parametrize("file", EXPORTS)
def test_an_exported_model_is_no_checkpoint(convert, command, tmp_path, file):
    (tmp_path / "saved_model").mkdir()
    for name in list(EXPORTS)[:5]:
        (tmp_path / name).touch()
    said = f"{tmp_path / file}: is an exported model ({EXPORTS[file]}), of which no weights are read: "
    said += f"`swins predict -m {tmp_path / 'saved_model'}` runs it" if "saved" in file else "its own runtime runs it, "
    for code, err in ((1, convert(tmp_path / file)), command("inspect", tmp_path / file)[::2]):
        assert code == 1 and said in err
        assert err.endswith("; give the artefact, .keras file or checkpoint that it was made of\n")


def test_pickle_that_executes_code(convert, tmp_path):
    file, trace = tmp_path / "evil.pth", tmp_path / "executed"
    script = textwrap.dedent("""
        import os, sys, torch
        class Evil:
            def __reduce__(self):
                return os.system, (f"touch {sys.argv[2]}",)
        torch.save({"model": {"patch_embed.proj.weight": Evil()}}, sys.argv[1])
    """)
    subprocess.run([sys.executable, "-c", script, str(file), str(trace)], check=True)
    err = convert(file)
    assert "tensors only" in err and "nothing of it was executed" in err and "system" in err
    assert not trace.exists()


def test_bare_pickle_that_executes_code(convert, tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'executed'}",)

    file = tmp_path / "evil.bin"
    file.write_bytes(pickle.dumps(Evil()))
    assert "nothing of it was executed" in convert(file) or "not a readable" in convert(file)
    assert not (tmp_path / "executed").exists()


def test_all_differences_are_listed_at_once(convert, state, tmp_path):
    file = tmp_path / "wrong.safetensors"
    del state["layers.0.blocks.0.attn.qkv.bias"]
    state["layers.1.blocks.3.mlp.fc1.weight"] = np.zeros((7, 96), "float32")
    state["norm.weight"] = state["norm.weight"].copy()
    state["norm.weight"][3] = np.nan
    state["norm.bias"] = np.full_like(state["norm.bias"], np.inf)
    state["extra.w"] = np.zeros(3, "float32")
    checkpoint_files.write(state, file)
    err = convert(file)
    for line in (
        "wrong.safetensors and the model differ",
        "- stages_0_blocks_0/attn/qkv/bias (144,): no tensor layers.0.blocks.0.attn.qkv.bias",
        "! stages_1_blocks_3/mlp/fc1/kernel (96, 384): layers.1.blocks.3.mlp.fc1.weight gives (96, 7)",
        "! norm/gamma: norm.weight has 1 values NaN or infinite",
        "! norm/beta: norm.bias has 96 values NaN or infinite",
        "+ extra.w (3,): not used by the model",
    ):
        assert line in err, line


def test_checkpoint_of_another_variant(convert, checkpoint):
    err = convert(checkpoint, "swin_tiny_patch4_window7_224")
    said = f"\nswins convert: this checkpoint fits {NAME}; name that variant: -m {NAME}, or --set model.name={NAME} of"
    assert said in err
    lines = err[err.index(said) :].splitlines()  # the remedy is not scrolled away
    assert len(lines) == 9 and lines[-1].endswith(" more") and lines[4].startswith("  ! ")


def test_a_tag_insists_on_its_classes(convert, state, tmp_path):
    file = tmp_path / "five.safetensors"
    state["head.fc.weight"], state["head.fc.bias"] = state["head.fc.weight"][:5], state["head.fc.bias"][:5]
    checkpoint_files.write(state, file)
    assert "head/kernel (96, 10): head.fc.weight gives (96, 5)" in convert(file, f"{NAME}.fashion_mnist")


def test_no_swin_in_the_file(convert, tmp_path):
    file = tmp_path / "resnet.safetensors"
    checkpoint_files.write({"conv1.weight": np.zeros((1, 1), "float32")}, file)
    assert "windowed attention" in (err := convert(file)) and "this one has conv1.weight" in err


def test_not_a_dict(convert, tmp_path):
    file = tmp_path / "tensor.pth"
    subprocess.run([sys.executable, "-c", f"import torch; torch.save(torch.zeros(3), {str(file)!r})"], check=True)
    assert "must be a dict of tensors" in convert(file)


@pytest.mark.parametrize(
    ("name", "closest"),
    [
        ("swin_tini_patch4_window7_224", "swin_tiny_patch4_window7_224"),
        ("swin_tiny_patch4_window7_224.ms_in1", "swin_tiny_patch4_window7_224.ms_in1k"),
    ],
)
def test_misspelt_name(convert, checkpoint, name, closest):
    err = convert(checkpoint, name)
    assert f"unknown variant {name!r}" in err and closest in err


def test_no_such_file_and_unknown_suffix(convert, tmp_path):
    assert "no such checkpoint file" in convert(tmp_path / "none.pth")
    (tmp_path / "model.h5").write_bytes(b"x")
    assert "ends in .pth, .pt, .bin, .ckpt, .pth.tar, .safetensors; got '.h5'" in convert(tmp_path / "model.h5")


def test_usage_errors_exit_2(command):
    for arguments in ((), ("convrt",), ("eval", "x"), ("predict", "x", "--threshold", "2")):
        code, _, err = command(*arguments)
        assert code == 2 and "usage:" in err
    code, _, err = command("convert")
    assert code == 1 and "-m NAME" in err
    code, _, err = command("inspect")
    assert code == 2 and "usage:" in err


@pytest.mark.slow
def test_existing_output_is_kept(artefact, command, checkpoint):
    before = listing(artefact)
    code, _, err = command("convert", "-m", NAME, "--checkpoint", checkpoint, "-o", artefact)
    assert code == 1 and "exists and would be replaced; pass --overwrite" in err
    assert listing(artefact) == before
    code, _, err = command("convert", "-m", NAME, "--checkpoint", checkpoint, "-o", artefact, "--overwrite")
    assert code == 0, err
    assert sorted(p.name for p in artefact.parent.iterdir()) == ["artefact"]


def test_a_failed_overwrite_loses_nothing(artefact, command, state, tmp_path):
    before = listing(artefact)
    del state["norm.bias"]
    checkpoint_files.write(state, tmp_path / "bad.safetensors")
    code, _, _ = command(
        "convert", "-m", NAME, "--checkpoint", tmp_path / "bad.safetensors", "-o", artefact, "--overwrite"
    )
    assert code == 1
    assert listing(artefact) == before


def test_overwrite_never_deletes_what_is_no_artefact(tmp_path, command, checkpoint):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("precious")
    code, _, err = command("convert", "-m", NAME, "--checkpoint", checkpoint, "-o", tmp_path / "thesis", "--overwrite")
    assert code == 1 and "is not an artefact" in err
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "precious"


STALL = """
import sys, time
import swins.weights.artefacts as artefact
def stall(*_):
    print("half-way", flush=True)
    time.sleep(120)
artefact.write_json = stall
from swins.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
def test_killed_half_way(artefact, checkpoint, command, how):
    before = listing(artefact)
    arguments = ["convert", "-m", NAME, "--checkpoint", str(checkpoint), "-o", str(artefact), "--overwrite"]
    process = subprocess.Popen(
        [sys.executable, "-c", STALL, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job ignores it
    )
    assert process.stdout.readline().strip() == "half-way"
    process.send_signal(how)
    process.communicate(timeout=60)
    assert process.returncode in (-how, 128 + how)
    assert {p: v for p, v in listing(artefact).items() if p.is_relative_to(artefact)} == before
    if how == signal.SIGKILL:  # nobody could tidy up: the next run does
        assert len(list(artefact.parent.iterdir())) == 3  # its folder and its lock
        assert command(*arguments)[0] == 0
    assert [p.name for p in artefact.parent.iterdir()] == ["artefact"]


@pytest.mark.slow
def test_disk_full(artefact, checkpoint):
    """A file-size limit below the model's stands in for the disk: writing fails with an OSError all the same."""
    before = listing(artefact.parent)
    script = (
        "import resource, sys; from swins.cli import main;"
        "import swins.weights.artefacts as a; real = a.writing\n"
        "from swins.convert import certificate; proof = a.read_certificate(sys.argv[-2])\n"
        "certificate.certify = lambda *_: proof\n"  # timm's part takes long
        "def limited(*x):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)); return real(*x)\n"
        "a.writing = limited\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["convert", "-m", NAME, "--checkpoint", str(checkpoint), "-o", str(artefact), "--overwrite"]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    assert done.returncode == 1
    assert "File too large" in done.stderr and "Traceback" not in done.stderr
    assert listing(artefact.parent) == before


def test_broken_artefacts(artefact, command, tmp_path):
    for folder, words in ((tmp_path / "none", "an artefact is a folder"), (tmp_path, "an artefact is a folder")):
        code, _, err = command("verify", folder)
        assert code == 1 and words in err
    (artefact / "model.keras").write_bytes(b"PK\x03\x04 not really")
    code, _, err = command("verify", artefact)
    assert code == 1 and "not a readable .keras file" in err
    (artefact / "certificate.json").write_text("{}")
    code, _, err = command("verify", artefact)
    assert code == 1 and "not a certificate" in err


def test_a_flipped_byte_in_the_model(artefact, command):
    content = bytearray((artefact / "model.keras").read_bytes())
    for place in (100, len(content) // 2, len(content) - 30):
        broken = bytearray(content)
        broken[place] ^= 0xFF
        (artefact / "model.keras").write_bytes(broken)
        code, _, err = command("verify", artefact)
        assert code == 1 and "Traceback" not in err and err.startswith("swins verify: "), err


def test_a_repacked_model_is_not_the_certified_file(artefact, command):
    artefacts.load_model(artefact).save(artefact / "model.keras")
    code, _, err = command("verify", artefact)
    assert code == 1 and "its sha256 differs" in err


def test_a_faster_run_is_not_replaced(tmp_path):
    from swins.errors import SwinsError

    with (
        pytest.raises(SwinsError, match="exists and would be replaced"),
        artefacts.writing(tmp_path / "out") as partial,
    ):
        (partial / "certificate.json").write_text("slow")
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "certificate.json").write_text("fast")
    assert (tmp_path / "out" / "certificate.json").read_text() == "fast"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_link_to_an_artefact_stays_a_link(artefact, tmp_path, command, checkpoint):
    link = tmp_path / "link"
    link.symlink_to(artefact)
    code, _, err = command("convert", "-m", NAME, "--checkpoint", checkpoint, "-o", link, "--overwrite")
    assert code == 0, err
    assert link.is_symlink() and sorted(p.name for p in tmp_path.iterdir()) == ["artefact", "link"]


def test_a_keras_file_of_something_else(command, tmp_path):
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.save(tmp_path / "other.keras")
    code, _, err = command("convert", "--to-torch", tmp_path / "other.keras", "-o", tmp_path / "x.safetensors")
    assert code == 1 and "whose weights no program has names for" in err
    assert not (tmp_path / "x.safetensors").exists()


def test_to_torch_needs_a_safetensors_name(command, converted, tmp_path):
    for output in (("-o", tmp_path / "x.pth"), ()):
        code, _, err = command("convert", "--to-torch", converted, *output)
        assert code == 1 and ".safetensors" in err


@pytest.mark.slow
@pytest.mark.parametrize("package", [pytest.param("torch", marks=pytest.mark.slow), "timm"])
def test_a_missing_extra_is_named(package, checkpoint, tmp_path):
    """A package that cannot be imported: the error names the extra that brings it."""
    (tmp_path / "hide").mkdir()
    (tmp_path / "hide" / f"{package}.py").write_text(f"raise ModuleNotFoundError('gone', name={package!r})")
    done = subprocess.run(
        [sys.executable, "-m", "swins.cli", "convert", "-m", NAME, "--checkpoint", checkpoint, "-o", tmp_path / "out"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "hide")},
    )
    assert done.returncode == 1
    assert f"needs {package}: pip install 'swins[convert]'" in done.stderr
    assert not (tmp_path / "out").exists()


DUPLICATES = """
import sys, torch
from safetensors.torch import load_file
state = load_file(sys.argv[1]); out = sys.argv[2]
torch.save({"module.norm.bias": state["norm.bias"] + 1, **state}, f"{out}/twice.pth")
torch.save({**state, "head.weight": state["head.fc.weight"]}, f"{out}/heads.pth")
torch.save({**state, "norm.bias": state["norm.bias"].to_sparse()}, f"{out}/sparse.pth")
torch.save({**state, "norm.bias": state["norm.bias"].int()}, f"{out}/integers.pth")
torch.save({**state, "norm.bias": state["norm.bias"].double() + 1e300}, f"{out}/huge.pth")
torch.save({**state, "head.fc.weight": torch.tensor(1.0)}, f"{out}/scalar.pth")
"""


@pytest.fixture(scope="module")
def strange(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("strange")
    subprocess.run([sys.executable, "-c", DUPLICATES, str(checkpoint), str(folder)], check=True)
    return folder


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("twice.pth", "two tensors of the file are both 'norm.bias'"),
        ("heads.pth", "two tensors of the file are both 'head.fc.weight'"),
        ("sparse.pth", "one of shape (96,) is sparse, quantised or meta"),
        ("integers.pth", "norm.bias holds int32, not floating-point numbers"),
        ("huge.pth", "norm.bias has 96 values NaN or infinite"),
        ("scalar.pth", "head.fc.weight gives ()"),
    ],
)
def test_strange_tensors(convert, strange, file, words):
    assert words in convert(strange / file)


def test_an_output_inside_a_file_is_refused_at_once(command, checkpoint):
    code, _, err = command("convert", "-m", NAME, "--checkpoint", checkpoint, "-o", checkpoint / "out")
    assert code == 1 and "is not a folder that can be written" in err and "comparing" not in err


def test_an_empty_tag_is_no_name(convert, checkpoint):
    assert "unknown variant" in convert(checkpoint, f"{NAME}.")
