"""Files for everybody: written whole or not at all, hashed, locked; leftovers are known by host and lock.

While a folder FOLDER is written, these lie beside it, HOST and TOKEN being those of the process that writes:
    .FOLDER.lock                  locked by the process, unless the file system has no locks; gone when it ends
    .FOLDER.HOST.TOKEN.partial    the new folder; it becomes FOLDER when it is complete
    .FOLDER.HOST.TOKEN.replaced   the old folder, for the moment in which the new one takes its place; the token ends in
                                  the new one's inode, which tells whether it did
    .FOLDER.HOST.TOKEN.obsolete   the old folder, when the new one is in its place

Readers change nothing. A writer that holds the lock removes what this host's killed writers left, and puts an old
folder back whose successor never came; another host's, or all where there are no locks, it leaves and names.
"""

import contextlib
import errno
import hashlib
import os
import pathlib
import re
import shutil
import socket
import tempfile
from dataclasses import dataclass

from swins.errors import SwinsError

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
PARTIAL, REPLACED, OBSOLETE = "partial", "replaced", "obsolete"


def host() -> str:
    """This machine's name, of letters, digits, - and _."""
    return re.sub(r"[^\w-]+", "_", socket.gethostname()) or "unnamed"


def sha256(path) -> str:
    """Hex digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def umask() -> int:
    """The process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def replacing(path):
    """Give the name of a temporary sibling to be written; it takes a file's place, and mode, if the block ends well."""
    path = pathlib.Path(path)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.{host()}.", suffix=f".{PARTIAL}")
    os.close(handle)
    partial = pathlib.Path(partial)
    try:
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        partial.chmod(path.stat().st_mode if path.is_file() else 0o666 & ~umask())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write(path, text: str) -> None:
    """Write a text file whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def lock(path, wait=False):
    """Hold the lock of a path, a file beside it -> whether it is held: False where the file system has no locks.

    Raises:
        SwinsError: if another process holds it; with `wait` it is waited for.
    """
    from filelock import FileLock, Timeout

    file, held = pathlib.Path(path).with_name(f".{pathlib.Path(path).name}.lock"), True
    taken = FileLock(file, fallback_to_soft=False)  # a soft one outlives a killed process
    try:
        taken.acquire(timeout=-1 if wait else 0)
    except Timeout as error:
        raise SwinsError(
            f"{path} is being written by {owner(file)}; wait for its end, or choose another folder with -o"
        ) from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        held = False
    try:
        if held:
            file.write_text(f"process {os.getpid()} of {host()}")
        yield held
    finally:
        if held:
            with contextlib.suppress(OSError):
                file.unlink()  # while it is held: who opened it and waits finds it without a name, and opens another
            taken.release()


def owner(file):
    """Who wrote a lock file, for messages."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return file.read_text()[:200] or "another process"
    return "another process"


@dataclass(frozen=True)
class Leftover:
    """What lies beside a folder: its path, the host that it is of, its token, and PARTIAL, REPLACED or OBSOLETE."""

    path: pathlib.Path
    host: str
    token: str
    kind: str


def leftovers(folder) -> list[Leftover]:
    """What writers that still run, or were killed, have beside a folder."""
    folder = pathlib.Path(folder).resolve()
    if not folder.parent.is_dir():
        return []
    form = rf"\.{re.escape(folder.name)}\.([\w-]+)\.(\w+)\.({PARTIAL}|{REPLACED}|{OBSOLETE})"
    names = ((path, re.fullmatch(form, path.name)) for path in sorted(folder.parent.iterdir()))
    return [Leftover(path, *match.groups()) for path, match in names if match]


def laid_aside(folder) -> str:
    """What to do where a folder is missing because a writer was killed just then; nothing where it is not so."""
    if pathlib.Path(folder).exists():
        return ""
    return "; ".join(
        f"{left.path} is what {folder} was before a run on {left.host} began to replace it; if no run is going there, "
        f"put it back: mv {left.path} {folder}"
        for left in leftovers(folder)
        if left.kind == REPLACED
    )


def clean(folder, held, say) -> None:
    """Remove what this host's killed writers left beside a folder, or put it back; name what may be somebody's.

    held: whether the folder's lock is held, so that none of this host's writers runs.

    Raises:
        SwinsError: if the folder is missing because a writer of another host is replacing it, or was killed.
    """
    folder = pathlib.Path(folder).resolve()
    for left in leftovers(folder):
        own = held and left.host == host()
        if own and left.kind == REPLACED and not folder.exists():
            left.path.rename(folder)
            say(f"put {folder} back, which a killed run had laid aside")
        elif own and (left.kind != REPLACED or left.token.endswith(f"_{folder.stat().st_ino}")):
            shutil.rmtree(left.path)
        elif left.kind != REPLACED or folder.exists():
            say(f"{left.path} was left by a run on {left.host}; if none is going there, remove it")
    if text := laid_aside(folder):
        raise SwinsError(text)


def tidy(folder, say) -> None:
    """For writers, before long work: put a folder back that a killed one laid aside.

    Raises:
        SwinsError: if another process writes it, or it is another host's to put back.
    """
    if leftovers(folder):
        with lock(pathlib.Path(folder).resolve()) as held:
            clean(folder, held, say)


def link(source, target):
    """Give a file a second name, or copy it where the file system has no links."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        copy(source, target)


def copy(source, target):
    """Copy a file, or a link as a link, with its times."""
    shutil.copy2(source, target, follow_symlinks=False)


def entries(folder):
    """Relative paths of all files, links and empty folders below a folder."""

    def fail(error):
        raise error

    for place, folders, names in os.walk(folder, onerror=fail):
        relative = pathlib.Path(place).relative_to(folder)
        links = [name for name in folders if pathlib.Path(place, name).is_symlink()]
        yield from (relative / name for name in (*names, *links))
        if not names and not folders and relative.parts:
            yield relative


def stamp(path):
    """What changes when a file does."""
    facts = os.lstat(path)
    return (facts.st_ino, facts.st_size, facts.st_mtime_ns) if not path.is_dir() else None


def carry(old, new, dropped, put=link) -> None:
    """Put everything of a folder into another, but what is dropped; the second keeps what it has.

    Args:
        dropped: a function of a path relative to the folder: True for what the new folder need not keep.
        put: how a file gets there: `link` or `copy`.

    Raises:
        SwinsError: if both have a file of one name that is not dropped.
    """
    kept = [path for path in entries(old) if not dropped(path)]
    both = [path for path in kept if os.path.lexists(new / path) or in_a_file(new / path)]
    clashes = [path.as_posix() for path in both if not (is_folder(old / path) and is_folder(new / path))]
    if clashes:
        raise SwinsError(f"{', '.join(sorted(clashes))} would be replaced, and swins did not write it; move it away")
    for path in kept:
        for part in reversed(path.parents if not is_folder(old / path) else (path, *path.parents)):
            if not (new / part).exists():
                (new / part).mkdir()
                shutil.copystat(old / part, new / part)
        if not is_folder(old / path):
            put(old / path, new / path)


def is_folder(path):
    """Whether a path is a folder and no link to one."""
    return path.is_dir() and not path.is_symlink()


def in_a_file(path):
    """Whether something above a path is no folder."""
    return any(part.exists() and not part.is_dir() for part in path.parents)


@contextlib.contextmanager
def folder(target, check, dropped=None, say=lambda text: None):
    """Give an empty temporary sibling of a folder; it takes the folder's place if the block ends well, else it goes.

    Args:
        target: the folder, which may exist.
        check: a function of a path: raises SwinsError if the folder there must not be replaced. It is called before
            the block, before the folder is replaced, and when nobody can change it by its name any more.
        dropped: a function of a path: the old folder -> a function of relative paths, True for files of it that need
            not be kept. All others are, and all by default.
        say: called with a line of text on what others left.

    Raises:
        SwinsError: also if another process writes the folder.
    """
    target = pathlib.Path(target).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    with lock(target) as held:
        clean(target, held, say)
        check(target)
        prefix = f".{target.name}.{host()}."
        partial = pathlib.Path(tempfile.mkdtemp(dir=target.parent, prefix=prefix, suffix=f".{PARTIAL}"))
        try:
            yield partial
            partial.chmod(0o777 & ~umask())
            check(target)  # again: another run may have been faster
            replace(target, partial, check, dropped)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def replace(target, partial, check, dropped):
    """Rename a partial folder into place, with what the old one has to keep."""
    if not target.exists():
        partial.rename(target)
        return
    drop = dropped(target) if dropped else lambda path: False  # it may read all files: before the folder is away
    stamps = {path: stamp(target / path) for path in entries(target) if drop(path)}
    replaced = partial.with_name(f"{partial.stem}_{partial.stat().st_ino}.{REPLACED}")
    obsolete = replaced.with_suffix(f".{OBSOLETE}")
    try:
        target.rename(replaced)
        check(replaced)
        carry(replaced, partial, lambda path: path in stamps and stamps[path] == stamp(replaced / path))
        partial.rename(target)
    except BaseException:
        if replaced.exists() and not target.exists():
            replaced.rename(target)
        raise
    replaced.rename(obsolete)
    shutil.rmtree(obsolete, ignore_errors=True)
