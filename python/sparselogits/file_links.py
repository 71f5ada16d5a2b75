"""Finished files of a cache in a second place: the same file where possible, else a copy."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import BinaryIO

from sparselogits.durable import file_sha256, io_error
from sparselogits.errors import CorruptionError

_CHUNK = 1 << 20
_KERNEL_CHUNK = 1 << 30


def link_or_copy(source: Path, target: Path, sha256: str) -> bool:
    """Gives a finished shard or a model a second name, or copies it; durable but for its name.

    Args:
        source: The file; not a symbolic link.
        target: The new name, which must be free.
        sha256: Of the file as it must be. A copy is read again and compared.

    Returns:
        True where it is the same file, False where it is a copy.

    Raises:
        CacheIOError: The system refused.
        CorruptionError: The copy has another digest: the file is damaged, or the copy is.
    """
    linked = True
    try:
        try:
            os.link(source, target)
        except OSError:  # another file system, or one without links; not allowed; too many
            _copy(source, target)
            linked = False
        _sync(target)
    except OSError as error:
        raise io_error(error, f"cannot link or copy {source} to", target) from error
    if not linked and (found := file_sha256(target)) != sha256:
        raise CorruptionError(
            f"is {found} in a copy, but must be {sha256}", str(source), None, "sha256"
        )
    return linked


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as held, target.open("xb") as made:
        if not _copied_by_kernel(held, made):
            shutil.copyfileobj(held, made, _CHUNK)


def _copied_by_kernel(held: BinaryIO, made: BinaryIO) -> bool:
    """Shares the blocks where the file system can. False if nothing was copied this way."""
    copy_range = getattr(os, "copy_file_range", None)  # a Python for an old glibc lacks it
    size = os.fstat(held.fileno()).st_size
    done = 0
    while copy_range is not None and done < size:
        try:
            step = copy_range(
                held.fileno(), made.fileno(), min(size - done, _KERNEL_CHUNK), done, done
            )
        except OSError:
            if done == 0:
                return False
            raise
        if step == 0:
            break
        done += step
    return done > 0


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
