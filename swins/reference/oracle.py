"""Ask the PyTorch reference: keeps `server.py` in a process of its own and hands over arrays through files."""

import atexit
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict, replace

import numpy as np

from swins.errors import SwinsError, missing_package
from swins.model_configs import VARIANTS
from swins.plans import VariantV2, VariantV2CR, with_overrides
from swins.resnet_plan import VariantResNet

FORKS = hasattr(os, "fork")
OUTPUT = "logits"  # what a program's last output is called in what `forward` gives
FREE = ("drop_rate", "drop_path_rate")  # fields of a Variant that change no answer
IDLE = 60  # seconds without a question, after which the process leaves
SERVER = pathlib.Path(__file__).with_name("server.py")


class Reference:
    """A process of `server.py`, started when it is asked; it leaves when it is idle or we are gone."""

    def __init__(self):
        self.process, self.owner, self.lock = None, None, threading.Lock()
        atexit.register(self.stop)

    def start(self):
        self.owner = os.getpid()
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(SERVER), str(IDLE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            start_new_session=True,  # so that its children can be stopped with it
        )

    def stop(self):
        """End the process and its children, whatever they are at; a fork of ours leaves it to us."""
        if self.process is not None and self.owner == os.getpid():
            with contextlib.suppress(ProcessLookupError, PermissionError):  # it is gone, as macOS says it
                os.killpg(self.process.pid, signal.SIGKILL) if FORKS else self.process.kill()
            self.process.communicate()
        self.process = None

    def ask(self, request):
        """A request -> its answer, a dict."""
        with self.lock:
            try:
                for _ in range(2):  # the second to a new process, if the first left in the meantime
                    if self.process is None or self.owner != os.getpid():
                        self.start()
                    with contextlib.suppress(BrokenPipeError, json.JSONDecodeError):
                        self.process.stdin.write(json.dumps({**request, "cwd": os.getcwd()}) + "\n")
                        self.process.stdin.flush()
                        if line := self.process.stdout.readline():
                            return json.loads(line)
                    self.stop()
            except BaseException:  # interrupted: this answer must not be taken for the next one
                self.stop()
                raise
        return {"crash": "it ended without an answer"}


THE_REFERENCE = Reference()


@contextlib.contextmanager
def ask(command, **request):
    """Run one command of the reference -> a temporary folder with its results, removed afterwards.

    Raises:
        SwinsError: what the reference refused, or which extra is missing.
    """
    with tempfile.TemporaryDirectory(prefix="swins-reference-") as folder:
        answer = THE_REFERENCE.ask({**request, "command": command, "out": folder})
        if "missing" in answer:
            raise missing_package("the PyTorch reference", answer["missing"], "convert")
        if "error" in answer:
            raise SwinsError(answer["error"])
        if "crash" in answer:
            raise SwinsError(f"the PyTorch reference failed: {answer['crash']}")
        yield pathlib.Path(folder)


def numbers(variant):
    """A Variant in the words of timm's constructor."""
    more = {"pretrained_window_sizes": variant.pretrained} if isinstance(variant, VariantV2) else {}
    if isinstance(variant, VariantV2CR):
        more = {"extra_norm_period": variant.extra_norm_period, "extra_norm_stage": variant.extra_norm == "stages"}
        more |= {"meta_dim": variant.meta_dim, "last_norm": variant.extra_norm != "none"}  # C. Reich's differ in these
    return {
        **more,
        "img_size": variant.image_size,
        "made_for": variant.made_for,
        "patch_size": variant.patch_size,
        "in_chans": variant.in_chans,
        "num_classes": variant.num_classes,
        "embed_dim": variant.embed_dim,
        "depths": variant.depths,
        "num_heads": variant.num_heads,
        "window_size": variant.windows,
        "mlp_ratio": variant.mlp_ratio,
    }


def forward(subject, architecture, variant, images, modules=(), batch=16):
    """Outputs of a reference program's model for images (B, H, W, C) -> {"logits": ..., module: ...}, in its layouts.

    Also "parameters", their number, and the versions of the program and of "torch".

    Args:
        subject: a programs.Subject; or a file in any layout that timm's own loader takes.
        architecture: timm's name; for another, timm's class is built from the variant's numbers.
        variant: the Variant or VariantResNet, for the numbers of the program's model.
        images: float32, normalised, of the size that the program's model is built for.
        modules: names of the program's modules whose outputs are wanted.
        batch: images at a time.
    """
    program = getattr(subject, "program", "timm")
    sized = with_overrides(variant, {"image_size": images.shape[1:3]})
    with tempfile.TemporaryDirectory(prefix="swins-images-") as folder:
        path = pathlib.Path(folder, "images.npy")
        np.save(path, images)
        request = {
            "program": program,
            "kind": getattr(subject, "kind", "classifier"),
            "size_rule": getattr(subject, "size_rule", "timm"),
            "file": str(getattr(subject, "file", subject)),
            "architecture": architecture,
            **described(architecture, variant, sized),
            "images": str(path),
            "modules": list(modules),
            "batch": batch,
        }
        with ask("forward", **request) as results, np.load(results / "outputs.npz") as outputs:
            return dict(outputs)


def detect(file, images, sizes, regions) -> dict:
    """Every step of a detector in plain PyTorch, of a file of mmdet's or Swin-Transformer-Object-Detection's names.

    Args:
        file: loaded strictly.
        images: (B, H, W, C) float32, normalised and padded.
        sizes: [(height, width)] of each without its padding.
        regions: on how many proposals heads are run.

    Returns:
        {"I/NAME": array} of image I as `detector_models.steps` names them, "parameters", and versions.
    """
    with tempfile.TemporaryDirectory(prefix="swins-images-") as folder:
        path = pathlib.Path(folder, "images.npy")
        np.save(path, images)
        request = {"file": str(file), "images": str(path), "sizes": [list(map(int, s)) for s in sizes]}
        with ask("detect", **request, regions=regions) as results, np.load(results / "outputs.npz") as outputs:
            return dict(outputs)


def segment(program, file, images, modules, bins) -> dict:
    """What a UPerNet in PyTorch computes of a file -> {"output" or module: array}, "parameters", and versions.

    Args:
        program: "transformers", or "torch" for plain PyTorch under Open-MMLab's names.
        file: loaded strictly.
        images: (B, H, W, C) float32, normalised.
        modules: names of its modules whose outputs are wanted.
        bins: parts along each axis in which its coarsest map is averaged.
    """
    with tempfile.TemporaryDirectory(prefix="swins-images-") as folder:
        path = pathlib.Path(folder, "images.npy")
        np.save(path, images)
        request = {"program": program, "file": str(file), "images": str(path), "modules": list(modules)}
        with ask("segment", **request, bins=list(bins)) as results, np.load(results / "outputs.npz") as outputs:
            return dict(outputs)


def described(architecture, variant, sized):
    """What a request says of its model: a variant's numbers, and as `sized` for the images."""
    if isinstance(variant, VariantResNet):
        return {"numbers": asdict(sized)}
    return {
        "registered": is_registered(architecture, sized),
        "numbers": {**numbers(sized), "made_for": variant.made_for},
        "final_norm": variant.final_norm,
    }


def is_registered(architecture, variant):
    """Whether a Variant has the numbers of its name, but for size, channels and classes: then timm builds the name."""
    if architecture not in VARIANTS:
        return False
    free = {name: getattr(variant, name) for name in ("image_size", "in_chans", "num_classes", *FREE)}
    return replace(VARIANTS[architecture], **free) == variant
