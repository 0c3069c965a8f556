"""docs/serving.md as printed: the layout, TF Serving's requests on loopback, ONNX behind FastAPI; what is refused."""

import base64
import contextlib
import http.client
import importlib.util
import json
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image
from shared_fixtures import ROOT, needs_tensorflow

import swins
from swins.cli import main
from swins.errors import SwinsError
from swins.exports import rest_server

pytestmark = needs_tensorflow
PAGE = ROOT / "docs" / "serving.md"


def blocks(kind):
    return re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(), re.DOTALL)


class Doubled:
    """A SavedModel that doubles numbers and turns a text around."""

    def __new__(cls, folder):
        import tensorflow as tf

        root = tf.Module()

        @tf.function(input_signature=[tf.TensorSpec((None, 2), tf.float32, name="x")])
        def double(x):
            return {"y": 2 * x}

        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="raw_bytes")])
        def sizes(raw_bytes):
            lengths = tf.strings.length(raw_bytes)
            return {"length": lengths, "again_bytes": raw_bytes, "text": tf.strings.as_string(lengths)}

        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")])
        def beginnings(image_bytes):
            return {"names": tf.strings.substr(image_bytes, 0, 3), "scores": tf.strings.length(image_bytes)}

        signatures = {"serving_default": double, "of_bytes": sizes, "serving_bytes": beginnings}
        tf.saved_model.save(root, str(folder), signatures=signatures)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "my model"
    Doubled(folder / "1")
    Doubled(folder / "12")
    (folder / "3").mkdir()  # no SavedModel
    (folder / "saved_model").mkdir()
    return rest_server.Served(folder)


@contextlib.contextmanager
def running(served):
    with rest_server.open_server(served, port=0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def ask(address, content=None):
    """(status, JSON) of a request."""
    body = content if content is None or isinstance(content, bytes) else json.dumps(content).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(address, body)) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_requests_are_answered_as_tf_serving_answers_them(served):
    """Its documentation's examples: rows and columns, one input and output without a name, bytes as b64, versions."""
    assert (served.version, served.name) == (12, "my_model")
    text = base64.b64encode(b"abc").decode()
    rows = {"signature_name": "of_bytes", "instances": [{"raw_bytes": {"b64": text}}, {"raw_bytes": {"b64": ""}}]}
    with running(served) as address:
        model = f"{address}/v1/models/my_model"
        status, state = ask(model)
        assert status == 200 and state["model_version_status"][0]["version"] == "12"
        assert ask(f"{model}:predict", {"instances": [[1, 2], [3, 4]]}) == (200, {"predictions": [[2, 4], [6, 8]]})
        assert ask(f"{model}/versions/12:predict", {"inputs": {"x": [[1, 2]]}}) == (200, {"outputs": [[2, 4]]})
        assert ask(f"{model}:predict", {"instances": [{"x": [1, 2]}]}) == (200, {"predictions": [[2, 4]]})
        status, said = ask(f"{model}:predict", rows)
        assert status == 200
        first = {"length": 3, "again_bytes": {"b64": text}, "text": "3"}
        assert said["predictions"] == [first, {"length": 0, "again_bytes": {"b64": ""}, "text": "0"}]
        status, said = ask(f"{model}:predict", {"signature_name": "of_bytes", "inputs": [{"b64": text}]})
        assert said["outputs"]["length"] == [3]


@pytest.mark.parametrize(
    ("path", "content", "status", "text"),
    [
        (":predict", b"not JSON", 400, "Expecting value"),
        (":predict", {"instances": []}, 400, "a list of at least one"),
        (":predict", {"instances": [[1, 2]], "inputs": [[1, 2]]}, 400, '"instances" or "inputs", one of them'),
        (":predict", [1], 400, '"instances" or "inputs"'),
        (":predict", {"instances": [[1, 2, 3]]}, 400, "x must have the shape (None, 2); got (1, 3)"),
        (":predict", {"instances": [{"z": [1, 2]}]}, 400, "serving_default takes x; got z"),
        (":predict", {"instances": [{"x": [1, 2]}, {"z": 1}]}, 400, '"instances" must all name the same inputs: x'),
        (":predict", {"instances": ["text"]}, 400, "x of serving_default must be numbers (float32); got bytes or text"),
        (":predict", {"signature_name": "other", "instances": [1]}, 400, "no signature 'other'; there are"),
        (":predict", {"signature_name": "of_bytes", "instances": [{"b64": "*"}]}, 400, "b64 must be base64"),
        ("/versions/1:predict", {"instances": [[1, 2]]}, 404, "POST /v1/models/my_model:predict"),
        (
            "x:predict",
            {"instances": [[1, 2]]},
            404,
            "this server has my_model, version 12: POST /v1/models/my_model:pr",
        ),
        ("x", None, 404, "GET /v1/models/my_model"),
    ],
)
def test_what_is_no_request_is_refused_with_a_reason(served, path, content, status, text):
    with running(served) as address:
        code, said = ask(f"{address}/v1/models/my_model{path}", content)
    assert code == status and text in said["error"]


def test_what_is_no_folder_and_what_is_an_export(tmp_path, monkeypatch):
    """The page's server.py with another FOLDER than there is; a file for onnxruntime where a model is wanted."""
    monkeypatch.chdir(tmp_path)
    for takes in (swins.class_names, swins.preprocess):
        with pytest.raises(SwinsError, match=r"^artefacts/my_swin: no such file or folder; as a name: unknown variant"):
            takes("artefacts/my_swin")
    (tmp_path / "artefacts" / "my_swin").mkdir(parents=True)
    with pytest.raises(SwinsError, match=r"^artefacts/my_swin: no model that is known here; as a name"):
        swins.class_names("artefacts/my_swin")
    for name in ("model.onnx", "certificate.json"):
        (tmp_path / "artefacts" / "my_swin" / name).touch()
    with pytest.raises(SwinsError, match=r"as docs/runtimes\.md says, .*; give the artefact .*: artefacts/my_swin$"):
        swins.load("artefacts/my_swin/model.onnx")


PICTURE = bytes(range(256)) * 400  # with both quotes, which Python's reprs of bytes escape


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (
            {"instances": [{"image_bytes": {"b64": ...}}]},
            'serving_default takes x; got image_bytes; add "signature_name": ',
        ),
        (
            {"instances": [{"b64": ...}]},
            'x of serving_default must be numbers (float32); got bytes or text; add "signa',
        ),
        ({"inputs": {"image_bytes": [{"b64": ...}]}}, "serving_default takes x; got image_bytes; add "),
        ({"inputs": {"x": [...]}}, 'x of serving_default must be numbers (float32); got bytes or text; add "sig'),
        ({"signature_name": "serving_bytes", "instances": [[{"b64": ...}]]}, "image_bytes must have the shape (None,)"),
        ({"signature_name": ..., "instances": [1]}, "no signature '"),
        (PICTURE, 'a request must be JSON, files in it {"b64": base64}; '),
    ],
)
def test_an_error_never_gives_the_picture_back(served, request_, text):
    """It is short, and says which signature takes pictures."""
    body = request_
    if isinstance(request_, dict):
        body = json.dumps(request_, default=lambda _: base64.b64encode(PICTURE).decode()).encode()
    with running(served) as address:
        status, said = ask(f"{address}/v1/models/my_model:predict", body)
    assert status == 400 and text in said["error"] and len(said["error"]) < 320
    if text.endswith("; add "):
        assert said["error"].endswith('"signature_name": "serving_bytes"')


def test_what_a_library_quotes_is_left_out():
    error = TypeError(f"Cannot convert {[PICTURE]} to EagerTensor of dtype float")
    assert rest_server.reason(error) == "Cannot convert (bytes)"
    assert rest_server.reason(ValueError("x" * 10_000)) == f"{'x' * 300} ..."


def test_the_pages_curl_line(served, tmp_path, monkeypatch):
    """By a shell and curl, of a picture that no command line could hold; where there is no curl, its body by urllib."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.jpg").write_bytes(PICTURE * 4)
    (code,) = (block for block in blocks("sh") if "curl -d @-" in block)
    with running(served) as address:
        place = "http://localhost:8501/v1/models/my_swin:predict"
        assert place in code
        if shutil.which("curl"):
            line = code.replace(place, f"{address}/v1/models/my_model:predict")
            done = subprocess.run(["sh", "-c", line], capture_output=True, text=True)
            said = json.loads(done.stdout or "{}") or done.stderr
        else:
            done = subprocess.run(["sh", "-c", code.partition("|")[0]], capture_output=True)
            said = ask(f"{address}/v1/models/my_model:predict", done.stdout.replace(b"\n", b""))[1]
    assert said == {"predictions": [{"names": "\x00\x01\x02", "scores": len(PICTURE) * 4}]}


def test_a_body_without_end_and_ports_that_cannot_be_taken(served, tmp_path, command, monkeypatch):
    with running(served) as address:
        connection = http.client.HTTPConnection(address.removeprefix("http://"))
        connection.putrequest("POST", "/v1/models/my_model:predict")
        connection.putheader("Content-Length", str(2**40))
        connection.endheaders()
        assert connection.getresponse().status == 413
        connection.close()
        port = int(address.rpartition(":")[2])
        with pytest.raises(
            SwinsError, match=f"port {port} of 127[.]0[.]0[.]1 is in use; end what listens there, or choose"
        ):
            rest_server.open_server(served, port=port)
        monkeypatch.setattr(rest_server, "Served", lambda folder: served)
        code, _, err = command("serve", tmp_path, "--port", port)
        assert code == 1 and "is in use" in err
    with pytest.raises(SwinsError, match=r"port 99999 of 127\.0\.0\.1 cannot be taken"):
        rest_server.open_server(served, port=99999)


def test_a_client_that_goes_away_leaves_no_traceback(served, monkeypatch, capfd):
    gone, answered = threading.Event(), threading.Event()

    def predict(request):
        gone.wait(20)
        answered.set()
        return {"predictions": [0.0] * 2_000_000}  # more than a socket keeps

    monkeypatch.setattr(served, "predict", predict)
    with running(served) as address:
        client = http.client.HTTPConnection(address.removeprefix("http://"))
        client.request("POST", "/v1/models/my_model:predict", b"{}")
        client.close()
        gone.set()
        assert answered.wait(20)
        assert ask(f"{address}/v1/models/my_model")[0] == 200
    assert "Traceback" not in capfd.readouterr().err
    with rest_server.Server(("127.0.0.1", 0), None) as server:
        for error, said in ((ValueError("a mistake"), True), (BrokenPipeError(), False)):
            try:
                raise error
            except Exception:
                server.handle_error(None, ("127.0.0.1", 1))
            assert ("Traceback" in capfd.readouterr().err) == said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_ends_with_one_line_and_as_done(served, number, monkeypatch, capfd):
    """And TensorFlow's notices on devices are not seen, where a model is loaded; what is no notice is."""
    opened, open_server = queue.Queue(), rest_server.open_server

    def load(folder):
        os.write(2, b"I0000 00:00:1 5 gpu_device.cc:2020] Created device\nan error\n")
        return served

    def listen(*arguments):
        opened.put(server := open_server(*arguments))
        return server

    def end():
        ask(f"http://127.0.0.1:{opened.get(timeout=20).server_port}/v1/models/my_model")
        os.kill(os.getpid(), number)

    monkeypatch.setattr(rest_server, "Served", load)
    monkeypatch.setattr(rest_server, "open_server", listen)
    thread = threading.Thread(target=end)
    thread.start()
    assert main(["serve", "my model", "--port", "0"]) == 0
    thread.join()
    loading, error, advice, ended = capfd.readouterr().err.splitlines()
    assert (loading, error, ended) == ("loading my model", "an error", "swins serve: ended")
    assert advice.startswith("for trying out")


def test_a_folder_without_a_numbered_one(tmp_path, command, small_run, monkeypatch):
    """What is said is what to do in its case: of an artefact, one version of a model, a SavedModel, a run, nothing."""
    for folder in (tmp_path / "artefacts" / "mine", tmp_path / "artefacts" / "mine" / "1"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    mine = "artefacts/mine"

    def refused(folder, text):
        code, _, err = command("serve", folder)
        assert code == 1 and text in err and err.startswith(f"loading {folder}\n"), err

    refused(mine, f"holds no numbered SavedModel, such as 1/saved_model.pb; make one: swins export {mine} --serving")
    for name in ("1", "saved_model"):
        (tmp_path / mine / name).mkdir(exist_ok=True)
        (tmp_path / mine / name / "saved_model.pb").touch()
    refused(f"{mine}/1", f"{mine}/1: is one version of a model; give the folder that holds it: swins serve {mine}\n")
    refused(f"{mine}/saved_model", f"swins export {mine} --serving makes {mine}/1/, and swins serve {mine} serves it")
    refused(small_run, f"swins export {small_run} --serving; then: swins serve artefacts/{small_run.name}\n")
    refused("none", "none: no such folder; give one that holds saved_model.pb in a numbered folder")


@pytest.fixture
def placed(exported, tmp_path, monkeypatch, pixels):
    """A folder with the page's artefact, and its pictures."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(exported, tmp_path / "artefacts" / "my_swin")
    Image.fromarray(pixels[0][0]).resize((60, 50), Image.Resampling.BICUBIC).save("photo.jpg")
    Image.fromarray(pixels[0][1]).convert("RGB").save("other.png")
    return tmp_path


@pytest.mark.slow
def test_the_page_serves_its_folder(placed, capsys):
    """saved_model_cli on the layout, then the client's own text against `swins serve`'s server."""
    lines = "".join(blocks("sh")).splitlines()
    assert "swins export artefacts/my_swin --serving --to saved_model onnx" in lines  # as the fixtures made it
    assert "swins serve artefacts/my_swin --port 8501" in lines
    (show,) = (line.split() for line in lines if line.startswith("saved_model_cli"))
    done = subprocess.run(
        [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", *show[1:]], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "inputs['image_bytes']" in done.stdout and "outputs['names']" in done.stdout
    client, _ = blocks("python")
    expected = [str(result) for result in swins.load("artefacts/my_swin")(["photo.jpg", "other.png"])]
    capsys.readouterr()
    with running(rest_server.Served("artefacts/my_swin")) as address:
        exec(client.replace("http://localhost:8501", address), names := {})
        (wrong,) = (placed / "artefacts").glob("*/README.md")
        with pytest.raises(ValueError, match=r"400: .*image_bytes must be JPEG, PNG, WebP"):
            names["classify"](wrong)
        names["address"] = names["address"].replace("my_swin", "mine")
        with pytest.raises(
            ValueError, match=r"404: .*this server has my_swin, version 1: POST /v1/models/my_swin:predict"
        ):
            names["classify"]("photo.jpg")
    assert capsys.readouterr().out.splitlines() == expected


@pytest.mark.slow
def test_the_page_runs_onnx_behind_fastapi(placed, targeted):
    """The page's own server.py in a process, by uvicorn, and its curl's request."""
    shutil.copy(targeted / "model.onnx", placed / "artefacts" / "my_swin")
    if not importlib.util.find_spec("fastapi"):
        pytest.skip("fastapi is not installed")
    _, code = blocks("python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    (placed / "server.py").write_text(code)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "server:app", "--port", str(port)]
    environment, address = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}, f"http://127.0.0.1:{port}/classify"
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as server:
        try:
            said = None
            while said is None and server.poll() is None:
                time.sleep(0.2)
                with contextlib.suppress(urllib.error.URLError):
                    said = ask(address, (placed / "photo.jpg").read_bytes())
            assert said, server.stderr.read()
            refused = ask(address, b"no picture")
            second = subprocess.run(command, capture_output=True, text=True, env=environment)
        finally:
            server.terminate()
    assert second.returncode and "address already in use" in second.stderr
    result = swins.load("artefacts/my_swin")("photo.jpg")
    assert said[0] == 200 and tuple(said[1]) == result.names
    np.testing.assert_allclose(list(said[1].values()), result.probabilities, atol=1e-5)
    assert refused[0] == 400 and "not a readable image" in refused[1]["detail"]
