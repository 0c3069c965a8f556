"""SavedModels from folders, archives and URLs, unpacked so that nothing lands outside and cached."""

import contextlib
import gzip
import hashlib
import http.client
import os
import pathlib
import re
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib

from swins import files
from swins.errors import SwinsError, first_line

LARGEST = 2**34  # bytes that an archive may have, and unpack to
DIGEST = "#sha256="  # after an archive's name or address: what its bytes must be
FORMAT = "tf-hub-format=compressed"  # how TF-Hub's protocol asks for a tar.gz; static hosts take no notice
CHUNK = 2**20
FILTER = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # `members` does what it does, too


def cache():
    """The folder of unpacked archives: $SWINS_CACHE_DIR, else ~/.cache/swins."""
    return pathlib.Path(os.environ.get("SWINS_CACHE_DIR") or pathlib.Path.home() / ".cache" / "swins")


def members(tar, name):
    """Members of an archive, none of which may be anything but a file or folder below it.

    They will be this user's, with nobody else's right to write: what tarfile's `data` filter does, which Python has
    since 3.11.4 (Debian 12 brings 3.11.2).

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
        member.mode = 0o755 if member.isdir() else 0o644
        member.uname = member.gname = ""
        if hasattr(os, "geteuid"):
            member.uid, member.gid = os.geteuid(), os.getegid()
    return found


def read_through(file, name):
    """Check the digest at the end of an open gzip file, which tarfile does not read up to, and its size."""
    size = 0
    file.seek(0)
    with gzip.open(file) as stream:
        while chunk := stream.read(CHUNK):
            size += len(chunk)
            if size > LARGEST:
                raise SwinsError(f"{name}: unpacks to more than {LARGEST:,} bytes; nothing was unpacked")


def unpack(archive, folder, name=None):
    """Unpack a tar.gz, by its path or an open file, into a new folder, whole or not at all.

    Raises:
        SwinsError: not a gzipped tar, no SavedModel at its root, or one that would write elsewhere.
    """
    name, folder = name or archive, pathlib.Path(folder)
    with contextlib.ExitStack() as stack, contextlib.suppress(FileExistsError):  # another process was faster
        file = archive if hasattr(archive, "read") else stack.enter_context(open(archive, "rb"))
        partial = stack.enter_context(files.folder(folder, refuse_present))
        try:
            read_through(file, name)
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:gz") as tar:
                tar.extractall(partial, members(tar, name), **FILTER)
        except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError, OverflowError) as error:
            if isinstance(error, SwinsError):
                raise
            raise SwinsError(f"{name}: not a tar.gz that can be unpacked ({first_line(error)})") from error
        if not (partial / "saved_model.pb").is_file():
            raise SwinsError(f"{name}: has no saved_model.pb at its root, so it is no SavedModel")
    return folder


def refuse_present(folder):
    """Raise FileExistsError if a folder is there."""
    if folder.exists():
        raise FileExistsError(folder)


def download(url, file):
    """Fetch a tar.gz as TF-Hub's clients do, into an open file, and show how far it is.

    Raises:
        SwinsError: no such host or page, a connection that breaks, or more bytes than LARGEST or than were announced.
    """
    import keras

    asked = f"{url}{'&' if '?' in url else '?'}{FORMAT}"
    done = 0
    try:
        with urllib.request.urlopen(asked, timeout=60) as response:
            size = int(response.headers.get("Content-Length") or 0)
            most = size or LARGEST
            bar = keras.utils.Progbar(size or None, unit_name="byte")
            while size <= LARGEST and done <= most and (chunk := response.read(CHUNK)):
                done += len(chunk)
                file.write(chunk)
                bar.update(done)
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        raise SwinsError(
            f"{url}: cannot be fetched ({first_line(error)}); check the address and the network"
        ) from error
    if max(size, done) > LARGEST:
        raise SwinsError(f"{url}: an archive has at most {LARGEST:,} bytes; got {max(size, done):,}; nothing was kept")
    if size and done != size:
        raise SwinsError(f"{url}: {size:,} bytes were announced and {done:,} came; try again")


def require_digest(file, expected, name):
    """Raise SwinsError unless an open file has the digest that is expected of it; None expects nothing."""
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    if expected not in (None, digest):
        raise SwinsError(f"{name}: its sha256 must be {expected}; got {digest}; nothing was unpacked; do not use it")


def split(handle):
    """A handle and the sha256 that is expected of it, or None. Raises SwinsError for what can be no sha256."""
    handle, mark, digest = os.fspath(handle).partition(DIGEST)
    if mark and not re.fullmatch(r"[0-9a-f]{64}", digest.lower()):
        raise SwinsError(
            f"{handle}{mark}{digest}: a sha256 must be 64 hexadecimal digits; got {len(digest)} characters"
        )
    return handle, digest.lower() or None


def find_saved_model(handle):
    """The folder of a SavedModel: a folder itself, or the unpacked copy of a tar.gz or of what a URL gives.

    Copies stay in the cache: a file's under its digest, a URL's under the address, which is asked once. A tar.gz or
    address may end in #sha256= and the digest that its bytes must have.

    Raises:
        SwinsError: nothing there, nothing that can be unpacked, or other bytes than expected.
    """
    address, expected = split(handle)
    if address.startswith(("http://", "https://")):
        key = f"{address}{DIGEST}{expected}" if expected else address
        folder = cache() / hashlib.sha256(key.encode()).hexdigest()[:32]
        with entry(folder) as missing:
            if missing:
                with tempfile.TemporaryFile() as file:  # it has no name: nothing is left of a process that is killed
                    download(address, file)
                    require_digest(file, expected, address)
                    unpack(file, folder, address)
        return folder
    path = pathlib.Path(address)
    if path.is_file():
        with open(path, "rb") as file:
            require_digest(file, expected, address)
            file.seek(0)
            folder = cache() / hashlib.file_digest(file, "sha256").hexdigest()[:32]
            with entry(folder) as missing:
                if missing:
                    unpack(file, folder, address)
        return folder
    if expected or not (path / "saved_model.pb").is_file():
        raise SwinsError(
            f"{handle}: must be a folder with saved_model.pb, a tar.gz of one, or its http(s) address; "
            "#sha256= goes with the last two"
        )
    return path


@contextlib.contextmanager
def entry(folder):
    """Wait until no other process makes a folder of the cache -> whether it is missing."""
    if folder.is_dir():
        yield False
        return
    made = not folder.parent.is_dir()
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with files.lock(folder.with_name(f"{folder.name}.wanted"), wait=True):
            yield not folder.is_dir()
    finally:
        if made:
            with contextlib.suppress(OSError):  # others may have filled it
                folder.parent.rmdir()
