"""A cache that another one is made of: taken as it lies there, never changed."""

from __future__ import annotations

import errno
from pathlib import Path

from sparselogits.directory import DirectoryLock, list_directory
from sparselogits.errors import CacheIOError, InvalidArgumentError
from sparselogits.manifest import Manifest, read_manifest


def source_manifest(directory: Path, *, allow_incomplete: bool) -> Manifest:
    """The manifest of a cache at which no writer is at work.

    Finished shards never change and the manifest names them, so it needs no lock to stay true.

    Args:
        directory: The cache.
        allow_incomplete: Take a recovered cache too, whose manifest says `complete: false`.

    Raises:
        InvalidArgumentError: The cache is unfinished, or incomplete; says how to go on.
        CacheIOError: There is no cache, or it cannot be read; a writer is at work there.
        FormatError: The manifest is damaged.
    """
    manifest = _manifest_without_leftovers(directory)
    if manifest.complete:
        return manifest
    if not allow_incomplete:
        raise InvalidArgumentError(
            f"{directory} is incomplete (a writer is at work there, or it was recovered): finish "
            "it with CacheWriter(..., resume=True), or take it as it is with allow_incomplete=True "
            "(--allow-incomplete)"
        )
    # Between two shards, the cache of a living writer looks like a recovered one.
    with DirectoryLock(directory):
        return _manifest_without_leftovers(directory)


def _manifest_without_leftovers(directory: Path) -> Manifest:
    """Refuses shards that the manifest does not name: unfinished ones, or of a dead writer."""
    listing = list_directory(directory)  # first: what a writer finishes now is in the manifest
    manifest = None
    try:
        manifest = read_manifest(directory)
    except CacheIOError as error:
        if error.errno != errno.ENOENT or not listing.is_unfinished:
            raise
    named = set() if manifest is None else {row.file for row in manifest.shards}
    for shard in (*listing.partials, *listing.sealed):
        if shard.name not in named:
            raise InvalidArgumentError(
                f"{directory} is unfinished: {shard.name} is not in its manifest (its writer is at "
                "work or gone). Finish it with CacheWriter(..., resume=True), or run "
                "sl.recover(path)"
            )
    assert manifest is not None  # without one, no shard is named
    return manifest
