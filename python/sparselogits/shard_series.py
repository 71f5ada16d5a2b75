"""The shards that a writer fills, one after the other, and the manifest that lists them."""

from __future__ import annotations

import contextlib
from pathlib import Path

from sparselogits import _core
from sparselogits.append_batch import AppendBatch
from sparselogits.directory import PARTIAL_SUFFIX, shard_name
from sparselogits.durable import file_sha256, io_error, sync_directory
from sparselogits.errors import SparseLogitsError
from sparselogits.manifest import Manifest, ShardRow, metadata_json


class ShardSeries:
    """Appends to an open shard, commits it, and rolls over to the next one.

    Args:
        directory: The cache's directory, locked by the caller.
        manifest: What the cache holds already.
        next_number: Of the first new shard.
        shard_bytes: A shard is finished when it has grown to this size.
        commit_bytes: Bytes between two automatic commits.

    Raises:
        CacheIOError: From every method; the open shard keeps what was committed.
    """

    def __init__(
        self,
        directory: Path,
        manifest: Manifest,
        next_number: int,
        shard_bytes: int,
        commit_bytes: int,
    ) -> None:
        self._directory = directory
        self._config = manifest.config
        self._core_config = manifest.config.to_core()
        self._metadata = manifest.metadata
        self._rows = list(manifest.shards)
        self._next_number = next_number
        self._shard_bytes = shard_bytes
        self._commit_bytes = commit_bytes
        self._shard: _core.ShardWriter | None = self._create()

    def append(self, batch: AppendBatch) -> None:
        """Takes all sequences of a batch, or none where one is not valid.

        Raises:
            InvalidArgumentError: Names what is wrong.
        """
        if self._shard is not None and not self._shard.has_room(
            len(batch.input_ids), len(batch.sequence_ids), len(batch.token_ids)
        ):
            self._finish_shard(self._shard)
        if self._shard is None:
            self._shard = self._create()
        self._shard.append(
            batch.input_ids,
            batch.sequence_offsets,
            batch.offsets,
            batch.token_ids,
            batch.counts,
            batch.weights,
            batch.sequence_ids,
            batch.fingerprints,
        )

    def settle(self) -> None:
        """After an append: finishes a shard that is large enough, commits what is due."""
        shard = self._shard
        if shard is None:
            return
        if shard.bytes_written >= self._shard_bytes:
            self._finish_shard(shard)
        elif shard.uncommitted_bytes >= self._commit_bytes:
            shard.commit()

    def commit(self) -> None:
        """Makes everything appended so far durable."""
        if self._shard is not None:
            self._shard.commit()

    def finish(self) -> None:
        """Finishes the open shard and the manifest, which then says `complete`."""
        if self._shard is not None:
            self._finish_shard(self._shard)
        self._manifest(complete=True).write(self._directory)

    def leave(self) -> None:
        """Commits the open shard and keeps it unfinished; an empty one is removed."""
        if self._shard is not None and self._shard.num_sequences:
            self._shard.commit()
        elif self._shard is not None:
            self._remove_empty(self._shard)

    def abandon(self) -> None:
        """Closes the open shard as it is, whatever its state. Idempotent; raises nothing."""
        shard, self._shard = self._shard, None
        if shard is not None:
            with contextlib.suppress(SparseLogitsError, OSError):
                shard.abandon()

    def _create(self) -> _core.ShardWriter:
        self._final_path = self._directory / shard_name(self._next_number)
        self._partial_path = Path(f"{self._final_path}{PARTIAL_SUFFIX}")
        shard = _core.ShardWriter(
            str(self._partial_path), self._core_config, metadata_json(self._metadata)
        )
        self._next_number += 1
        return shard

    def _finish_shard(self, shard: _core.ShardWriter) -> None:
        """Seals the open shard and lists it; an empty one is removed instead."""
        if shard.num_sequences == 0:
            self._remove_empty(shard)
            return
        uuid = shard.uuid
        totals = (shard.num_sequences, shard.num_positions, shard.num_entries)
        shard.finish(str(self._final_path))
        self._shard = None
        try:
            size = self._final_path.stat().st_size
        except OSError as error:
            raise io_error(error, "cannot find the finished shard", self._final_path) from error
        sha256 = file_sha256(self._final_path)
        self._rows.append(ShardRow(self._final_path.name, uuid, size, *totals, sha256))
        self._manifest(complete=False).write(self._directory)

    def _remove_empty(self, shard: _core.ShardWriter) -> None:
        shard.abandon()
        self._shard = None
        self._next_number -= 1
        try:
            self._partial_path.unlink(missing_ok=True)
            sync_directory(self._directory)
        except OSError as error:
            raise io_error(error, "cannot remove the empty shard", self._partial_path) from error

    def _manifest(self, complete: bool) -> Manifest:
        return Manifest(self._config, self._metadata, tuple(self._rows), complete)
