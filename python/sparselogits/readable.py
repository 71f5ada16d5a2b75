"""What a reader finds in a directory: a cache, an unfinished one, or none."""

from __future__ import annotations

import errno
from pathlib import Path

from sparselogits.directory import list_directory
from sparselogits.errors import CacheIOError
from sparselogits.manifest import Manifest, read_manifest


def readable_manifest(directory: Path) -> Manifest:
    """The manifest of a cache, whole whatever a writer is doing.

    It is asked for by name first: a listing read while a writer replaces it may miss it.

    Raises:
        CacheIOError: There is no cache, or only an unfinished one; the error tells which.
        FormatError: The manifest is damaged.
    """
    try:
        manifest = read_manifest(directory)
    except CacheIOError as error:
        if error.errno != errno.ENOENT:
            raise
        if list_directory(directory).is_unfinished:
            raise _unfinished(directory) from None
        raise CacheIOError(
            errno.ENOENT, "holds no cache: there is no manifest.json", str(directory)
        ) from None
    if not manifest.shards and list_directory(directory).partials:
        raise _unfinished(directory)
    return manifest


def _unfinished(directory: Path) -> CacheIOError:
    return CacheIOError(f"{directory}: the cache is unfinished: run sl.recover(path) first")
