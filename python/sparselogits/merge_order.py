"""The shards of several caches as one cache: no shard and no sequence twice, in order of ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sparselogits import _core
from sparselogits.errors import CorruptionError, MismatchError
from sparselogits.id_set import IdSet
from sparselogits.manifest import Manifest, ShardRow, shard_path
from sparselogits.shard_set import open_shards


@dataclass(frozen=True)
class SourceShard:
    """A shard where it lies.

    Attributes:
        directory: Of its cache.
        manifest: Of its cache, without the other shards.
        models: Of its cache.
    """

    directory: Path
    manifest: Manifest
    models: list[_core.CodecModel]

    @property
    def row(self) -> ShardRow:
        return self.manifest.shards[0]

    @property
    def path(self) -> Path:
        """The file itself, not a link to it inside the cache."""
        return shard_path(self.directory, self.row.file).resolve()

    def sequence_ids(self) -> npt.NDArray[np.uint64]:
        """(n,) ids, after the structure of the shard has been checked."""
        shard = open_shards(
            self.directory, self.manifest, verify_checksums=True, models=self.models
        )
        return shard.sequence_table()[0]


def ordered_shards(
    caches: Sequence[tuple[Path, Manifest]], models: Sequence[list[_core.CodecModel]]
) -> list[SourceShard]:
    """All shards, in ascending order of their lowest sequence_id; those without sequences last.

    Shards are opened one at a time; ids are kept as runs.

    Args:
        caches: The directory and the manifest of each.
        models: Those of each.

    Raises:
        MismatchError: Two shards have the same uuid, or the same sequence_id; names both.
        FormatError: A shard is damaged.
        CacheIOError: A shard is missing or cannot be read.
    """
    shards = [
        SourceShard(directory, replace(manifest, shards=(row,)), loaded)
        for (directory, manifest), loaded in zip(caches, models, strict=True)
        for row in manifest.shards
    ]
    _refuse_repeated_uuids(shards)
    held = IdSet()
    lowest: list[int] = []
    for number, shard in enumerate(shards):
        ids = shard.sequence_ids()
        repeated = held.first_held(ids)
        if repeated is not None:
            raise _repeated_id(repeated, shard, shards[:number])
        held.add(ids)
        lowest.append(int(ids.min()) if len(ids) else 1 << 64)
    order = sorted(range(len(shards)), key=lowest.__getitem__)
    return [shards[number] for number in order]


def _refuse_repeated_uuids(shards: list[SourceShard]) -> None:
    seen: dict[str, SourceShard] = {}
    for shard in shards:
        other = seen.setdefault(shard.row.uuid, shard)
        if other is not shard:
            raise MismatchError(
                f"{shard.path} is the same shard as {other.path} (uuid {shard.row.uuid}): "
                "a cache is not merged with its own copy"
            )


def _repeated_id(
    sequence_id: int, shard: SourceShard, before: list[SourceShard]
) -> MismatchError | CorruptionError:
    for other in before:
        if np.any(other.sequence_ids() == np.uint64(sequence_id)):
            return MismatchError(
                f"sequence_id {sequence_id} is in {other.path} and in {shard.path}: "
                "the ids of caches that are merged must not overlap"
            )
    return CorruptionError(f"{sequence_id} is there twice", str(shard.path), None, "sequence_id")
