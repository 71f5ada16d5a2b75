"""The deep check of one shard: against the format, its row in the manifest, and its digest."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparselogits import _core
from sparselogits.cache_models import CacheModels
from sparselogits.config import CacheConfig
from sparselogits.durable import file_sha256
from sparselogits.errors import CorruptionError, SparseLogitsError
from sparselogits.fault import Fault
from sparselogits.files_to_verify import FilesToVerify
from sparselogits.manifest import ShardRow, shard_path
from sparselogits.manifest_parser import shard_metadata

Progress = Callable[[int, int], None]
Found = tuple[SparseLogitsError, Fault]

_NO_IDS: npt.NDArray[np.uint64] = np.empty(0, np.uint64)


@dataclass(frozen=True)
class ShardCheck:
    """What a check found.

    Attributes:
        faults: Each one as the exception to raise and as a `Fault`, in the order of the file.
        sequence_ids: (n,) uint64; of a shard without faults.
    """

    faults: list[Found] = field(default_factory=list)
    sequence_ids: npt.NDArray[np.uint64] = field(default_factory=lambda: _NO_IDS)


def verify_shard(
    path: str | os.PathLike[str],
    models: list[_core.CodecModel],
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Checks one finished shard against the format, whatever a manifest says of it.

    Args:
        path: The shard.
        models: Among them the one that it needs, if any.
        progress: Called with the bytes done and the bytes in all.

    Returns:
        `uuid`, `config`, `bytes`, `sequences`, `positions`, `entries`, `sequence_ids`,
        `model_digest` (0 for none) and `sections`: the bits of each part of the file, which add up
        to its size.

    Raises:
        FormatError: The first fault.
        CacheIOError: The file cannot be read.
    """
    found = _core.verify_shard(os.fspath(path), models, False, progress)
    if found["faults"]:
        raise found["faults"][0]["error"]
    shard_metadata(os.fspath(path), found["metadata_json"])
    return found


def check_held(
    files: FilesToVerify, number: int, first_sequence: int, check: Callable[[], ShardCheck]
) -> ShardCheck:
    """Does a check of a shard while it is held, and again where that was a copy that is damaged.

    Args:
        files: Of the cache.
        number: Of the shard.
        first_sequence: The index in the cache of the shard's first sequence.
        check: Returns what it finds.
    """
    try:
        with files.hold([number]):
            found = check()
            return check() if found.faults and files.renew(number) else found
    except SparseLogitsError as error:
        last_sequence = first_sequence + files.manifest.shards[number].sequences
        return ShardCheck([(error, Fault.of(error, first_sequence, last_sequence))])


def check_records(
    directory: Path,
    row: ShardRow,
    config: CacheConfig,
    models: CacheModels,
    first_sequence: int,
    keep_going: bool,
    progress: Progress,
) -> ShardCheck:
    """Decodes every record of a shard, and compares the shard with its row.

    Args:
        directory: Of the cache.
        row: What the manifest says of the shard.
        config: Of the cache.
        models: Of the cache. A fault of one concerns each shard that needs it.
        first_sequence: The index in the cache of the shard's first sequence.
        keep_going: Find every fault, not the first alone.
        progress: Called with the bytes done and the bytes in all.
    """
    last_sequence = first_sequence + row.sequences
    try:
        path = str(shard_path(directory, row.file))
        found = _core.verify_shard(path, models.loaded, keep_going, progress)
        progress(row.bytes, row.bytes)
        if found["faults"]:
            for fault in found["faults"]:
                fault["error"] = models.blamed(fault["error"], row.file) or fault["error"]
            faults = [_fault(fault, first_sequence, last_sequence) for fault in found["faults"]]
            return ShardCheck(faults)
        _compare_with_row(found, row, config, path)
        shard_metadata(path, found["metadata_json"])
    except SparseLogitsError as error:
        return ShardCheck([(error, Fault.of(error, first_sequence, last_sequence))])
    return ShardCheck([], found["sequence_ids"])


def check_digest(
    directory: Path, row: ShardRow, first_sequence: int, progress: Progress
) -> ShardCheck:
    """Compares a shard's SHA-256 with that of the manifest; arguments as for `check_records`."""
    last_sequence = first_sequence + row.sequences
    try:
        path = shard_path(directory, row.file)
        sha256 = file_sha256(path, lambda done: progress(done, row.bytes))
        if sha256 != row.sha256:
            raise CorruptionError(
                f"is {sha256}, but {row.sha256} in the manifest", str(path), None, "sha256"
            )
    except SparseLogitsError as error:
        return ShardCheck([(error, Fault.of(error, first_sequence, last_sequence))])
    return ShardCheck()


def _fault(found: dict[str, Any], first_sequence: int, last_sequence: int) -> Found:
    if found["concerns_all"]:
        fault = Fault.of(found["error"], first_sequence, last_sequence)
    else:
        fault = Fault.of(
            found["error"],
            first_sequence + found["first_sequence"],
            first_sequence + found["last_sequence"],
            tuple(found["sequence_ids"].tolist()),
        )
    return fault.raised(found["error"]), fault


def _compare_with_row(found: dict[str, Any], row: ShardRow, config: CacheConfig, path: str) -> None:
    for name in ("uuid", "bytes", "sequences", "positions", "entries"):
        if found[name] != getattr(row, name):
            raise CorruptionError(
                f"is {found[name]!r}, but {getattr(row, name)!r} in the manifest", path, None, name
            )
    stated = CacheConfig.from_core(found["config"])
    differing = config.first_difference(stated)
    if differing is not None:
        raise CorruptionError(
            f"{differing} is {getattr(stated, differing)!r}, "
            f"but {getattr(config, differing)!r} in the manifest",
            path,
            None,
            "config",
        )
