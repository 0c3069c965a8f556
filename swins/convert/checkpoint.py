"""Checkpoint files: read any, write safetensors."""

import hashlib
import json
import os
import pathlib
import tempfile
from dataclasses import dataclass, field

import numpy as np

from swins.convert import dialects, facts, oracle
from swins.convert.facts import NOTHING, Facts
from swins.errors import SwinsError

PICKLED = (".pth", ".pt", ".bin", ".pth.tar")
SAFE = ".safetensors"
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")  # in timm's order of preference
LIGHTNING = "model."  # the network's name in Lightning's modules and in C. Reich's classifier
PREFIXES = ("_orig_mod.", "module.", "_orig_mod.", LIGHTNING)


@dataclass(frozen=True)
class Checkpoint:
    """A state dict in today's timm names, and where it came from.

    wrappers are the keys and prefixes taken off; dropped holds buffers and what belongs to no classifier, under timm's
    names; translated is True for files that timm's own loader does not take; facts are what the file, or one beside it,
    says of the model besides its tensors; program is what runs such files here, None if nothing does; original holds
    the tensors under its names.
    """

    path: pathlib.Path
    state: dict
    dialect: str
    wrappers: tuple
    dropped: dict = field(default_factory=dict)
    translated: bool = False
    facts: Facts = NOTHING
    program: str | None = None
    original: dict = field(default_factory=dict)

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


def sha256(path):
    """Hex digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
        translation = dialects.to_timm(state)
        stated = read_facts(path)
    except SwinsError as error:
        raise SwinsError(f"{path}: {error}") from error
    dialect, prefix = translation.dialect, translation.prefix
    wrappers += [prefix] if prefix else []
    return Checkpoint(
        path=path,
        state=translation.state,
        dialect=dialect.name,
        wrappers=tuple(wrappers),
        dropped=translation.dropped,
        translated=dialect.program != "timm" or LIGHTNING in wrappers,
        facts=facts.join(facts.of_program(translation), stated),
        program=dialect.program,
        original=translation.original,
    )


def read_facts(path):
    """What a safetensors file written by swins says in its header -> Facts; of other files, NOTHING."""
    if not path.name.endswith(SAFE):
        return NOTHING
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        return facts.from_text((file.metadata() or {}).get(facts.KEY), path)


def write(state, path, metadata=None):
    """Write {name: array} as safetensors, as timm writes its own; the file appears whole or not at all.

    Args:
        state: the arrays by name.
        path: of the file.
        metadata: {name: text} for the file's header, besides its format.
    """
    try:
        from safetensors.numpy import save_file
    except ModuleNotFoundError as error:
        raise SwinsError("writing .safetensors needs safetensors: pip install 'swins[pretrained]'") from error
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    os.close(handle)
    try:
        rows_first = {name: np.asarray(value, order="C") for name, value in state.items()}  # save_file ignores strides
        save_file(rows_first, partial, {"format": "pt", **(metadata or {})})
        os.chmod(partial, 0o666 & ~umask())
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise


def umask():
    """The process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def digest(state):
    """Hex digest of a state dict's names, shapes and values: equal weights have equal digests, whatever the file."""
    total = hashlib.sha256()
    for name in sorted(state):
        value = np.ascontiguousarray(state[name])
        total.update(f"{name} {value.shape} {value.dtype}\n".encode())
        total.update(value.data)
    return total.hexdigest()
