"""hf:OWNER/NAME and timm/NAME wherever weights are taken: of a cache without a network, and of a hub on loopback."""

import contextlib
import functools
import hashlib
import http.server
import io
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
from shared_fixtures import NAME

import swins
from swins.errors import SwinsError
from swins.labels import FASHION_MNIST
from swins.opening import open_model
from swins.weights import pretrained

huggingface_hub = pytest.importorskip("huggingface_hub")
REVISION = "0" * 40
CONFIG = {
    "architecture": "swin_mini_patch2_window4_28",
    "num_classes": 10,
    "label_names": list(FASHION_MNIST),
    "pretrained_cfg": {"input_size": [1, 28, 28], "crop_pct": 0.875, "mean": [0.3], "std": [0.2]},
}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A function: OWNER/NAME -> the folder of its snapshot in the hub's cache, without a network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def make(repository):
        place = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
        folder = place / "snapshots" / REVISION
        folder.mkdir(parents=True)
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text(REVISION)
        return folder

    return make


@pytest.fixture
def garments(cache, checkpoint):
    """Repositories of the embedded weights, by timm's file and config.json."""
    for repository in ("someone/garments", "timm/garments"):
        folder = cache(repository)
        shutil.copy(checkpoint, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(CONFIG))


def test_a_repository_is_a_folder_of_weights(garments):
    folder = pretrained.local("hf:someone/garments")
    assert pretrained.local(f"hf:someone/garments@{REVISION}") == folder
    opened = open_model("timm/garments")
    assert opened.certificate["class_names"] == list(FASHION_MNIST)
    assert opened.task.prepare(opened, {}).preparation.mean == (0.3,)


@pytest.mark.slow
def test_wherever_weights_are_taken(garments, checkpoint, command, tmp_path, pixels):
    address = "hf:someone/garments"
    expected = swins.create(NAME, weights=checkpoint).get_weights()
    assert all(map(np.array_equal, swins.create(NAME, weights=address).get_weights(), expected))
    assert list(swins.backbone(address).output) == ["P1", "P2"]
    code, out, err = command("inspect", address)
    assert code == 0 and "swin_mini_patch2_window4_28" in out and "t-shirt" in out, err
    from PIL import Image

    Image.fromarray(pixels[0][0]).save(tmp_path / "photo.png")
    code, out, err = command("predict", tmp_path / "photo.png", "-m", address)
    assert code == 0 and "ankle boot" in out, err


def test_what_is_no_address_or_not_there(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for address in ("hf:garments", "hf:a/b/c", "timm/a b", "hf:"):
        with pytest.raises(SwinsError, match="weights of the hub are hf:OWNER/NAME or timm/NAME"):
            swins.create(NAME, weights=address)
    with pytest.raises(SwinsError, match="someone/else: not in the local cache, and the hub cannot be reached"):
        swins.load("hf:someone/else")
    (cache("someone/empty") / "config.json").write_text("{}")
    with pytest.raises(SwinsError, match="someone/empty has no weights that are read here; its files must be model"):
        swins.load("hf:someone/empty")
    (tmp_path / "timm" / "mine").mkdir(parents=True)
    assert pretrained.local("timm/mine") == "timm/mine"  # a folder that is there
    for other in (None, "pretrained", NAME, tmp_path / "timm"):
        assert pretrained.local(other) is other


@contextlib.contextmanager
def hub(files):
    """A hub on loopback with one repository, someone/garments -> (its address, requests)."""
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.do_GET(body=False)

        def do_GET(self, body=True):
            requests.append(self.path)
            prefix, kind = f"/someone/garments/resolve/{REVISION}/", "application/octet-stream"
            content = files.get(self.path.removeprefix(prefix)) if self.path.startswith(prefix) else None
            if self.path.startswith("/api/models/someone/garments/revision/main"):
                siblings = [{"rfilename": name} for name in files]
                content, kind = json.dumps({"id": "x", "sha": REVISION, "siblings": siblings}).encode(), "text/json"
            if self.path.startswith(f"/api/models/someone/garments/tree/{REVISION}"):
                rows = [
                    {"type": "file", "path": name, "size": len(bytes_), "oid": hashlib.sha1(bytes_).hexdigest()}
                    for name, bytes_ in files.items()
                ]
                content, kind = json.dumps(rows).encode(), "text/json"
            self.send_response(404 if content is None else 200)
            if content is None:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Type", kind)
            self.send_header("ETag", f'"{hashlib.sha256(content or b"").hexdigest()}"')
            self.send_header("X-Repo-Commit", REVISION)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            if body:
                self.wfile.write(content or b"")

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", requests
        finally:
            server.shutdown()
            thread.join()


def test_a_retry_is_one_short_line(monkeypatch):
    """A hub that is busy, where absl has given the root a handler as TensorFlow lets it."""
    from huggingface_hub.utils import http_backoff

    logger, written = logging.getLogger("huggingface_hub"), io.StringIO()
    monkeypatch.setattr(logger, "handlers", [logging.StreamHandler(written)])
    monkeypatch.setattr(logger, "propagate", True)
    root = logging.StreamHandler(written)
    monkeypatch.setattr(logging.root, "handlers", [root])
    with hub({}) as (address, requests):
        ask = functools.partial(http_backoff, "GET", f"{address}/api/x", max_retries=1)
        ask(base_wait_time=0.01, retry_on_status_codes=(599,))  # an answer
        with contextlib.suppress(SwinsError), pretrained.asking("a/b", "is gone"):
            ask(base_wait_time=0.01, retry_on_status_codes=(404,))
    assert len(requests) == 3 and not logger.handlers[0].filters and logger.propagate
    assert written.getvalue() == "a/b: the hub does not answer; try 1 in 0.01 s\n"


UNANSWERED = """
import logging, time
logging.basicConfig()  # as absl does for TensorFlow
time.sleep = lambda seconds: None
from swins.errors import SwinsError
from swins.weights import pretrained
try:
    pretrained.fetch("swin_tiny_patch4_window7_224.ms_in1k")
except SwinsError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_hub_that_does_not_answer_is_a_line_a_try(tmp_path):
    """In a process of its own: the hub's client gives its logger a handler only when it is first used."""
    environment = {k: v for k, v in os.environ.items() if "proxy" not in k.lower() and k != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", UNANSWERED], capture_output=True, text=True, env=environment)
    name = "timm/swin_tiny_patch4_window7_224.ms_in1k: "
    said = [line.partition(" in ")[0] for line in done.stderr.splitlines() if "hub" in line or "Retry" in line]
    assert said == [f"{name}the hub does not answer; try {i + 1}" for i in range(5)]
    assert done.stdout.startswith(f"{name}not in the local cache, and the hub cannot be reached")


def test_a_hub_without_an_address_is_not_asked(tmp_path, monkeypatch, caplog):
    """No DNS, no proxy: at once, without a line."""

    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("it was tried again"))
    line = "docs/training.md has a whole line of a run without network"
    for ask in (pretrained.fetch, lambda name: pretrained.local(f"timm/{name}")):
        with pytest.raises(SwinsError, match=f"the hub cannot be reached; .*{line}"):
            ask("swin_tiny_patch4_window7_224.ms_in1k")
    assert not caplog.records


ASK = """
import sys
from swins.errors import SwinsError
from swins.weights.pretrained import local
try:
    print(local(sys.argv[1]))
except SwinsError as error:
    print("refused", error)
"""


@pytest.mark.slow
def test_fetched_are_the_weights_once_and_what_tells_of_them(tmp_path):
    files = {name: name.encode() for name in ("config.json", "model.safetensors", "pytorch_model.bin", "big.msgpack")}
    with hub(files) as (address, requests):
        environment = {k: v for k, v in os.environ.items() if "proxy" not in k.lower() and k != "HF_HUB_OFFLINE"}
        environment |= {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}

        def ask(name):
            command = [sys.executable, "-c", ASK, name]
            return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120).stdout.strip()

        folder = ask("hf:someone/garments")
        assert sorted(os.listdir(folder)) == ["config.json", "model.safetensors"]
        assert not any("pytorch_model.bin" in path or "msgpack" in path for path in requests)
        assert "someone/else is not on the hub; pass a file you have" in ask("hf:someone/else")
