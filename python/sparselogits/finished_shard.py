"""A finished shard as a manifest lists it."""

from __future__ import annotations

from pathlib import Path

from sparselogits.durable import file_sha256, io_error
from sparselogits.manifest import ShardRow


def finished_row(path: Path, file: str, uuid: str, totals: tuple[int, int, int]) -> ShardRow:
    """The row of a shard that lies at `path` and is to be listed as `file`.

    Args:
        path: Where it is now.
        file: Its name in the cache.
        uuid: As in its header.
        totals: Its sequences, positions and entries.

    Raises:
        CacheIOError: It cannot be read.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise io_error(error, "cannot find the finished shard", path) from error
    return ShardRow(file, uuid, size, *totals, file_sha256(path))
