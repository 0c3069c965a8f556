"""Ask the PyTorch reference: starts `reference.py` in its own process and hands over arrays through files."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

from swins.errors import SwinsError
from swins.plans import VariantV2, VariantV2CR, with_overrides

REFERENCE = pathlib.Path(__file__).with_name("reference.py")


@contextlib.contextmanager
def ask(command, **request):
    """Run one command of the reference -> a temporary folder with its results, removed afterwards.

    Raises:
        SwinsError: what the reference refused, or which extra is missing.
    """
    with tempfile.TemporaryDirectory(prefix="swins-reference-") as folder:
        question = pathlib.Path(folder, "request.json")
        question.write_text(json.dumps({**request, "out": folder}))
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            [sys.executable, "-P", str(REFERENCE), command, str(question)],
            capture_output=True,
            text=True,
            env=environment,
        )
        if done.returncode == 3:
            answer = json.loads(done.stdout.splitlines()[-1])
            if "missing" in answer:
                raise SwinsError(f"the PyTorch reference needs {answer['missing']}: pip install 'swins[convert]'")
            raise SwinsError(answer["error"])
        if done.returncode:
            raise SwinsError(f"the PyTorch reference failed (exit {done.returncode}): {done.stderr.strip()[-2000:]}")
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
        "patch_size": variant.patch_size,
        "in_chans": variant.in_chans,
        "num_classes": variant.num_classes,
        "embed_dim": variant.embed_dim,
        "depths": variant.depths,
        "num_heads": variant.num_heads,
        "window_size": variant.windows,
        "mlp_ratio": variant.mlp_ratio,
    }


def forward(checkpoint, architecture, variant, images, modules=(), batch=16):
    """Outputs of timm's model for images (B, H, W, C) -> {"logits": ..., module: ...}, in timm's layouts.

    Also "parameters", their number, and the versions "timm" and "torch".

    Args:
        checkpoint: the file, in any layout that timm's own loader takes.
        architecture: timm's name; for another, timm's class is built from the variant's numbers.
        variant: the Variant, for channels and classes.
        images: float32, normalised, of the size that timm's model is built for.
        modules: names of timm modules whose outputs are wanted.
        batch: images at a time.
    """
    with tempfile.TemporaryDirectory(prefix="swins-images-") as folder:
        path = pathlib.Path(folder, "images.npy")
        np.save(path, images)
        request = {
            "file": str(checkpoint),
            "architecture": architecture,
            "numbers": numbers(with_overrides(variant, {"image_size": images.shape[1:3]})),
            "images": str(path),
            "modules": list(modules),
            "batch": batch,
        }
        with ask("forward", **request) as results, np.load(results / "outputs.npz") as outputs:
            return dict(outputs)
