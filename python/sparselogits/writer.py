"""`CacheWriter`: appends sequences to a cache so that a crash costs nothing that was committed."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal

from sparselogits.append_batch import convert_batch, one_sequence_id
from sparselogits.checks import boolean, integer
from sparselogits.codec_model import CodecModel, model_for
from sparselogits.config import CacheConfig
from sparselogits.directory import DirectoryLock, local_directory
from sparselogits.durable import make_directory
from sparselogits.errors import InvalidArgumentError, SparseLogitsError
from sparselogits.limits import MAX_SHARD_BYTES
from sparselogits.manifest import check_metadata
from sparselogits.resume import open_for_writing
from sparselogits.shard_series import COMMIT_BYTES, SHARD_BYTES, ShardSeries
from sparselogits.writer_guard import WriterGuard

_log = logging.getLogger(__name__)

_LARGEST_SHARD_BYTES = MAX_SHARD_BYTES // 2  # one append may pass shard_bytes


class CacheWriter:
    """Writes a cache. A context manager; safe to share between threads, one call at a time.

    A writer belongs to the process that made it: in a forked child it is closed, holds no lock and
    writes nothing, whatever the parent is doing.

    What was appended before a commit (`flush`, or automatically every `commit_bytes`) survives
    anything that happens after it. Leaving `with` normally finishes the cache. Leaving it by an
    exception commits what was appended and leaves the cache unfinished: `sl.recover(path)` makes
    it readable, `CacheWriter(path, config, resume=True)` goes on after the last sequence.

    Args:
        path: The cache's directory; created, with its parents, where missing.
        config: What is written. On resume it must equal that of the cache.
        metadata: Facts about the cache, str → str. On resume None keeps those of the cache.
        model: For the codec "compact": a `CodecModel`, or the path of one, which all shards use.
            Default: on resume that of the cache; else the writer trains one on its first 250,000
            positions, or on fewer where it closes before, and keeps it if it saves more than it
            takes. "packed" has none.
        resume: Append to what an earlier writer, finished or crashed, left at `path`. With
            nothing there it starts a new cache.
        shard_bytes: A shard is finished when it has grown to this size, 1 to 2^34.
        commit_bytes: How many bytes may be appended between two automatic commits.

    Raises:
        InvalidArgumentError: An argument is wrong, or the directory already holds a cache,
            finished or not, and `resume` is False.
        MismatchError: `resume`, and the cache has another config or metadata; or `model` was
            trained for other records. The error names the field and both values.
        CacheIOError: Another writer is at work there, or the system refused.
        FormatError: `resume`, and what is there is damaged; or `model` is no model.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        config: CacheConfig,
        metadata: Mapping[str, str] | None = None,
        model: CodecModel | str | os.PathLike[str] | None = None,
        *,
        resume: bool = False,
        shard_bytes: int = SHARD_BYTES,
        commit_bytes: int = COMMIT_BYTES,
    ) -> None:
        self._directory = local_directory(path)
        self._guard = WriterGuard(str(self._directory))
        if not isinstance(config, CacheConfig):
            raise InvalidArgumentError(f"config must be a CacheConfig, got {config!r}")
        if config.value_kind == "counts" and config.proposal_temperature != 1.0:
            raise InvalidArgumentError(
                "value_kind must be 'weights' where proposal_temperature is not 1, got 'counts' "
                f"with {config.proposal_temperature}: counts / rounds would estimate the proposal"
            )
        given = model_for(config, model)
        self._config = config
        shard_bytes = integer("shard_bytes", shard_bytes, 1, _LARGEST_SHARD_BYTES)
        commit_bytes = integer("commit_bytes", commit_bytes, 1, _LARGEST_SHARD_BYTES)
        checked = None if metadata is None else check_metadata(metadata)
        resume = boolean("resume", resume)

        make_directory(self._directory)
        self._lock = DirectoryLock(self._directory)
        try:
            state = open_for_writing(self._directory, config, checked, resume)
            self._metadata = state.manifest.metadata
            self._num_sequences = sum(row.sequences for row in state.manifest.shards)
            self._num_positions = sum(row.positions for row in state.manifest.shards)
            self._ids = state.ids
            self._next_id = state.next_id
            self._shards = ShardSeries(
                self._directory,
                state.manifest,
                state.next_number,
                shard_bytes,
                commit_bytes,
                state.model if given is None else given,
            )
        except BaseException:
            self._lock.release()
            raise
        self._guard.is_shut = False

    @property
    def path(self) -> str:
        return str(self._directory)

    @property
    def config(self) -> CacheConfig:
        return self._config

    @property
    def metadata(self) -> dict[str, str]:
        return dict(self._metadata)

    @property
    def num_sequences(self) -> int:
        """Sequences in the cache, those of a resumed one included."""
        return self._num_sequences

    @property
    def num_positions(self) -> int:
        """Positions in the cache, those of a resumed one included."""
        return self._num_positions

    def __contains__(self, sequence_id: object) -> bool:
        """Whether the cache has a sequence of this id."""
        return sequence_id in self._ids

    def append(
        self,
        input_ids: Any,
        offsets: Any,
        token_ids: Any,
        counts: Any = None,
        sequence_id: int | None = None,
        *,
        weights: Any = None,
    ) -> None:
        """Appends one sequence of S positions with E entries in all.

        Position t holds the draws from the teacher's distribution of token t+1 given tokens ≤ t.
        Entries of a position may come in any order and repeat: they are sorted and merged. A
        position may have no entries, a sequence no positions. Arrays are NumPy, lists or torch
        CPU tensors.

        Args:
            input_ids: (S,) integers below vocab_size: the tokens that the teacher read.
            offsets: (S + 1,) integers: position t owns the entries offsets[t] to offsets[t + 1].
            token_ids: (E,) integers below vocab_size.
            counts: (E,) integers ≥ 1 that sum to `rounds` in each position that has entries; in
                counts caches.
            sequence_id: 0 to 2^64 - 1, new to the cache; default: the highest so far plus 1.
            weights: (E,) float32 or float64, finite and ≥ 0; in weights caches.

        Raises:
            InvalidArgumentError: Names what is wrong; nothing was appended.
            CacheIOError: The system refused. The writer takes nothing more; what was committed
                is safe (`sl.recover`).
        """
        ids = one_sequence_id(sequence_id)
        self._append(input_ids, None, offsets, token_ids, counts, weights, ids)

    def append_many(
        self,
        input_ids: Any,
        sequence_offsets: Any,
        offsets: Any,
        token_ids: Any,
        counts: Any = None,
        sequence_ids: Any = None,
        *,
        weights: Any = None,
    ) -> None:
        """Appends n sequences in one call: all of them, or none where one is wrong.

        Args:
            input_ids: (T,) tokens of all sequences, one after the other.
            sequence_offsets: (n + 1,) integers: sequence i owns the positions
                sequence_offsets[i] to sequence_offsets[i + 1].
            offsets: (T + 1,) as for `append`, over all positions.
            token_ids, counts, weights: (E,) as for `append`.
            sequence_ids: (n,) as for `append`.

        Raises:
            InvalidArgumentError, CacheIOError: As for `append`.
        """
        if sequence_offsets is None:
            raise InvalidArgumentError("sequence_offsets must be (n + 1,) integers, got None")
        self._append(input_ids, sequence_offsets, offsets, token_ids, counts, weights, sequence_ids)

    def flush(self) -> None:
        """Commits: what was appended survives anything from here on.

        Raises:
            CacheIOError: The system refused. The writer takes nothing more.
        """
        with self._guard.mutex:
            self._guard.check_usable()
            with self._guard.failing():
                self._shards.commit()

    def close(self) -> None:
        """Finishes the cache: its manifest says `complete`. Idempotent.

        Raises:
            CacheIOError: The system refused, now or in an earlier call: the cache is unfinished,
                what was committed is safe (`sl.recover`).
        """
        with self._guard.mutex:
            if self._guard.is_shut:
                return
            try:
                self._guard.check_usable()
                with self._guard.failing():
                    self._shards.finish()
            finally:
                self._abandon()

    def __enter__(self) -> CacheWriter:
        with self._guard.mutex:
            self._guard.check_usable()
            return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Literal[False]:
        if kind is None:
            self.close()
        else:
            self._leave_unfinished(kind.__name__)
        return False

    def __del__(self) -> None:
        guard = getattr(self, "_guard", None)  # None where the path was refused
        if guard is not None and not guard.is_shut:
            self._abandon()
            warnings.warn(
                f"CacheWriter({self.path!r}) was not closed: what was appended after its last "
                "commit is lost, the rest waits for sl.recover",
                ResourceWarning,
                stacklevel=2,
            )

    def __repr__(self) -> str:
        state = "closed" if self._guard.is_shut else "failed" if self._guard.has_failed else "open"
        return f"CacheWriter({self.path!r}, {state}, {self.num_sequences} sequences)"

    def _append(
        self,
        input_ids: Any,
        sequence_offsets: Any,
        offsets: Any,
        token_ids: Any,
        counts: Any,
        weights: Any,
        sequence_ids: Any,
    ) -> None:
        with self._guard.mutex:
            self._guard.check_usable()
            batch = convert_batch(
                self._config.value_kind,
                self._next_id,
                input_ids,
                sequence_offsets,
                offsets,
                token_ids,
                counts,
                weights,
                sequence_ids,
            )
            held = self._ids.first_held(batch.sequence_ids)
            if held is not None:
                where = "in the cache" if held in self._ids else "given"
                raise InvalidArgumentError(f"sequence_id {held} is already {where}")
            with self._guard.failing():
                self._shards.append(batch)
                self._ids.add(batch.sequence_ids)
                self._num_sequences += len(batch.sequence_ids)
                self._num_positions += len(batch.input_ids)
                if len(batch.sequence_ids):
                    self._next_id = max(self._next_id, int(batch.sequence_ids.max()) + 1)
                self._shards.settle()

    def _leave_unfinished(self, reason: str) -> None:
        """After an exception in `with`: keeps everything that was appended, finishes nothing."""
        with self._guard.mutex:
            if self._guard.is_shut:
                return
            note = ""
            try:
                if not self._guard.is_broken:
                    self._shards.leave()
            except SparseLogitsError as error:
                note = f" What was appended after the last commit is lost: {error}."
            sequences = self.num_sequences
            self._abandon()
            if sequences:
                _log.warning(
                    "%s ended the writing of %s: the cache is unfinished.%s sl.recover(path) "
                    "makes it readable; CacheWriter(..., resume=True) goes on.",
                    reason,
                    self.path,
                    note,
                )

    def _abandon(self) -> None:
        """Lets go of everything, whatever state it is in."""
        self._guard.is_shut = True
        self._shards.abandon()
        self._lock.release()
