"""The shards that a manifest names, opened and checked against it by the core."""

from __future__ import annotations

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
    rows = [
        (
            str(shard_path(directory, row.file)),
            row.uuid,
            row.bytes,
            row.sequences,
            row.positions,
            row.entries,
        )
        for row in manifest.shards
    ]
    return _core.CacheReader(rows, manifest.config.to_core(), models, verify_checksums)
