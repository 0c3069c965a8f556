"""Weights of the Hugging Face Hub, through its cache: timm's published ones by name, others by OWNER/NAME.

Neither torch nor timm is needed.
"""

import contextlib
import logging
import os
import pathlib
import re
import socket
import urllib.parse
import urllib.request

from swins.errors import SwinsError, first_line, missing_package
from swins.tags import look_up

FILE = "model.safetensors"
ADDRESS = re.compile(r"(?:hf:([\w.-]+/[\w.-]+)|(timm/[\w.-]+))(?:@([\w./-]+))?")
RETRY = re.compile(r"Retrying in ([\d.]+)s \[Retry (\d+)/\d+\]")  # as the hub's client says it
BESIDE = ("config.json", "preprocessor_config.json", "certificate.json", "result.json")  # what tells of weights
KINDS = (  # of weights, the first of which a repository has is fetched
    ("model.keras",),
    (FILE, f"{FILE}.index.json", "model-*-of-*.safetensors"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin"),
    ("*.safetensors",),
    ("*.ckpt", "*.pth", "*.pt"),
)


def fetch(name):
    """Download timm's file for "architecture" or "architecture.tag" -> its path in the hub's cache.

    The hub's own environment variables apply: HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE, HF_TOKEN.

    Raises:
        SwinsError: no such variant, no such file on the hub, or no network and not in the cache.
    """
    architecture, tag = look_up(name).architecture, look_up(name).tag
    if tag is None:
        raise SwinsError(
            f"no weights of {architecture} are published; pass a file you have: --checkpoint FILE, or weights=FILE"
        )
    repository = f"timm/{architecture}.{tag}"
    with asking(repository, f"has no {FILE} on the hub") as hub:
        return hub.hf_hub_download(repository, FILE, local_files_only=not has_address(hub))


def has_address(hub) -> bool:
    """Whether the hub's host has an address here; without one, its client would wait through five retries.

    Where there is a proxy, which looks for the host itself, this is not asked.
    """
    if {"http", "https", "all"} & set(urllib.request.getproxies()):
        return True
    try:
        return bool(socket.getaddrinfo(urllib.parse.urlsplit(hub.constants.ENDPOINT).hostname, None))
    except OSError:
        return False


@contextlib.contextmanager
def short_retries(repository):
    """Let the hub's client say a line of each new try: it says two long ones, and all twice where others log too."""
    logger = logging.getLogger("huggingface_hub")
    handlers, propagates = list(logger.handlers), logger.propagate

    def shortened(record):
        text = record.getMessage()
        if found := RETRY.match(text):
            record.msg, record.args = f"{repository}: the hub does not answer; try {found[2]} in {found[1]} s", ()
        return " thrown while requesting " not in text

    logger.propagate = propagates and not handlers
    for handler in handlers:
        handler.addFilter(shortened)
    try:
        yield
    finally:
        logger.propagate = propagates
        for handler in handlers:
            handler.removeFilter(shortened)


@contextlib.contextmanager
def asking(repository, missing):
    """Give the module huggingface_hub; what it raises becomes a SwinsError.

    Args:
        repository: OWNER/NAME; missing: what to say of it where it, or what is asked of it, is not there.
    """
    try:
        import huggingface_hub
        import huggingface_hub.utils.logging  # which gives its logger a handler: short_retries must find it there
        from huggingface_hub import errors
    except ModuleNotFoundError as error:
        raise missing_package("fetching weights", "huggingface_hub", "pretrained") from error
    try:
        with short_retries(repository):
            yield huggingface_hub
    except (errors.RepositoryNotFoundError, errors.RemoteEntryNotFoundError, errors.RevisionNotFoundError) as error:
        raise SwinsError(f"{repository} {missing}; pass a file you have: --checkpoint FILE, or weights=FILE") from error
    except errors.LocalEntryNotFoundError as error:
        raise SwinsError(unreachable(repository)) from error
    except (errors.HTTPError, ConnectionError, TimeoutError) as error:
        raise SwinsError(f"{unreachable(repository)} ({type(error).__name__}: {first_line(error)})") from error


def local(source):
    """Where weights lie: of "hf:OWNER/NAME" or "timm/NAME", with "@REVISION" or without, the folder fetched of the hub.

    Anything else is given back as it is, a path that exists too: ./timm/NAME. Fetched are the weights and what tells of
    them: a .keras file, else safetensors, else PyTorch's.

    Raises:
        SwinsError: an address of another form, no such repository or no weights in it, or no network and nothing in the
            cache.
    """
    if not isinstance(source, str) or not source.startswith(("hf:", "timm/")) or pathlib.Path(source).exists():
        return source
    found = ADDRESS.fullmatch(source)
    if not found:
        raise SwinsError(f"weights of the hub are hf:OWNER/NAME or timm/NAME, and @REVISION after it; got {source}")
    repository, revision = found[1] or found[2], found[3]
    for names in KINDS:
        with asking(repository, "is not on the hub") as hub:
            folder = hub.snapshot_download(
                repository,
                revision=revision,
                allow_patterns=[*BESIDE, *names],
                local_files_only=not has_address(hub),
            )
        if any(any(pathlib.Path(folder).glob(name)) for name in names):
            return os.fspath(folder)
    raise SwinsError(
        f"{repository} has no weights that are read here; its files must be {', '.join(names[0] for names in KINDS)}"
    )


def unreachable(repository):
    return (
        f"{repository}: not in the local cache, and the hub cannot be reached; connect to a network, "
        "or take a file you have: weights=FILE in Python, -m FILE of `swins predict` (or --demo: small models that "
        "come with swins), --checkpoint FILE of `swins convert`, "
        "--set model.weights=FILE of `swins train` (docs/training.md has a whole line of a run without network), "
        "--set model.weights= for fresh ones"
    )
