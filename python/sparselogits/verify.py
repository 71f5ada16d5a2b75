"""Deep verification of a cache: every byte is read, decoded and hashed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparselogits import _core
from sparselogits.durable import file_sha256
from sparselogits.errors import CorruptionError, MismatchError
from sparselogits.manifest import MANIFEST_NAME, Manifest, ShardRow, read_manifest, shard_path
from sparselogits.manifest_parser import shard_metadata
from sparselogits.shard_set import open_shards

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class VerifyReport:
    """What was read and found to be in order.

    Attributes:
        shards, sequences, positions, entries: What the cache holds.
        bytes: Of all files, the manifest included.
        complete: Whether a writer closed the cache.
    """

    shards: int
    sequences: int
    positions: int
    entries: int
    bytes: int
    complete: bool


def verify_cache(
    directory: Path, manifest: Manifest, progress: Progress | None = None
) -> VerifyReport:
    """Checks the manifest, each shard to its last bit, and what must hold across shards.

    Raises:
        FormatError: The first fault; names file, offset, field and reason.
        MismatchError: The manifest is no longer the one given.
        CacheIOError: A file is missing or cannot be read.
    """
    if read_manifest(directory).digest != manifest.digest:
        raise MismatchError(f"{directory} has changed since it was opened")
    open_shards(directory, manifest, verify_checksums=True)
    total = 2 * sum(row.bytes for row in manifest.shards)
    done = 0
    ids: list[npt.NDArray[np.uint64]] = []
    for row in manifest.shards:
        ids.append(_verify_shard(shard_path(directory, row.file), row, done, total, progress))
        done += 2 * row.bytes
    _refuse_repeated_ids(directory, manifest, ids)
    return VerifyReport(
        shards=len(manifest.shards),
        sequences=sum(row.sequences for row in manifest.shards),
        positions=sum(row.positions for row in manifest.shards),
        entries=sum(row.entries for row in manifest.shards),
        bytes=manifest.num_bytes + total // 2,
        complete=manifest.complete,
    )


def verify_shard(path: str | os.PathLike[str], progress: Progress | None = None) -> dict[str, Any]:
    """Checks one finished shard against the format, whatever a manifest says of it.

    Args:
        path: The shard.
        progress: Called with the bytes done and the bytes in all.

    Returns:
        `uuid`, `config`, `bytes`, `sequences`, `positions`, `entries`, `sequence_ids` and
        `sections`: the bits of each part of the file, which add up to its size.

    Raises:
        FormatError: The first fault.
        CacheIOError: The file cannot be read.
    """
    found: dict[str, Any] = _core.verify_shard(str(path), progress)
    shard_metadata(os.fspath(path), found["metadata_json"])
    return found


def _verify_shard(
    path: Path, row: ShardRow, done: int, total: int, progress: Progress | None
) -> npt.NDArray[np.uint64]:
    """Checks one shard against the format and its row; returns its sequence ids."""

    def decoded(shard_done: int, _shard_total: int) -> None:
        if progress is not None:
            progress(done + shard_done, total)

    def hashed(shard_done: int) -> None:
        if progress is not None:
            progress(done + row.bytes + shard_done, total)

    found = verify_shard(path, decoded)
    for name in ("uuid", "sequences", "positions", "entries"):
        if found[name] != getattr(row, name):
            raise CorruptionError(
                f"is {found[name]!r}, but {getattr(row, name)!r} in the manifest",
                str(path),
                None,
                name,
            )
    sha256 = file_sha256(path, hashed)
    if sha256 != row.sha256:
        raise CorruptionError(
            f"is {sha256}, but {row.sha256} in the manifest", str(path), None, "sha256"
        )
    sequence_ids: npt.NDArray[np.uint64] = found["sequence_ids"]
    return sequence_ids


def _refuse_repeated_ids(
    directory: Path, manifest: Manifest, ids: list[npt.NDArray[np.uint64]]
) -> None:
    if not ids:
        return
    everything = np.concatenate(ids)
    order = np.argsort(everything, kind="stable")
    ordered = everything[order]
    repeated = np.flatnonzero(ordered[1:] == ordered[:-1])
    if not len(repeated):
        return
    ends = np.cumsum([len(part) for part in ids])
    shard = int(np.searchsorted(ends, order[repeated[0] + 1], side="right"))
    raise CorruptionError(
        f"{ordered[repeated[0]]} is in more than one place; the second is in "
        f"{manifest.shards[shard].file}",
        str(directory / MANIFEST_NAME),
        None,
        "sequence_id",
    )
