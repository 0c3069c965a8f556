"""Checkpoint files: read any, write safetensors."""

import contextlib
import hashlib
import json
import pathlib
import tempfile
from dataclasses import dataclass, field

import numpy as np

from swins import files
from swins.convert import dialects, oracle
from swins.errors import SwinsError

PICKLED = (".pth", ".pt", ".bin", ".pth.tar")
SAFE = ".safetensors"
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")  # in timm's order of preference
LIGHTNING = "model."  # the network's name in Lightning's modules and in C. Reich's classifier
PREFIXES = ("_orig_mod.", "module.", "_orig_mod.", LIGHTNING)

sha256 = files.sha256


@dataclass(frozen=True)
class Checkpoint:
    """A state dict in today's timm names, and where it came from.

    wrappers are the keys and prefixes taken off; dropped holds buffers and what belongs to no classifier, under timm's
    names; translated is True for files that timm's own loader does not take.
    """

    path: pathlib.Path
    state: dict
    dialect: str
    wrappers: tuple
    dropped: dict = field(default_factory=dict)
    translated: bool = False

    @property
    def num_classes(self):
        """Rows of the classifier; 0 without one."""
        heads = [self.state[k] for k in ("head.fc.weight", "head.fc.bias") if k in self.state]
        return next((head.shape[0] for head in heads if head.ndim), 0)

    @property
    def in_chans(self):
        """Image channels that the patch embedding expects."""
        kernel = self.state.get("patch_embed.proj.weight")
        return kernel.shape[1] if kernel is not None and kernel.ndim == 4 else None


def read_safetensors(path):
    """{name: array} of a safetensors file, without torch; half precisions become float32."""
    try:
        import safetensors
        from safetensors.numpy import load_file
    except ModuleNotFoundError as error:
        raise SwinsError("reading .safetensors needs safetensors: pip install 'swins[pretrained]'") from error
    try:
        state = load_file(path)
    except (safetensors.SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise SwinsError(f"{path}: not a readable safetensors file ({error}); download or save it again") from error
    half = ("float16", "bfloat16")
    return {name: value.astype("float32") if value.dtype.name in half else value for name, value in state.items()}


def read_pickled(path):
    """Nested dict of arrays in a .pth, .pt or .bin file, read by torch in the reference's process."""
    try:
        with oracle.ask("read", file=str(path)) as results:
            flat = read_safetensors(results / "tensors.safetensors")
    except SwinsError as error:
        raise SwinsError(f"{path}: {error}") from error
    nested = {}
    for key, value in flat.items():
        *parents, name = json.loads(key)
        folder = nested
        for parent in parents:
            folder = folder.setdefault(parent, {})
        folder[name] = value
    return nested


def unwrap(checkpoint):
    """The state dict inside a checkpoint and the keys it lay under: nested dict -> ({name: array}, [wrapper, ...])."""
    wrappers = []
    while key := next((k for k in WRAPPERS if isinstance(checkpoint.get(k), dict)), None):
        wrappers.append(key)
        checkpoint = checkpoint[key]
    state = {}
    for name, value in checkpoint.items():
        for prefix in PREFIXES:
            if name.startswith(prefix):
                name = name.removeprefix(prefix)
                wrappers += [prefix] if prefix not in wrappers else []
        dialects.put(state, name, value)
    return state, wrappers


def read(path):
    """Read a checkpoint of any known dialect -> Checkpoint.

    Raises:
        SwinsError: no such file, a format that is not known, a file that cannot be read, a pickle that wants to run
            code, or no Swin in it.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise SwinsError(f"{path}: no such checkpoint file")
    if path.name.endswith(SAFE):
        content = read_safetensors(path)
    elif path.name.endswith(PICKLED):
        content = read_pickled(path)
    else:
        known = ", ".join((*PICKLED, SAFE))
        raise SwinsError(f"{path}: a checkpoint ends in {known}; got {path.suffix or 'no suffix'!r}")
    try:
        state, wrappers = unwrap(content)
        state, dropped, dialect, prefix = dialects.to_timm(state)
    except SwinsError as error:
        raise SwinsError(f"{path}: {error}") from error
    wrappers += [prefix] if prefix else []
    translated = not dialect.timm_reads or LIGHTNING in wrappers
    return Checkpoint(path, state, dialect.name, tuple(wrappers), dropped, translated)


@contextlib.contextmanager
def as_timm_reads(checkpoint):
    """A Checkpoint's file; for one that timm's own loader does not take, a temporary file of its translation."""
    if not checkpoint.translated:
        yield checkpoint.path
        return
    with tempfile.TemporaryDirectory(prefix="swins-translated-") as folder:
        write(checkpoint.state, pathlib.Path(folder, f"translated{SAFE}"))
        yield pathlib.Path(folder, f"translated{SAFE}")


def write(state, path):
    """Write {name: array} as safetensors, as timm writes its own; the file appears whole or not at all."""
    try:
        from safetensors.numpy import save_file
    except ModuleNotFoundError as error:
        raise SwinsError("writing .safetensors needs safetensors: pip install 'swins[pretrained]'") from error
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows_first = {name: np.asarray(value, order="C") for name, value in state.items()}  # save_file ignores strides
    with files.replacing(path) as partial:
        save_file(rows_first, partial, {"format": "pt"})


def digest(state):
    """Hex digest of a state dict's names, shapes and values: equal weights have equal digests, whatever the file."""
    total = hashlib.sha256()
    for name in sorted(state):
        value = np.ascontiguousarray(state[name])
        total.update(f"{name} {value.shape} {value.dtype}\n".encode())
        total.update(value.data)
    return total.hexdigest()
