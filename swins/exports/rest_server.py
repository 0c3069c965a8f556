"""A numbered SavedModel over HTTP, with TF Serving's own paths and JSON: to try an export out on one's own machine.

Format: https://www.tensorflow.org/tfx/serving/api_rest, its status, and `predict` by rows ("instances") and by columns
("inputs"); {"b64": text} stands for bytes. What it has not: several models, batching, gRPC, new versions while it runs.
"""

import base64
import binascii
import errno
import http.server
import json
import pathlib
import re
import sys

import numpy as np

from swins.errors import SwinsError
from swins.exports import adopt
from swins.exports.saved_models import ROOT
from swins.run_result import training_of

MOST = 2**26  # bytes of a request
LONGEST = 300  # characters of an error: it never gives a picture back
DEFAULT = "serving_default"


def versions(folder) -> dict:
    """{number: folder} of the SavedModels that a folder holds in numbered ones, as TF Serving finds them."""
    folder = pathlib.Path(folder)
    numbers = (path for path in folder.iterdir() if path.name.isdecimal()) if folder.is_dir() else ()
    return {int(path.name): path for path in sorted(numbers) if (path / ROOT).is_file()}


def model_name(folder) -> str:
    """What a folder's model is called in addresses."""
    return re.sub(r"[^\w.-]+", "_", pathlib.Path(folder).resolve().name)


def with_bytes(value):
    """JSON with bytes in place of {"b64": text}. Raises ValueError for a text that is no base64."""
    if isinstance(value, dict) and set(value) == {"b64"}:
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (binascii.Error, TypeError) as error:
            raise ValueError(f"b64 must be base64: {error}") from error
    if isinstance(value, dict):
        return {key: with_bytes(part) for key, part in value.items()}
    return [with_bytes(part) for part in value] if isinstance(value, list) else value


def as_json(name, array):
    """An output as JSON: text as text, bytes of an output that is called so as {"b64": text}."""
    if array.dtype != object:
        return array.tolist()
    if name.endswith("_bytes"):
        return np.vectorize(lambda b: {"b64": base64.b64encode(b).decode()}, otypes=[object])(array).tolist()
    return np.vectorize(lambda b: b.decode("utf-8", "replace"), otypes=[object])(array).tolist()


def reason(error) -> str:
    """What an error says in a short line; of one that TensorFlow's graphs raise, what lies behind where it was raised.

    What a message quotes as bytes, as TensorFlow's do, is left out, with what follows.
    """
    text = str(getattr(error, "message", None) or error)
    if found := re.search(r"assertion failed: \[(.*?)\]", text, re.DOTALL):
        return shortened(found[1])
    around = ("Graph execution error", "Detected at node", "<stack traces", "File ", "[[", "def ")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = next((line for line in lines if not line.startswith(around)), type(error).__name__)
    return shortened(re.sub(r"""\[*\bb['"].*""", "(bytes)", line))


def shortened(text: str) -> str:
    """A text of at most LONGEST characters."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def has_text(value) -> bool:
    """Whether text or bytes are anywhere in the JSON that `with_bytes` gave; names do not count."""
    if isinstance(value, dict | list):
        return any(map(has_text, value.values() if isinstance(value, dict) else value))
    return isinstance(value, bytes | str)


def without_numbered(folder) -> SwinsError:
    """The SwinsError for a folder that holds no numbered SavedModel, with what to do in its case."""
    folder = pathlib.Path(folder)
    if (folder / ROOT).is_file():
        above = folder.absolute().parent if len(folder.parts) < 2 else folder.parent
        if folder.name.isdecimal():
            return SwinsError(
                f"{folder}: is one version of a model; give the folder that holds it: swins serve {above}"
            )
        return SwinsError(
            f"{folder}: is a SavedModel, no folder of numbered ones; swins export {above} --serving makes {above}/1/, "
            f"and swins serve {above} serves it"
        )
    if not folder.is_dir() and folder.suffix != ".keras":
        return SwinsError(f"{folder}: no such folder; give one that holds {ROOT} in a numbered folder, as 1/{ROOT}")
    there = folder
    if training_of(folder) or folder.suffix == ".keras":
        there = adopt.places(folder)[1]
    return SwinsError(
        f"{folder}: holds no numbered SavedModel, such as 1/{ROOT}; make one: swins export {folder} --serving; then: "
        f"swins serve {there}"
    )


class Served:
    """The newest SavedModel of a folder, loaded: `predict` takes and gives a request's and an answer's JSON."""

    def __init__(self, folder):
        import tensorflow as tf

        found = versions(folder)
        if not found:
            raise without_numbered(folder)
        self.version, self.name = max(found), model_name(folder)
        self.root = tf.saved_model.load(str(found[self.version]))

    def predict(self, request: dict) -> dict:
        """{"instances": rows} -> {"predictions": rows}; {"inputs": columns} -> {"outputs": columns}.

        Raises:
            ValueError: for a request that is no such; TensorFlow's errors for what the model refuses.
        """
        import tensorflow as tf

        if not isinstance(request, dict) or len({"instances", "inputs"} & set(request)) != 1:
            raise ValueError('a request must have "instances" or "inputs", one of them')
        wanted = request.get("signature_name", DEFAULT)
        if wanted not in self.root.signatures:
            raise ValueError(f"no signature {str(wanted)[:40]!r}; there are {', '.join(self.root.signatures)}")
        signature = self.root.signatures[wanted]
        specs, rows = signature.structured_input_signature[1], request.get("instances")
        columns = with_bytes(request["inputs"] if rows is None else rows)
        if rows is not None:
            if not (isinstance(rows, list) and rows):
                raise ValueError('"instances" must be a list of at least one')
            named = all(isinstance(row, dict) for row in columns)
            if named and any(set(row) != set(columns[0]) for row in columns):
                raise ValueError(f'"instances" must all name the same inputs: {", ".join(specs)}')
            columns = {name: [row[name] for row in columns] for name in columns[0]} if named else columns
        if not isinstance(columns, dict):  # one input may be given without its name
            columns = dict.fromkeys(specs, columns) if len(specs) == 1 else {}
        if set(columns) != set(specs):
            given = ", ".join(columns) or "none by name"
            raise ValueError(f"{wanted} takes {', '.join(specs)}; got {given}{self.hint(wanted, columns)}")
        tensors = {}
        for name, values in columns.items():
            if has_text(values) and specs[name].dtype != tf.string:
                kind = f"{name} of {wanted} must be numbers ({specs[name].dtype.name}); got bytes or text"
                raise ValueError(kind + self.hint(wanted, columns))
            tensors[name] = tf.constant(values, specs[name].dtype)
            if not specs[name].shape.is_compatible_with(tensors[name].shape):
                raise ValueError(f"{name} must have the shape {specs[name].shape}; got {tensors[name].shape}")
        outputs = signature(**tensors)
        outputs = {name: as_json(name, value.numpy()) for name, value in outputs.items()}
        if rows is None:
            return {"outputs": outputs if len(outputs) > 1 else next(iter(outputs.values()))}
        rows = [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)]
        return {"predictions": rows if len(outputs) > 1 else [row.popitem()[1] for row in rows]}

    def hint(self, wanted, columns) -> str:
        """What to add to a request whose inputs are those of another signature; "" where none takes them."""
        import tensorflow as tf

        specs = {name: one.structured_input_signature[1] for name, one in self.root.signatures.items()}
        if has_text(columns):
            takers = [name for name, own in specs.items() if all(spec.dtype == tf.string for spec in own.values())]
        else:
            takers = [name for name, own in specs.items() if set(own) == set(columns)]
        takers.sort(key=lambda name: set(specs[name]) != set(columns))
        return f'; add "signature_name": "{takers[0]}"' if takers and wanted not in takers else ""


def handler(served: Served):
    """The class that answers requests of a Served."""
    place = re.compile(rf"/v1/models/{re.escape(served.name)}(?:/versions/{served.version})?(:predict)?")

    def nothing_here(path, right):
        return f"nothing is at {shortened(path)}; this server has {served.name}, version {served.version}: {right}"

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self, code, content):
            body = json.dumps(content, ensure_ascii=False).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def refuse(self, code, text):
            self.answer(code, {"error": text})

        def do_GET(self):
            found = place.fullmatch(self.path)
            if not found or found[1]:
                return self.refuse(404, nothing_here(self.path, f"GET /v1/models/{served.name}"))
            state = {"version": str(served.version), "state": "AVAILABLE", "status": {"error_code": "OK"}}
            return self.answer(200, {"model_version_status": [state]})

        def do_POST(self):
            length = self.headers.get("Content-Length", "")
            if not length.isdecimal() or int(length) > MOST:
                self.close_connection = True
                return self.refuse(413, f"a request must say its length, at most {MOST} bytes; got {length or 'none'}")
            body, found = self.rfile.read(int(length)), place.fullmatch(self.path)
            if not found or not found[1]:
                return self.refuse(404, nothing_here(self.path, f"POST /v1/models/{served.name}:predict"))
            try:
                request = json.loads(body)
            except ValueError as error:
                return self.refuse(400, f'a request must be JSON, files in it {{"b64": base64}}; {reason(error)}')
            try:
                answer = served.predict(request)
            except Exception as error:  # TensorFlow raises whatever a file leads it to
                return self.refuse(400, reason(error))
            return self.answer(200, answer)

        def log_message(self, form, *arguments):
            pass

    return Handler


class Server(http.server.ThreadingHTTPServer):
    """A server that says nothing of clients who went away before their answer: it goes on."""

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def open_server(served: Served, host: str = "127.0.0.1", port: int = 8501) -> Server:
    """A server that listens, not yet answers: `serve_forever` does. Port 0 takes any that is free.

    Raises:
        SwinsError: for a port that is in use, or may not be taken.
    """
    try:
        return Server((host, port), handler(served))
    except (OSError, OverflowError) as error:
        why = "is in use" if getattr(error, "errno", None) == errno.EADDRINUSE else f"cannot be taken ({error})"
        raise SwinsError(
            f"port {port} of {host} {why}; end what listens there, or choose another with --port"
        ) from error
