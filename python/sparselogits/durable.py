"""Files that are either the old one or the new one, whatever happens in between."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from sparselogits.errors import CacheIOError

_CHUNK = 1 << 20

# Why a directory cannot be synced in which a writer, who syncs it, cannot have made another one.
_NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EINVAL)


def io_error(error: OSError, what: str, path: str | os.PathLike[str]) -> CacheIOError:
    """A `CacheIOError` that says what was tried on which file and why it failed."""
    return CacheIOError(error.errno, f"{what}: {error.strerror or error}", os.fspath(path))


def sync_directory(directory: str | os.PathLike[str]) -> None:
    """Makes names in a directory durable: a rename survives a crash only after this."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, data: bytes) -> None:
    """Writes a whole file: a reader, or a crash at any moment, finds the old bytes or the new.

    Raises:
        CacheIOError: The old file is untouched, or the new one is whole and may not survive a
            crash of the machine.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            temporary.unlink(missing_ok=True)  # of a dead process that had this number
            with temporary.open("xb") as file:  # exclusively: never through a link laid there
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):  # the first error is the one to report
                temporary.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)
    except OSError as error:
        raise io_error(error, "cannot write", path) from error


def make_directory(path: Path) -> None:
    """Creates a directory and its parents, each durable before there is one inside it.

    Raises:
        CacheIOError: One of them exists as something else, or the system refused.
    """
    missing = []
    ancestor = path
    try:
        while not ancestor.exists() and ancestor != ancestor.parent:
            missing.append(ancestor)
            ancestor = ancestor.parent
        # One that is there may be all that a writer has left which died before it could sync it.
        try:
            sync_directory(ancestor.parent)
        except OSError as error:
            if error.errno not in _NOT_OURS:
                raise
        for directory in reversed(missing):
            directory.mkdir(exist_ok=True)
            sync_directory(directory.parent)
        path.mkdir(exist_ok=True)  # says so where it is not a directory
    except OSError as error:
        raise io_error(error, "cannot create the directory", path) from error


def file_sha256(path: Path, progress: Callable[[int], None] | None = None) -> str:
    """The SHA-256 of a file's bytes, 64 hex digits. `progress` gets the bytes done so far.

    Raises:
        CacheIOError: The file cannot be read.
    """
    digest = hashlib.sha256()
    done = 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done)
    except OSError as error:
        raise io_error(error, "cannot read", path) from error
    return digest.hexdigest()
