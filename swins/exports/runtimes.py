"""Run an ONNX, LiteRT or OpenVINO file with its own runtime. Imports nothing of swins, Keras or TensorFlow.

Run as a script: python -P runtimes.py FILE BATCHES.npz OUT.npz
Of each array of BATCHES, images (B, H, W, C) float32, OUT gets what the file gives, under BATCH/OUTPUT. Arrays of more
than CHUNK images go in parts.
"""

import pathlib
import sys

import numpy as np

CHUNK = 100


def onnx(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(names, {"images": images}), strict=True))


def litert(path):
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(path, num_threads=2).get_signature_runner("serving_default")
    return lambda images: runner(images=images)


def openvino(path):
    sys.modules.setdefault("openvino_telemetry", None)  # as if it were not installed: it would send a line to Google
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: {output.get_any_name(): values for output, values in compiled(images).items()}


RUNTIMES = {".onnx": onnx, ".tflite": litert, ".xml": openvino}

if __name__ == "__main__":
    file, batches, out = sys.argv[1:]
    run = RUNTIMES[pathlib.Path(file).suffix](file)
    outputs = {}
    with np.load(batches) as arrays:
        for name in arrays.files:
            images = arrays[name]
            parts = [run(images[i : i + CHUNK]) for i in range(0, len(images), CHUNK)]
            outputs |= {f"{name}/{output}": np.concatenate([part[output] for part in parts]) for output in parts[0]}
    np.savez(out, **outputs)
