"""The shards that a manifest names, opened and checked against it by the core."""

from __future__ import annotations

from pathlib import Path

from sparselogits import _core
from sparselogits.manifest import Manifest, shard_path


def open_shards(directory: Path, manifest: Manifest, verify_checksums: bool) -> _core.CacheReader:
    """Maps every shard and validates its header, index and footer against its row.

    Raises:
        FormatError: A shard is damaged, or not the one that the manifest means.
        CacheIOError: A shard is missing or cannot be read.
    """
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
    return _core.CacheReader(rows, manifest.config.to_core(), verify_checksums)
