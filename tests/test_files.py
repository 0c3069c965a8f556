"""Files written whole, locked, kept: two hosts on one folder, killed writers, readers that change nothing."""

import errno
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading

import filelock
import pytest

import swins
from swins import files
from swins.errors import SwinsError
from swins.evaluate.evaluation import artefacts_in
from swins.weights import artefacts

NAME = "swin_mini_patch2_window4_28"


def listing(folder):
    """Every file of a folder with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in pathlib.Path(folder).rglob("*") if p.is_file()}


def left_by(folder, host, kind):
    """A folder as a killed writer leaves it -> its path."""
    path = folder.with_name(f".{folder.name}.{host}.abc.{kind}")
    path.mkdir()
    (path / "model.keras").write_text(f"of {host}")
    return path


@pytest.fixture
def said():
    return []


@pytest.fixture
def other_host(monkeypatch):
    """This process, on another machine."""
    monkeypatch.setattr(files, "host", lambda: "other")


OTHER_PROCESS = """
import sys, types
sys.modules["swins"] = types.ModuleType("swins")  # without TensorFlow
sys.modules["swins"].__path__ = sys.argv[2:]
from swins import files
from swins.errors import SwinsError
files.host = lambda: "other"
try:
    files.folder(sys.argv[1], print).__enter__()
except SwinsError as error:
    print(error)
"""


def ignore(folder):
    """A check that finds nothing."""


def write(folder, name="new", said=None, dropped=None):
    with files.folder(folder, ignore, dropped, (said if said is not None else []).append) as partial:
        (partial / name).write_text(name)


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    files.write(tmp_path / "a", "old")
    with pytest.raises(ZeroDivisionError), files.replacing(tmp_path / "a") as partial:
        partial.write_text("half")
        1 / 0  # noqa: B018
    assert listing(tmp_path) == {"a": b"old"}
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~files.umask()


def test_own_leftovers_go_and_another_host_s_stay_and_are_named(tmp_path, said):
    folder = tmp_path / "x"
    own = [left_by(folder, files.host(), kind) for kind in ("partial", "obsolete")]
    others = [left_by(folder, "other", kind) for kind in ("partial", "obsolete")]
    similar = left_by(tmp_path / "x.y", files.host(), "partial")  # of another folder
    write(folder, said=said)
    assert not any(path.exists() for path in own)
    assert all((path / "model.keras").is_file() for path in (*others, similar))
    assert len(said) == 2 and all("left by a run on other" in line for line in said)
    assert listing(folder) == {"new": b"new"} and not list(tmp_path.glob("*.lock"))


def test_nothing_is_proven_where_there_are_no_locks(tmp_path, said, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.ENOLCK, "no locks available")

    own = left_by(tmp_path / "x", files.host(), "partial")
    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    write(tmp_path / "x", said=said)
    assert own.is_dir() and listing(tmp_path / "x") == {"new": b"new"}
    assert f"left by a run on {files.host()}" in said[0]


def test_a_folder_laid_aside_is_put_back_by_its_host_alone(tmp_path, said, monkeypatch):
    folder = tmp_path / "x"
    aside = left_by(folder, "other", "replaced")
    for attempt in (lambda: write(folder, said=said), lambda: artefacts.read_certificate(folder)):
        with pytest.raises(SwinsError, match=rf"a run on other began to replace it.*mv {aside} {folder}"):
            attempt()
    with pytest.raises(SwinsError, match=r"put it back: mv"):
        artefacts.load_model(folder)
    assert listing(tmp_path) == {f"{aside.name}/model.keras": b"of other"}
    monkeypatch.setattr(files, "host", lambda: "other")
    write(folder, said=said)
    assert listing(folder) == {"model.keras": b"of other", "new": b"new"} and "put" in said[-1]
    aside.mkdir()  # beside its successor nobody knows what it is
    write(folder, "newer", said=said)
    assert aside.is_dir() and str(aside) in said[-1]


def test_one_process_writes_a_folder(tmp_path):
    with files.folder(tmp_path / "x", ignore) as partial:
        command = [sys.executable, "-c", OTHER_PROCESS, *map(str, (tmp_path / "x", *swins.__path__))]
        done = subprocess.run(command, capture_output=True, text=True)
        assert f"x is being written by process {os.getpid()} of {files.host()}" in done.stdout, done.stderr
        assert partial.is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_lock_can_be_waited_for(tmp_path):
    order = []

    def second():
        with files.lock(tmp_path / "x", wait=True) as held:
            order.append(held)

    with files.lock(tmp_path / "x"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.3)
        order.append("first")
    thread.join()
    assert order == ["first", True] and not list(tmp_path.iterdir())


def test_what_is_added_and_changed_meanwhile_is_kept(tmp_path):
    """A writer replaces a folder minutes after it saw it."""
    folder = tmp_path / "x"
    for name in ("deep/empty", "both"):
        (folder / name).mkdir(parents=True)
    for name in ("ours", "theirs", "deep/theirs"):
        (folder / name).write_text("old")
    (folder / "link").symlink_to("theirs")
    (folder / "loop").symlink_to(".")

    def dropped(seen):
        assert seen == folder
        return lambda path: path.name.startswith("ours")

    with files.folder(folder, ignore, dropped) as partial:
        (partial / "ours").write_text("new")
        (partial / "both").mkdir()
        (folder / "late").write_text("mine")
        (folder / "theirs").write_text("changed")
    assert listing(folder) == {
        "ours": b"new", "theirs": b"changed", "deep/theirs": b"old", "late": b"mine", "link": b"changed",
    }  # fmt: skip
    assert (folder / "deep" / "empty").is_dir() and os.readlink(folder / "loop") == "."
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("name", ["model.onnx", "saved_model/variables/x", "saved_model"])
def test_a_file_of_the_user_s_is_never_replaced(tmp_path, name):
    folder = tmp_path / "x"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text("mine")
    before = listing(tmp_path)
    with (
        pytest.raises(SwinsError, match="would be replaced, and swins did not write it"),
        files.folder(folder, ignore) as partial,
    ):
        for made in ("model.onnx", "saved_model/variables/x"):
            (partial / made).parent.mkdir(parents=True, exist_ok=True)
            (partial / made).write_text("new")
    assert listing(tmp_path) == before


def test_a_folder_that_cannot_be_read_is_not_lost(tmp_path, monkeypatch):
    (tmp_path / "x" / "secret").mkdir(parents=True)
    (tmp_path / "x" / "secret" / "a").write_text("mine")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("secret"):
            raise PermissionError(errno.EACCES, "denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError):
        write(tmp_path / "x")
    monkeypatch.undo()
    assert listing(tmp_path) == {"x/secret/a": b"mine"}


def test_without_hard_links_files_are_copied(tmp_path, monkeypatch):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a").write_text("mine")
    monkeypatch.setattr(os, "link", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.EPERM, "no links")))
    write(tmp_path / "x")
    assert listing(tmp_path / "x") == {"a": b"mine", "new": b"new"}


@pytest.mark.slow
def test_readers_change_nothing(artefact, command, other_host):
    for host in ("other", "third"):
        for kind in ("partial", "replaced", "obsolete"):
            left_by(artefact, host, kind)
    before = listing(artefact.parent)
    artefacts.read_certificate(artefact)
    artefacts.open_evaluated(artefact)
    assert command("inspect", artefact)[0] == 0
    assert listing(artefact.parent) == before


def test_what_is_being_written_is_not_evaluated_with_all(artefact):
    left_by(artefact, "other", "partial")
    assert artefacts_in(artefact.parent) == [artefact]


def test_two_hosts_complete_one_artefact_and_nothing_is_lost(artefact, said, monkeypatch):
    """Where locks do not reach the other host, who ends last is refused: what the first one made stays."""
    monkeypatch.setattr(files, "NO_LOCKS", (errno.ENOLCK,))
    monkeypatch.setattr(filelock.FileLock, "acquire", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.ENOLCK, "")))

    def add(name):
        proof = artefacts.read_certificate(artefact)
        with artefacts.completing(artefact, artefact, [name], say=said.append) as partial:
            (partial / name).write_text(name)
            yield
            proof.setdefault("targets", {})[name] = {"files": {name: files.sha256(partial / name)}}
            artefacts.write_json(partial / artefacts.CERTIFICATE, proof)

    first, second = add("model.onnx"), add("model.tflite")
    next(first)
    monkeypatch.setattr(files, "host", lambda: "other")
    next(second)
    assert any("was left by a run on" in line for line in said)
    assert list(first) == []
    with pytest.raises(SwinsError, match="was changed while this ran; nothing was kept; run it again"):
        list(second)
    assert {"model.onnx"} == set(artefacts.read_certificate(artefact)["targets"])
    list(add("model.tflite"))
    assert set(listing(artefact)) == {"certificate.json", "model.keras", "model.onnx", "model.tflite"}
    assert [path.name for path in artefact.parent.iterdir()] == ["artefact"]


@pytest.fixture
def full(artefact):
    """An artefact with exports, as its certificate records them, and files of its user's."""
    for name in ("saved_model.pb", "variables/variables.index"):
        (artefact / "saved_model" / name).parent.mkdir(parents=True, exist_ok=True)
        (artefact / "saved_model" / name).write_text(name)
    (artefact / "saved_model" / "assets").mkdir()
    for name in ("model.tar.gz", "model.onnx", "model.tflite"):
        (artefact / name).write_text(name)
    (artefact / "README.md").write_text(f"{artefacts.CARD_BEGINS}x/1\n")
    proof = artefacts.read_certificate(artefact)
    proof["exports"] = {"saved_model": {"sha256": files.sha256(artefact / "model.tar.gz")}}
    proof["targets"] = {
        name: {"files": {name: files.sha256(artefact / name)}} for name in ("model.onnx", "model.tflite")
    }
    artefacts.write_json(artefact / artefacts.CERTIFICATE, proof)
    for name in ("notes.txt", "plots/a.png", "saved_model/labels.txt"):
        (artefact / name).parent.mkdir(exist_ok=True)
        (artefact / name).write_text("mine")
    (artefact / "model.tflite").write_text("quantised by hand")
    return artefact


@pytest.mark.slow
def test_convert_overwrites_what_is_its_own(full, command, checkpoint):
    before = listing(full)
    code, _, err = command("convert", "-m", NAME, "--checkpoint", checkpoint, "-o", full, "--overwrite")
    assert code == 0, err
    kept = ("notes.txt", "plots/a.png", "saved_model/labels.txt", "model.tflite")
    after = listing(full)
    assert {name: after.pop(name) for name in kept} == {name: before[name] for name in kept}
    assert set(after) == {"model.keras", "certificate.json"}
    assert not (full / "saved_model" / "assets").exists()
    assert "model.onnx, model.tar.gz, saved_model of the model that was there go with it; export again" in err


def test_a_card_that_was_edited_and_files_that_only_look_like_exports_are_kept(full, command):
    (full / "README.md").write_text("my notes")
    (full / "model_fe.tar.gz").write_text("mine")
    before = listing(full)
    code, _, err = command("export", full, "--overwrite")
    assert code == 1 and "model_fe.tar.gz, README.md would be replaced, and is not as swins wrote it" in err
    assert listing(full) == before


@pytest.mark.slow
def test_killed_in_every_phase(artefact, checkpoint, idx):
    """Whenever convert, export or eval is killed, all that was there is there, and the next run ends as ever."""
    (artefact / "notes.txt").write_text("mine")
    own = {name: files.sha256(artefact / name) for name in ("notes.txt", "model.keras")}
    script = pathlib.Path(__file__).with_name("killed_writers.py")
    command = [sys.executable, str(script), *map(str, (artefact, checkpoint, idx))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    aside = ("the old one is away", "kept files are carried")
    for name, phases in found.items():
        for phase, (end, there, said, untouched) in phases.items():
            place = f"{name}, {phase}"
            assert end == (0 if phase == "undisturbed" else -signal.SIGKILL), (place, done.stderr[-2000:])
            folders = {path.partition("/")[0] for path, digest in there.items() if digest == own["notes.txt"]}
            whole = [folder for folder in folders if there.get(f"{folder}/model.keras") and folder[-7:] != "partial"]
            assert whole, place  # what was there, or its successor
            assert untouched, place  # by readers, and by writers of another host
            if name != "eval" and phase in aside:
                assert artefact.name not in whole and any("put it back: mv" in line for line in said), place
            else:
                assert artefact.name in whole, place
        end, there, said, _ = found[name]["undisturbed"]
        tables = {"results.csv", "predictions.csv", "predictions_classes.csv"}
        assert not said and {path.partition("/")[0] for path in there} <= {"artefact", *tables}
        assert there["artefact/notes.txt"] == own["notes.txt"]
    assert {"artefact/saved_model/saved_model.pb", "artefact/model.tar.gz"} <= set(found["export"]["undisturbed"][1])
    assert "predictions.csv" not in found["eval"]["some images"][1]
    rows = (artefact.parent / "results.csv").read_text().splitlines()
    assert len(rows) == 3 and rows[1].split(",")[:8] == rows[2].split(",")[:8]  # one was there before the kill
    assert len((artefact.parent / "predictions.csv").read_text().splitlines()) == 71
