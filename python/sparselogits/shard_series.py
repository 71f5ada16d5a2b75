"""The shards that a writer fills, one after the other, and the manifest that lists them."""

from __future__ import annotations

import contextlib
from pathlib import Path

from sparselogits import _core
from sparselogits.append_batch import AppendBatch
from sparselogits.cache_models import write_model
from sparselogits.directory import PARTIAL_SUFFIX, shard_name
from sparselogits.durable import io_error, sync_directory
from sparselogits.errors import SparseLogitsError
from sparselogits.finished_shard import finished_row
from sparselogits.manifest import Manifest, ShardRow, metadata_json
from sparselogits.training_shard import Train, holds_enough, recode_shard

#: When a shard is finished, and how much lies between two automatic commits, if nobody says.
SHARD_BYTES = 1 << 30
COMMIT_BYTES = 64 << 20


class ShardSeries:
    """Appends to an open shard, commits it, and rolls over to the next one.

    Args:
        directory: The cache's directory, locked by the caller.
        manifest: What the cache holds already.
        next_number: Of the first new shard.
        shard_bytes: A shard is finished when it has grown to this size.
        commit_bytes: Bytes between two automatic commits.
        model: Of the compact codec, for all shards; it is stored at once. Without one, the first
            shards are training shards, until a model saves more than it takes.
        train: Makes that model; default: trains it on the training shard.

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
        model: _core.CodecModel | None = None,
        train: Train | None = None,
    ) -> None:
        self._directory = directory
        self._config = manifest.config
        self._core_config = manifest.config.to_core()
        self._metadata = manifest.metadata
        self._rows = list(manifest.shards)
        self._next_number = next_number
        self._shard_bytes = shard_bytes
        self._commit_bytes = commit_bytes
        self._models = {row.file: row for row in manifest.models}
        self._model = model
        self._model_row = None if model is None else write_model(directory, model)
        self._train = train
        self._tried = 0  # positions of the last training shard that gave no model
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
        batch.append_to(self._shard)

    def settle(self) -> None:
        """After an append: finishes a shard that is large enough, commits what is due."""
        shard = self._shard
        if shard is None:
            return
        if shard.bytes_written >= self._shard_bytes or (
            self._is_training and holds_enough(shard, self._tried)
        ):
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
            self._finish_shard(self._shard, is_last=True)
        self._remove_unused_model()
        self._manifest(complete=True).write(self._directory)

    def leave(self) -> None:
        """Commits the open shard and keeps it unfinished; an empty one is removed."""
        if self._shard is not None and self._shard.num_sequences:
            self._shard.commit()
        elif self._shard is not None:
            self._remove_empty(self._shard)
            self._remove_unused_model()

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
            str(self._partial_path), self._core_config, metadata_json(self._metadata), self._model
        )
        self._next_number += 1
        return shard

    def _finish_shard(self, shard: _core.ShardWriter, is_last: bool = False) -> None:
        """Seals the open shard and lists it; an empty one is removed instead."""
        if shard.num_sequences == 0:
            self._remove_empty(shard)
            return
        uuid = shard.uuid
        totals = (shard.num_sequences, shard.num_positions, shard.num_entries)
        shard.finish(str(self._final_path))
        self._shard = None
        row = finished_row(self._final_path, self._final_path.name, uuid, totals)
        if self._is_training and row.positions >= 2 * self._tried:
            row = self._taught(row, is_last)
        if self._model_row is not None:
            self._models[self._model_row.file] = self._model_row
        self._rows.append(row)
        self._manifest(complete=False).write(self._directory)

    @property
    def _is_training(self) -> bool:
        return self._config.codec == "compact" and self._model is None

    def _taught(self, row: ShardRow, is_last: bool) -> ShardRow:
        """The training shard after a model was made of it, if one is worth its bytes."""
        packed = Manifest(self._config, self._metadata, (row,))
        recoded = recode_shard(self._directory, packed, self._train, is_last=is_last)
        if recoded is None:
            self._tried = row.positions
            return row
        self._model, self._model_row, row = recoded
        return row

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
        return Manifest(
            self._config,
            self._metadata,
            tuple(self._rows),
            complete,
            models=tuple(sorted(self._models.values())),
        )

    def _remove_unused_model(self) -> None:
        row = self._model_row
        if row is None or row.file in self._models:
            return
        try:
            (self._directory / row.file).unlink(missing_ok=True)
        except OSError as error:
            raise io_error(error, "cannot remove the unused model", row.file) from error
