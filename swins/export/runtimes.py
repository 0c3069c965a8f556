"""Run an ONNX, LiteRT or OpenVINO file with its own runtime. Imports nothing of swins, Keras or TensorFlow.

Run as a script: python -P runtimes.py FILE BATCHES.npz OUT.npz
Each array of BATCHES, images (B, H, W, C) float32, becomes one of OUT under the same name: logits or features. Arrays
of more than CHUNK images go in parts.
"""

import pathlib
import sys

import numpy as np

CHUNK = 100


def onnx(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})[0]


def litert(path):
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(path, num_threads=2).get_signature_runner("serving_default")
    return lambda images: next(iter(runner(images=images).values()))


def openvino(path):
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: compiled(images)[0]


RUNTIMES = {".onnx": onnx, ".tflite": litert, ".xml": openvino}

if __name__ == "__main__":
    file, batches, out = sys.argv[1:]
    run = RUNTIMES[pathlib.Path(file).suffix](file)
    outputs = {}
    with np.load(batches) as arrays:
        for name in arrays.files:
            images = arrays[name]
            parts = [run(images[i : i + CHUNK]) for i in range(0, len(images), CHUNK)]
            outputs[name] = np.concatenate(parts)
    np.savez(out, **outputs)
