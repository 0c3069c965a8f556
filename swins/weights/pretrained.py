"""timm's published weights, fetched through the Hugging Face Hub and its cache; needs neither torch nor timm."""

from swins.errors import SwinsError, first_line
from swins.tags import look_up

FILE = "model.safetensors"


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
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ModuleNotFoundError as error:
        raise SwinsError("fetching weights needs huggingface_hub: pip install 'swins[pretrained]'") from error
    try:
        return huggingface_hub.hf_hub_download(repository, FILE)
    except (errors.RepositoryNotFoundError, errors.RemoteEntryNotFoundError) as error:
        raise SwinsError(
            f"{repository} has no {FILE} on the hub; pass a file you have: --checkpoint FILE, or weights=FILE"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise SwinsError(unreachable(repository)) from error
    except (errors.HTTPError, ConnectionError, TimeoutError) as error:
        raise SwinsError(f"{unreachable(repository)} ({type(error).__name__}: {first_line(error)})") from error


def unreachable(repository):
    return (
        f"{repository}: not in the local cache, and the hub cannot be reached; connect to a network, "
        "or take a file you have: weights=FILE in Python, --checkpoint FILE of `swins convert`, "
        "--set model.weights=FILE --set model.name=ITS_VARIANT of `swins train`"
    )
