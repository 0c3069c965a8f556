"""The PyTorch side's reading of checkpoint files, of which nothing is ever executed.

Imports nothing of swins or Keras.
"""

import collections
import os
import re


class Refusal(Exception):
    """Bad input, reported to the caller as text."""


class Record:
    """What stands for a setting or number that a checkpoint holds beside its tensors: nothing of it is kept or run."""

    def __init__(self, *_, **__):
        pass

    def __setstate__(self, _):
        pass


class Settings:
    """What stands for a dict-like setting: a plain ordered dict, which torch's reader fills."""

    def __new__(cls, *_, **__):
        return collections.OrderedDict()


RECORDS = ("numpy", "pathlib", "datetime", "mmengine")  # packages whose objects are replaced by a Record
SETTINGS = (
    "yacs",
    "omegaconf",
    "easydict",
    "addict",
    "mmcv",
    "ml_collections",
    "lightning",
    "pytorch_lightning",
    "lightning_fabric",
)
VALUES = ("dtype", "ndarray", "scalar", "_reconstruct", "_frombuffer", "datetime", "date", "timedelta")  # small letters
STAND_INS = {  # names that every file may ask for; torch finds out those of packages itself, but not in old files
    **dict.fromkeys(("argparse.Namespace", "types.SimpleNamespace", "collections.defaultdict"), Settings),
    **dict.fromkeys(("yacs.config.CfgNode", "mmengine.config.config.ConfigDict"), Settings),
    **dict.fromkeys((f"builtins.{name}" for name in ("dict", "list", "int", "float", "str")), Record),
    **dict.fromkeys(("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype"), Record),
}
NOT_KEPT = re.compile(r"optimi[sz]er|(?:lr_)?schedulers?$|scaler$|grad_scaler$|callbacks$|loops$")


def names_asked_for(path):
    """Names of what a checkpoint's pickle asks for besides torch's own; none of a file from before PyTorch 1.6."""
    import torch

    try:
        return torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # whatever the bytes lead it to: torch.load says what is wrong
        return []


def stand_ins(names):
    """Pairs of a stand-in and the name it answers to, for torch's reader: no class or function of the name is used."""
    found = dict(STAND_INS)
    for name in names:
        package, _, rest = name.partition(".")
        last = rest.rpartition(".")[2]
        if name not in found and package in RECORDS + SETTINGS and (last[:1].isupper() or last in VALUES):
            found[name] = Record if package in RECORDS else Settings
    return [(stand_in, name) for name, stand_in in found.items()]


def remedy(path, names):
    """The line that turns a checkpoint of more than tensors into one that is read, where it is trusted."""
    file = repr(os.path.basename(path))
    whole = any(name.startswith("torch.nn.modules") for name in names)
    taken = ".state_dict()" if whole else '["model"]'
    return (
        f"if you trust it, run where it was made: torch.save(torch.load({file}, weights_only=False){taken}, "
        f'"weights.pth"){"" if whole else ", with the key of its weights"}'
    )


def load_file(path):
    """A checkpoint file as nested dicts of tensors; pickled code is refused, never run."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file as load_safetensors

    names = []
    try:
        if path.lower().endswith(".safetensors"):
            return load_safetensors(path)
        names = names_asked_for(path)
        with torch.serialization.safe_globals(stand_ins(names)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise Refusal(f"not a readable safetensors file ({error}); download or save it again") from error
    except Exception as error:  # torch.load raises whatever the bytes lead it to
        reason = str(error)
        if "TorchScript" in reason:
            raise Refusal(
                "a checkpoint may hold tensors only, and this is a TorchScript program; nothing of it was executed; if "
                f'you trust it: torch.save(torch.jit.load({os.path.basename(path)!r}).state_dict(), "weights.pth")'
            ) from error
        asked = next((line.strip()[:300] for line in reason.splitlines() if "GLOBAL" in line), None)
        if asked:
            asked = asked.partition(" was not an allowed")[0]
            raise Refusal(
                f"a checkpoint may hold tensors only, and this pickle asks for more ({asked}); nothing of it was "
                f"executed; {remedy(path, names)}"
            ) from error
        lines = [line.strip() for line in reason.splitlines() if line.strip()]
        cause = next(
            (line for line in lines if line.startswith("WeightsUnpickler")), (*lines, type(error).__name__)[0]
        )[:300]
        raise Refusal(
            f"not a readable PyTorch checkpoint: truncated or corrupt ({cause}); download or save it again"
        ) from error


def arrays_only(value):
    """Nested dicts with their tensors as float32 or integer CPU tensors; optimisers and everything else left out."""
    import torch

    if isinstance(value, dict):
        kept = {
            str(k): arrays_only(v) for k, v in value.items() if not (isinstance(v, dict) and NOT_KEPT.match(str(k)))
        }
        return {k: v for k, v in kept.items() if v is not None}
    if isinstance(value, torch.Tensor):
        if value.layout is not torch.strided or value.is_quantized or value.is_meta:
            raise Refusal(
                f"a checkpoint must hold plain tensors; one of shape {tuple(value.shape)} is sparse, quantised or meta"
            )
        value = value.detach()
        return (value.float() if value.is_floating_point() else value).contiguous().clone()
    return None


def flatten(value, prefix=()):
    """Nested dicts -> [(path of keys, tensor)]."""
    if isinstance(value, dict):
        return [leaf for k, v in value.items() for leaf in flatten(v, (*prefix, k))]
    return [(prefix, value)]


def class_names(content):
    """The classes that a file of mmdet or mmseg names under `meta`, as a list of text; empty where it names none."""
    meta = content.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    inner = meta.get("dataset_meta")
    named = {**meta, **(inner if isinstance(inner, dict) else {})}
    names = next((named[key] for key in ("CLASSES", "classes") if named.get(key)), ())
    whole = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    return list(names) if whole else []
