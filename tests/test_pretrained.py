"""Weights through the hub, against a stand-in on loopback, in processes where torch must not be imported."""

import contextlib
import hashlib
import http.server
import os
import subprocess
import sys
import threading

import pytest

from swins.weights import artefacts

NAME = "swin_mini_patch2_window4_28.fashion_mnist"
PATH = f"/timm/{NAME}/resolve/main/model.safetensors"

CREATE = """
import sys, swins
from swins.weights import checkpoint_files, swin_rules
model = swins.create(sys.argv[1], weights="pretrained", **eval(sys.argv[2]))
assert not {"torch", "timm"} & set(sys.modules), "torch was imported"
print("digest", checkpoint_files.digest(swin_rules.state_dict(model)), model.output.shape[-1])
"""


@contextlib.contextmanager
def hub(file):
    """A Hugging Face Hub with one file -> (its address, list of requests)."""
    content, requests = file.read_bytes(), []

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self, body):
            requests.append((self.command, self.path))
            if self.path != PATH:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(body)

        def do_HEAD(self):
            self.answer(b"")

        def do_GET(self):
            self.answer(content)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def run(*command, address="http://127.0.0.1:9", cache, **more):
    environment = {k: v for k, v in os.environ.items() if "proxy" not in k.lower() and k != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": address, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", **more}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment, timeout=300)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_fetched_once_converted_without_torch_and_cached(checkpoint, converted, tmp_path):
    with hub(checkpoint) as (address, requests):
        code, out, err = run("-c", CREATE, NAME, "{}", address=address, cache=tmp_path)
        assert code == 0, err
        digest = artefacts.read_certificate(converted)["weights_sha256"]
        assert out.splitlines()[-1] == f"digest {digest} 10"
        assert requests.count(("GET", PATH)) == 1
        code, out, err = run("-c", CREATE, NAME, "dict(num_classes=4)", address=address, cache=tmp_path)
        assert code == 0 and out.split()[-1] == "4", err
        assert requests.count(("GET", PATH)) == 1
    # the hub is gone: the cache answers
    code, out, err = run("-c", CREATE, NAME, "{}", cache=tmp_path)
    assert code == 0 and digest in out, err


@pytest.mark.slow
def test_the_converter_fetches_too(checkpoint, tmp_path):
    with hub(checkpoint) as (address, _):
        arguments = ("-m", "swins.cli", "convert", "-m", NAME, "-o", str(tmp_path / "out"))
        code, out, err = run(*arguments, address=address, cache=tmp_path / "cache")
    assert code == 0 and "pass" in out, err
    assert artefacts.read_certificate(tmp_path / "out")["source"]["file"] == "model.safetensors"


@pytest.mark.slow
@pytest.mark.parametrize("offline", [False, True])
def test_no_network_says_so(tmp_path, offline):
    more = {"HF_HUB_OFFLINE": "1"} if offline else {}
    arguments = ("convert", "-m", NAME, "-o", str(tmp_path / "out"))
    code, _, err = run("-m", "swins.cli", *arguments, cache=tmp_path / "c", **more)
    assert ("the hub does not answer; try 1 in" in err) != offline
    assert "Retrying" not in err, "the client says it in two long lines"
    assert code == 1
    assert "not in the local cache, and the hub cannot be reached" in err and "--checkpoint FILE" in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_file_the_hub_has_not(checkpoint, tmp_path):
    with hub(checkpoint) as (address, _):
        code, _, err = run("-c", CREATE, "swin_s3_tiny_224", "{}", address=address, cache=tmp_path)
    assert code == 1 and "timm/swin_s3_tiny_224.ms_in1k has no model.safetensors on the hub" in err
