"""Imports packages one by one and says what came of each; a program of its own, for one import may abort another.

python -P import_probe.py [--core FOLDER] MODULE ...

Each answer is a line of JSON on standard output, written before the next import begins. With --core, swins, which lies
in FOLDER, is imported first, and a small Swin computes: this says whether swins works. Nothing of swins is needed else.
"""

import argparse
import importlib
import json
import os
import sys
import time

SMALL = {"image_size": 8, "patch_size": 2, "in_chans": 1, "window_size": 2, "embed_dim": 8}  # of a Swin of one block
SMALL |= {"depths": (1,), "num_heads": (1,), "num_classes": 2}


def probe(name: str) -> dict:
    """Import a module -> {"module", "version", "seconds", "error", "missing"}; error is None where it works."""
    sys.modules.setdefault("openvino_telemetry", None)  # or importing OpenVINO would send a line to Google
    start, version, error, missing = time.perf_counter(), None, None, False
    try:
        version = getattr(importlib.import_module(name), "__version__", None)
    except Exception as raised:  # a package may raise anything as it is imported
        missing = isinstance(raised, ModuleNotFoundError) and raised.name == name
        error = said(raised)
    seconds = round(time.perf_counter() - start, 2)
    return {"module": name, "version": version and str(version), "seconds": seconds, "error": error, "missing": missing}


def said(error) -> str:
    """An error as one line of at most 300 characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def tensorflow_devices(module) -> list[str]:
    """What TensorFlow can compute on."""
    details = module.config.experimental.get_device_details
    devices = module.config.list_physical_devices()
    return [details(d).get("device_name", d.device_type) if d.device_type == "GPU" else d.device_type for d in devices]


def jax_devices(module) -> list[str]:
    """What JAX can compute on."""
    return [device.device_kind if device.platform != "cpu" else "CPU" for device in module.local_devices()]


def torch_devices(module) -> list[str]:
    """What PyTorch can compute on."""
    cards = [module.cuda.get_device_name(i) for i in range(module.cuda.device_count())]
    apple = ["MPS"] if module.backends.mps.is_available() else []
    return ["CPU", *cards, *apple]


DEVICES = {"tensorflow": tensorflow_devices, "jax": jax_devices, "torch": torch_devices}


def with_devices(answer: dict) -> dict:
    """The answer on a backend with its "devices"; the same of others, and of those that do not work."""
    if answer["module"] not in DEVICES or answer["error"]:
        return answer
    try:
        return {**answer, "devices": DEVICES[answer["module"]](sys.modules[answer["module"]])}
    except Exception as raised:  # a driver that does not fit, for one
        return {**answer, "error": f"its devices cannot be asked for: {said(raised)}"}


def core() -> dict:
    """Whether swins works -> {"module": "swins", "keras", "backend", "seconds", "error"}."""
    start, facts, error = time.perf_counter(), {}, None
    try:
        import swins

        keras, numpy = (importlib.import_module(name) for name in ("keras", "numpy"))
        facts = {"keras": keras.__version__, "backend": keras.backend.backend()}
        logits = swins.SwinTransformer(**SMALL).predict(numpy.zeros((1, 8, 8, 1), "float32"), verbose=0)
        if logits.shape != (1, 2) or not numpy.isfinite(logits).all():
            raise ValueError(f"a small Swin should give 2 finite numbers; got {logits.tolist()}")
    except Exception as raised:  # whatever keeps swins from working is the answer
        error = said(raised)
    return {"module": "swins", **facts, "seconds": round(time.perf_counter() - start, 2), "error": error}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--core", metavar="FOLDER")
    parser.add_argument("modules", nargs="*")
    args = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what packages print is no answer
    if args.core:
        sys.path.insert(0, args.core)
    tasks = [("swins", core)] if args.core else []
    tasks += [(name, lambda name=name: with_devices(probe(name))) for name in args.modules]
    for name, ask in tasks:
        print(json.dumps({"begins": name}), file=answers, flush=True)
        print(json.dumps(ask()), file=answers, flush=True)
    answers.flush()
    os._exit(0)  # backends of several packages may abort as they are unloaded


if __name__ == "__main__":
    main()
