"""Files of a cache are regular files inside its directory, whatever lies under their names."""

from __future__ import annotations

import stat
from pathlib import Path

from sparselogits.durable import io_error
from sparselogits.errors import CacheIOError, CorruptionError

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def plain_file(directory: Path, name: str, what: str) -> Path:
    """Where a file of the cache lies. A link may stand in for it only if it stays inside.

    Opening anything else could hang (a FIFO), read a device, or leave the cache.

    Args:
        directory: The cache's.
        name: A plain name, without separators.
        what: The kind of file, for errors.

    Raises:
        CorruptionError: A link out of the directory, a directory, a FIFO, a socket or a device.
        CacheIOError: It does not exist, or cannot be looked at.
    """
    path = directory / name
    try:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            target = path.resolve(strict=True)
            if target.parent != directory.resolve():
                raise CorruptionError("is a link out of the cache", str(path), None, "file")
            mode = target.stat().st_mode
    except OSError as error:
        raise io_error(error, f"cannot open the {what}", path) from error
    except RuntimeError as error:  # a loop of links, before Python 3.13
        raise CacheIOError(f"{path}: {error}") from error
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no regular file")
        raise CorruptionError(f"is {kind}, where a file must be", str(path), None, "file")
    return path
