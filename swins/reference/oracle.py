"""Ask the PyTorch reference: keeps `server.py` in a process of its own and hands over arrays through files."""

import contextlib
import pathlib
import tempfile
from dataclasses import asdict, replace

import numpy as np

from swins.errors import SwinsError, ending, missing_package
from swins.model_configs import VARIANTS
from swins.plans import VariantV2, VariantV2CR, with_overrides
from swins.processes.kept_process import KeptProcess
from swins.resnet_plan import VariantResNet

OUTPUT = "logits"  # what a program's last output is called in what `forward` gives
FREE = ("drop_rate", "drop_path_rate")  # fields of a Variant that change no answer
THE_REFERENCE = KeptProcess(pathlib.Path(__file__).with_name("server.py"), HF_HUB_OFFLINE="1")


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
            crash, code = answer["crash"], answer["code"]
            why = crash if code > 0 else f"{ending(code, crash)}; perhaps for want of memory"
            raise SwinsError(f"the PyTorch reference failed: {why}")
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
        images: normalised, of the size that the program's model is built for, in the precision to compute in.
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
