"""SavedModels from folders, archives and URLs, unpacked so that nothing lands outside and cached."""

import contextlib
import gzip
import hashlib
import http.client
import os
import pathlib
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib

from swins.errors import SwinsError, first_line

LARGEST = 2**34  # bytes that an archive may unpack to
FORMAT = "tf-hub-format=compressed"  # how TF-Hub's protocol asks for a tar.gz; static hosts take no notice
CHUNK = 2**20


def cache():
    """The folder of unpacked archives: $SWINS_CACHE_DIR, else ~/.cache/swins."""
    return pathlib.Path(os.environ.get("SWINS_CACHE_DIR") or pathlib.Path.home() / ".cache" / "swins")


def members(tar, name):
    """Members of an archive, none of which may be anything but a file or folder below it.

    Raises:
        SwinsError: for absolute paths, `..`, links, devices.
    """
    found = tar.getmembers()
    for member in found:
        parts = pathlib.PurePosixPath(member.name.replace("\\", "/")).parts
        if member.name.startswith(("/", "\\")) or ".." in parts or ":" in (parts or ("",))[0]:
            raise SwinsError(f"{name}: {member.name!r} would be written outside its folder; nothing was unpacked")
        if not (member.isreg() or member.isdir()):
            raise SwinsError(f"{name}: {member.name!r} is neither a file nor a folder; nothing was unpacked")
    return found


def read_through(archive, name):
    """Check the digest at the end of a gzip file, which tarfile does not read up to, and its size."""
    size = 0
    with gzip.open(archive) as stream:
        while chunk := stream.read(CHUNK):
            size += len(chunk)
            if size > LARGEST:
                raise SwinsError(f"{name}: unpacks to more than {LARGEST:,} bytes; nothing was unpacked")


def unpack(archive, folder, name=None):
    """Unpack a tar.gz into a new folder, whole or not at all.

    Raises:
        SwinsError: not a gzipped tar, no SavedModel at its root, or one that would write elsewhere.
    """
    name = name or archive
    folder = pathlib.Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = pathlib.Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".partial"))
    try:
        try:
            read_through(archive, name)
            with tarfile.open(archive, "r:gz") as tar:
                tar.extractall(partial, members(tar, name), filter="data")
        except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError, OverflowError) as error:
            if isinstance(error, SwinsError):
                raise
            raise SwinsError(f"{name}: not a tar.gz that can be unpacked ({first_line(error)})") from error
        if not (partial / "saved_model.pb").is_file():
            raise SwinsError(f"{name}: has no saved_model.pb at its root, so it is no SavedModel")
        with contextlib.suppress(OSError):  # another process may have been faster
            partial.rename(folder)
        if not folder.is_dir():
            raise SwinsError(f"{folder}: cannot be written")
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def download(url, file):
    """Fetch a tar.gz as TF-Hub's clients do, into an open file, and show how far it is.

    Raises:
        SwinsError: no such host or page, or a connection that breaks.
    """
    import keras

    asked = f"{url}{'&' if '?' in url else '?'}{FORMAT}"
    try:
        with urllib.request.urlopen(asked, timeout=60) as response:
            size = int(response.headers.get("Content-Length") or 0)
            bar = keras.utils.Progbar(size or None, unit_name="byte")
            done = 0
            while chunk := response.read(CHUNK):
                file.write(chunk)
                done += len(chunk)
                bar.update(done)
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        raise SwinsError(
            f"{url}: cannot be fetched ({first_line(error)}); check the address and the network"
        ) from error
    if size and done != size:
        raise SwinsError(f"{url}: {size:,} bytes were announced and {done:,} came; try again")


def find_saved_model(handle):
    """The folder of a SavedModel: a folder itself, or the unpacked copy of a tar.gz or of what a URL gives.

    Copies stay in the cache: a file's under its digest, a URL's under the address, which is asked once.

    Raises:
        SwinsError: nothing there, or nothing that can be unpacked.
    """
    handle = os.fspath(handle)
    if handle.startswith(("http://", "https://")):
        folder = cache() / hashlib.sha256(handle.encode()).hexdigest()[:32]
        if not folder.is_dir():
            with tempfile.NamedTemporaryFile(suffix=".tar.gz") as file:
                download(handle, file)
                file.flush()
                unpack(file.name, folder, handle)
        return folder
    path = pathlib.Path(handle)
    if path.is_file():
        with open(path, "rb") as file:
            folder = cache() / hashlib.file_digest(file, "sha256").hexdigest()[:32]
        return folder if folder.is_dir() else unpack(path, folder)
    if not (path / "saved_model.pb").is_file():
        raise SwinsError(f"{handle}: must be a folder with saved_model.pb, a tar.gz of one, or its http(s) address")
    return path
