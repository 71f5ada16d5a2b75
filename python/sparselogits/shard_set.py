"""The shards of a manifest, opened and checked against it by the core."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from sparselogits import _core
from sparselogits.cache_models import sound_models
from sparselogits.manifest import Manifest, shard_path


def open_shards(
    directory: Path,
    manifest: Manifest,
    verify_checksums: bool,
    models: list[_core.CodecModel] | None = None,
) -> _core.CacheReader:
    """Maps every shard and validates its header, index and footer against its row.

    Args:
        directory: Of the cache.
        manifest: Of the cache.
        verify_checksums: Whether a block's checksum is compared when it is first read.
        models: Those that the shards need; default: loaded from the cache.

    Raises:
        FormatError: A shard or a model is damaged, or not the one that the manifest means.
        CacheIOError: A shard or a model is missing or cannot be read.
    """
    if models is None:
        models = sound_models(directory, manifest)
    plain = _plain_files(directory)
    paths = [
        f"{directory}/{row.file}" if row.file in plain else str(shard_path(directory, row.file))
        for row in manifest.shards
    ]
    return shard_reader(paths, manifest, verify_checksums, models)


def _plain_files(directory: Path) -> set[str]:
    """The names of regular files, by one listing: looking at each of thousands takes longer."""
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        return {entry.name for entry in entries if entry.is_file(follow_symlinks=False)}
    return set()


def shard_reader(
    paths: Sequence[str],
    manifest: Manifest,
    verify_checksums: bool,
    models: list[_core.CodecModel],
    *,
    come_and_go: bool = False,
) -> _core.CacheReader:
    """The core's reader of shards that lie at these paths, one a row of the manifest.

    Args:
        paths: Absolute.
        manifest: Says what each shard holds.
        verify_checksums: Whether a block's checksum is compared when it is first read.
        models: Those that the shards need.
        come_and_go: The files need not be there yet: each is opened by `admit`.

    Raises:
        FormatError, CacheIOError: As for `open_shards`; with `come_and_go` not before `admit`.
    """
    rows = [
        (path, row.uuid, row.bytes, row.sequences, row.positions, row.entries)
        for path, row in zip(paths, manifest.shards, strict=True)
    ]
    options = {"shards_come_and_go": True} if come_and_go else {}
    return _core.CacheReader(rows, manifest.config.to_core(), models, verify_checksums, **options)
