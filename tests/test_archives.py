"""Archives of SavedModels: fetched, refused, unpacked; hostile ones write nothing."""

import contextlib
import hashlib
import http.server
import io
import os
import pathlib
import subprocess
import sys
import tarfile
import threading

import numpy as np
import pytest
from shared_fixtures import needs_tensorflow

import swins
from swins import archives, files
from swins.convert.certificate import difference
from swins.weights import artefacts

pytestmark = needs_tensorflow


@contextlib.contextmanager
def server(handler):
    """An http server on loopback -> its address."""
    it = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=it.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{it.server_port}"
    finally:
        it.shutdown()
        thread.join()
        it.server_close()


@contextlib.contextmanager
def static_host(folder):
    """The standard library's file server -> (its address, list of requests)."""
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, _, *args):
            requests.append(args[0])

    with server(Handler) as address:
        yield address, requests


@contextlib.contextmanager
def tfhub_host(archive):
    """A host that speaks TF-Hub's protocol: a page for people, the archive for `?tf-hub-format=compressed`."""
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            asked = self.path == "/swins/mini/1?tf-hub-format=compressed"
            body = archive.read_bytes() if asked else b"<html>a page</html>"
            self.send_response(200)
            self.send_header("Content-Type", "application/gzip" if asked else "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with server(Handler) as address:
        yield address, requests


HUB_LOAD = """
import sys, numpy as np, tensorflow_hub as hub
x = np.load(sys.argv[2])
for _ in range(2):
    y = hub.load(sys.argv[1])(x)
np.save(sys.argv[3], y.numpy())
"""


def hub_load(address, x, folder, cache):
    """`hub.load` of an address, twice, in a fresh process -> outputs."""
    np.save(folder / "x.npy", x)
    command = [sys.executable, "-W", "ignore", "-P", "-c", HUB_LOAD, address, folder / "x.npy", folder / "y.npy"]
    environment = {"TFHUB_CACHE_DIR": str(cache), "PATH": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return np.load(folder / "y.npy")


@pytest.mark.slow
def test_static_hosts_and_tfhubs_protocol_serve_both_loaders(exported, tmp_path, monkeypatch):
    monkeypatch.setenv("SWINS_CACHE_DIR", str(tmp_path / "cache"))
    archive = exported / "model.tar.gz"
    x = np.random.default_rng(0).normal(size=(2, 28, 28, 1)).astype("float32")
    expected = artefacts.load_model(exported).predict(x, verbose=0)
    for number, host in enumerate((static_host(exported), tfhub_host(archive))):
        with host as (address, requests):
            handle = address + ("/model.tar.gz" if number == 0 else "/swins/mini/1")
            y = hub_load(handle, x, tmp_path, tmp_path / "tfhub")
            assert difference(y, expected)["relative"] <= 1e-5
            assert len(requests) == 1 and "tf-hub-format=compressed" in requests[0]
            for _ in range(2):
                assert difference(np.asarray(swins.HubLayer(handle)(x)), expected)["relative"] <= 1e-5
            assert len(requests) == 2
        y = swins.HubLayer(handle)(x)  # the host is gone: the cache answers
        assert difference(np.asarray(y), expected)["relative"] <= 1e-5
    assert not list((tmp_path / "cache").glob(".*"))


def test_a_transfer_that_breaks_off_is_told_and_leaves_nothing(exported, tmp_path, monkeypatch):
    monkeypatch.setenv("SWINS_CACHE_DIR", str(tmp_path / "cache"))
    body = (exported / "model.tar.gz").read_bytes()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:1000])

        def log_message(self, *_):
            pass

    with server(Handler) as address, pytest.raises(swins.SwinsError, match=r"cannot be fetched|bytes were announced"):
        swins.HubLayer(address + "/model.tar.gz")
    assert not (tmp_path / "cache").exists()


def small_archive(path):
    """A tar.gz that can be unpacked -> its bytes."""
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(*member("saved_model.pb"))
    return path.read_bytes()


@pytest.mark.parametrize("python", ["this Python's", "before 3.11.4"])
def test_an_archive_says_neither_owner_nor_rights(tmp_path, monkeypatch, python):
    if python == "before 3.11.4":
        monkeypatch.setattr(archives, "FILTER", {})
        if hasattr(tarfile, "fully_trusted_filter"):
            trusting = staticmethod(tarfile.fully_trusted_filter)
            monkeypatch.setattr(tarfile.TarFile, "extraction_filter", trusting, raising=False)
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as tar:
        for name in ("saved_model.pb", "assets/labels.txt"):
            info, body = member(name)
            info.mode, info.uid, info.gid, info.uname = 0o4777, 12345, 12345, "nobody"
            tar.addfile(info, body)
    folder = archives.unpack(tmp_path / "model.tar.gz", tmp_path / "out")
    for name in ("saved_model.pb", "assets/labels.txt"):
        facts = (folder / name).stat()
        assert facts.st_mode & 0o7777 == 0o644 and facts.st_uid == os.geteuid(), name


@contextlib.contextmanager
def host_of(chunks, headers=(), wait=None):
    """A host that answers everything with these bytes -> (its address, list of requests)."""
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            self.send_response(200)
            for header in headers:
                self.send_header(*header)
            self.end_headers()
            if wait:
                wait.wait(10)
            with contextlib.suppress(OSError):  # the client may have had enough
                for chunk in chunks:
                    self.wfile.write(chunk)

        def log_message(self, *_):
            pass

    with server(Handler) as address:
        yield address, requests


@pytest.mark.parametrize("announced", [True, False])
def test_more_bytes_than_an_archive_may_have_are_not_fetched(tmp_path, monkeypatch, announced):
    monkeypatch.setenv("SWINS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(archives, "LARGEST", 10_000)
    monkeypatch.setattr(archives, "CHUNK", 1_000)
    sent = []

    def endless():
        for _ in range(100_000):
            sent.append(1000)
            yield bytes(1000)

    headers = [("Content-Length", "100000000")] if announced else []
    with (
        host_of(endless(), headers) as (address, _),
        pytest.raises(swins.SwinsError, match=r"an archive has at most 10,000 bytes; got 1[01],?\d*.*nothing was kept"),
    ):
        archives.find_saved_model(address + "/model.tar.gz")
    assert sum(sent) < 20_000_000  # what buffers took
    assert not (tmp_path / "cache").exists()


def test_more_bytes_than_were_announced(tmp_path, monkeypatch):
    monkeypatch.setenv("SWINS_CACHE_DIR", str(tmp_path / "cache"))
    body = small_archive(tmp_path / "model.tar.gz")
    with (
        host_of([body], [("Content-Length", str(len(body) + 5))]) as (address, _),
        pytest.raises(swins.SwinsError, match=r"cannot be fetched|were announced"),
    ):
        archives.find_saved_model(address + "/model.tar.gz")
    assert not (tmp_path / "cache").exists()


def test_an_expected_digest(tmp_path, monkeypatch):
    monkeypatch.setenv("SWINS_CACHE_DIR", str(tmp_path / "cache"))
    body = small_archive(tmp_path / "model.tar.gz")
    good, bad = hashlib.sha256(body).hexdigest(), hashlib.sha256(b"other").hexdigest()
    with host_of([body]) as (address, requests):
        for handle in (address + "/m.tar.gz", tmp_path / "model.tar.gz"):
            with pytest.raises(swins.SwinsError, match=f"its sha256 must be {bad}; got {good}; nothing was unpacked"):
                archives.find_saved_model(f"{handle}#sha256={bad}")
            assert not (tmp_path / "cache").exists()
        for _ in range(2):
            assert (archives.find_saved_model(f"{address}/m.tar.gz#sha256={good.upper()}") / "saved_model.pb").is_file()
        assert len(requests) == 2 and all("#" not in request for request in requests)
        archives.find_saved_model(f"{tmp_path / 'model.tar.gz'}#sha256={good}")
    with pytest.raises(swins.SwinsError, match=r"a sha256 must be 64 hexadecimal digits; got 3"):
        archives.find_saved_model("https://host/model.tar.gz#sha256=abc")
    with pytest.raises(swins.SwinsError, match=r"#sha256= goes with the last two"):
        archives.find_saved_model(f"{tmp_path}#sha256={good}")


def test_who_comes_second_waits_for_the_first_ones_copy(tmp_path, monkeypatch):
    monkeypatch.setenv("SWINS_CACHE_DIR", str(tmp_path / "cache"))
    body, wait, results = small_archive(tmp_path / "model.tar.gz"), threading.Event(), []
    with host_of([body], wait=wait) as (address, requests):
        threads = [
            threading.Thread(target=lambda: results.append(archives.find_saved_model(address + "/m.tar.gz")))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        wait.set()
        for thread in threads:
            thread.join()
        assert len(requests) == 1
    assert len(set(results)) == 1 and len(results) == 3
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [results[0].name]


def test_a_killed_process_leaves_nothing_that_the_next_one_keeps(tmp_path, monkeypatch):
    monkeypatch.setenv("SWINS_CACHE_DIR", str(tmp_path / "cache"))
    body = small_archive(tmp_path / "model.tar.gz")
    with host_of([body]) as (address, _):
        folder = archives.find_saved_model(address + "/m.tar.gz")
        folder.rename(folder.with_name(f".{folder.name}.{files.host()}.abc.partial"))
        assert archives.find_saved_model(address + "/m.tar.gz") == folder
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [folder.name]


def test_archives_are_layers_too(exported, tmp_path, monkeypatch):
    monkeypatch.setenv("SWINS_CACHE_DIR", str(tmp_path / "cache"))
    layer = swins.HubLayer(exported / "model_fe.tar.gz")
    assert layer(np.zeros((1, 28, 28, 1), "float32")).shape == (1, 96)
    (cached,) = (tmp_path / "cache").iterdir()
    assert (cached / "saved_model.pb").is_file()


def member(name, content=b"x", kind=tarfile.REGTYPE, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, len(content) if kind == tarfile.REGTYPE else 0
    return info, io.BytesIO(content)


HOSTILE = {
    "absolute": [member("/tmp/swins_escape")],
    "parent": [member("../escape")],
    "deep parent": [member("variables/../../escape")],
    "backslashes": [member("..\\escape")],
    "drive": [member("C:\\escape")],
    "symlink": [member("link", kind=tarfile.SYMTYPE, target="/etc/passwd")],
    "symlink below": [member("link", kind=tarfile.SYMTYPE, target=".."), member("link/escape")],
    "hard link": [member("link", kind=tarfile.LNKTYPE, target="/etc/passwd")],
    "device": [member("null", kind=tarfile.CHRTYPE)],
    "pipe": [member("pipe", kind=tarfile.FIFOTYPE)],
}
STRANGE = {"name with NUL": {"path": "a\0b"}, "time nan": {"mtime": "nan"}, "time beyond": {"mtime": "1e400"}}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archives_write_nothing(case, tmp_path):
    archive = tmp_path / "in" / "model.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        for info, content in [member("saved_model.pb"), *HOSTILE[case]]:
            tar.addfile(info, content)
    with pytest.raises(swins.SwinsError, match="nothing was unpacked"):
        archives.unpack(archive, tmp_path / "out" / "model")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["in", "model.tar.gz", "out"]
    assert not pathlib.Path("/tmp/swins_escape").exists()


@pytest.mark.parametrize("case", STRANGE)
def test_strange_headers_are_refused(case, tmp_path):
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as tar:
        info, content = member("saved_model.pb")
        info.pax_headers = STRANGE[case]
        tar.addfile(info, content)
    with pytest.raises(swins.SwinsError, match=r"cannot|can be unpacked|no saved_model.pb"):
        archives.unpack(tmp_path / "model.tar.gz", tmp_path / "out" / "model")
    assert not list((tmp_path / "out").iterdir())


def test_archives_too_large_to_unpack(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "LARGEST", 10)
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as tar:
        tar.addfile(*member("saved_model.pb", bytes(11)))
    with pytest.raises(swins.SwinsError, match="more than 10 bytes"):
        archives.unpack(tmp_path / "model.tar.gz", tmp_path / "out")


@pytest.mark.parametrize("damage", ["cut", "noise", "not gzip", "empty", "no model"])
def test_corrupt_archives(exported, damage, tmp_path):
    whole = bytearray((exported / "model.tar.gz").read_bytes())
    file = tmp_path / "model.tar.gz"
    if damage == "cut":
        file.write_bytes(whole[: len(whole) // 2])
    elif damage == "noise":
        whole[len(whole) // 2 : len(whole) // 2 + 50] = bytes(50)
        file.write_bytes(whole)
    elif damage == "no model":
        with tarfile.open(file, "w:gz") as tar:
            tar.addfile(*member("readme.txt"))
    else:
        file.write_bytes(b"text" if damage == "not gzip" else b"")
    with pytest.raises(swins.SwinsError, match=r"not a tar.gz that can be unpacked|has no saved_model.pb"):
        archives.unpack(file, tmp_path / "out" / "model")
    assert not list((tmp_path / "out").iterdir())
