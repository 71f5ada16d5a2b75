"""`open` and `Cache`: reading, from any thread or process, in any order."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from sparselogits.arrays import integer_array
from sparselogits.cache_models import sound_models
from sparselogits.checks import boolean, integer
from sparselogits.codec_model import CodecModel
from sparselogits.config import CacheConfig
from sparselogits.directory import local_directory
from sparselogits.errors import (
    InvalidArgumentError,
    MismatchError,
    SequenceNotFoundError,
)
from sparselogits.manifest import Manifest
from sparselogits.readable import readable_manifest
from sparselogits.sequence_table import SequenceTable
from sparselogits.shard_set import open_shards
from sparselogits.sparse import SparseLogits, weights_of_counts
from sparselogits.verify import VerifyReport, verify_cache

_MAX_INDEX = (1 << 62) - 1
_DIGEST = re.compile(r"[0-9a-f]{64}")


def open(
    path: str | os.PathLike[str], *, verify_checksums: bool = True, digest: str | None = None
) -> Cache:
    """Opens a cache for reading and validates its manifest, its models and its shards' structure.

    An unfinished cache that has been recovered opens too; its `complete` is False.

    Args:
        path: The cache's directory.
        verify_checksums: Whether a block's checksum is compared when it is first read. Bounds are
            checked in any case.
        digest: `Cache.digest` of the cache that is meant: another one is refused.

    Raises:
        CacheIOError: There is no cache, only an unfinished one, or the system refused.
        FormatError: Something there is damaged, foreign or newer; names file, offset and field.
        MismatchError: The cache has another digest.
        InvalidArgumentError: `path` is not a local path, or `digest` not 64 hex digits.
    """
    if digest is not None and not (isinstance(digest, str) and _DIGEST.fullmatch(digest)):
        raise InvalidArgumentError(f"digest must be 64 lower-case hex digits, got {digest!r}")
    return Cache(local_directory(path), boolean("verify_checksums", verify_checksums), digest)


class Cache:
    """An open cache, from `sparselogits.open`: a sequence of `SparseLogits`.

    Safe to use from several threads at once and after a fork. Pickling stores the path and the
    digest: unpickling opens the cache again and refuses one that has changed.
    """

    def __init__(self, directory: Path, verify_checksums: bool, digest: str | None = None) -> None:
        self._directory = directory
        self._verify_checksums = verify_checksums
        self._manifest = readable_manifest(directory)
        if digest is not None and digest != self._manifest.digest:
            raise MismatchError(
                f"{directory} has changed: its digest is {self._manifest.digest}, not {digest}"
            )
        models = sound_models(directory, self._manifest)
        self._models = tuple(map(CodecModel, models))
        self._reader = open_shards(directory, self._manifest, verify_checksums, models)
        self._table: SequenceTable | None = None

    @property
    def path(self) -> str:
        """The absolute path of the directory."""
        return str(self._directory)

    @property
    def config(self) -> CacheConfig:
        return self._manifest.config

    @property
    def metadata(self) -> dict[str, str]:
        return dict(self._manifest.metadata)

    @property
    def manifest(self) -> Manifest:
        return self._manifest

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest, which names every shard with its own: 64 hex digits."""
        return self._manifest.digest

    @property
    def complete(self) -> bool:
        """Whether a writer closed this cache; False while one is at work and after a recovery."""
        return self._manifest.complete

    @property
    def nbytes(self) -> int:
        """Bytes of all files of the cache: the manifest, the shards and the models."""
        return self._manifest.cache_bytes

    @property
    def models(self) -> tuple[CodecModel, ...]:
        """What the shards of a compact cache are coded with; empty where none needs one."""
        return self._models

    @property
    def num_sequences(self) -> int:
        return self._reader.num_sequences

    @property
    def num_positions(self) -> int:
        return self._reader.num_positions

    @property
    def num_entries(self) -> int:
        return self._reader.num_entries

    @property
    def sequence_ids(self) -> npt.NDArray[np.uint64]:
        """(n,) uint64, in the order of the cache. Read-only."""
        return self._sequences().ids

    @property
    def sequence_lengths(self) -> npt.NDArray[np.int64]:
        """(n,) int64, in positions."""
        return np.diff(self._sequences().starts)

    @property
    def sequence_starts(self) -> npt.NDArray[np.int64]:
        """(n + 1,) int64: the global position at which each sequence starts. Read-only."""
        return self._sequences().starts

    @property
    def fingerprints(self) -> npt.NDArray[np.uint64]:
        """(n,) uint64: `fingerprint_tokens` of each sequence's input tokens. Read-only."""
        return self._sequences().fingerprints

    def __len__(self) -> int:
        return self._reader.num_sequences

    def __contains__(self, sequence_id: object) -> bool:
        """Whether the cache has a sequence of this id."""
        return self._sequences().find(sequence_id) is not None

    def __iter__(self) -> Iterator[SparseLogits]:
        return (self.read(index) for index in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> SparseLogits: ...
    @overload
    def __getitem__(self, index: slice) -> list[SparseLogits]: ...
    def __getitem__(self, index: int | slice) -> SparseLogits | list[SparseLogits]:
        """The sequence at an index, from the end where negative; a list of them for a slice.

        Raises:
            SequenceNotFoundError: Out of range; also an IndexError.
        """
        if isinstance(index, slice):
            return [self.read(i) for i in range(*index.indices(len(self)))]
        number = integer("index", index, -_MAX_INDEX, _MAX_INDEX)
        return self.read(number + len(self) if -len(self) <= number < 0 else number)

    def read(self, index: int, start: int = 0, stop: int | None = None) -> SparseLogits:
        """Positions start to stop (excluded; None: the end) of the sequence at an index.

        Raises:
            SequenceNotFoundError: `index` is not from 0 to len - 1.
            InvalidArgumentError: Not 0 ≤ start ≤ stop ≤ length of the sequence.
            CorruptionError: A block is damaged.
        """
        number = integer("index", index, -_MAX_INDEX, _MAX_INDEX)
        self._check_indices(np.array([number], np.int64))
        first = integer("start", start, 0, _MAX_INDEX)
        last = -1 if stop is None else integer("stop", stop, first, _MAX_INDEX)
        return self._read_sequences(np.array([number], np.int64), first, last)

    def read_sequences(self, indices: npt.ArrayLike) -> SparseLogits:
        """Several whole sequences, in the order of `indices` (n,), in one call of the core.

        Raises:
            SequenceNotFoundError: An index is not from 0 to len - 1.
            InvalidArgumentError: `indices` is not one-dimensional or not integers.
            CorruptionError: A block is damaged.
        """
        wanted = integer_array("indices", indices)
        self._check_indices(wanted)
        return self._read_sequences(wanted, 0, -1)

    def read_positions(self, positions: npt.ArrayLike) -> SparseLogits:
        """Any positions, in the order of the (n,) global indices given; O(1) each.

        Position t of the sequence at index i is `sequence_starts[i] + t`.

        Raises:
            InvalidArgumentError: Not one-dimensional, not integers, or an index is not from 0 to
                num_positions - 1.
            CorruptionError: A block is damaged.
        """
        wanted = integer_array("positions", positions)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= self.num_positions):
            wrong = wanted.min() if wanted.min() < 0 else wanted.max()
            raise InvalidArgumentError(
                f"positions must be from 0 to {self.num_positions - 1}, got {wrong}"
            )
        offsets, token_ids, counts, weights, input_ids = self._reader.read_positions(wanted)
        return self._result(offsets, token_ids, counts, weights, input_ids)

    def index_of(self, sequence_id: int) -> int:
        """The index of the sequence with this id.

        Raises:
            SequenceNotFoundError: There is none.
        """
        index = self._sequences().find(sequence_id)
        if index is None:
            raise SequenceNotFoundError(f"{self.path} has no sequence_id {sequence_id!r}")
        return index

    def verify(
        self,
        progress: Callable[[int, int], None] | None = None,
        *,
        keep_going: bool = False,
        num_threads: int | None = None,
    ) -> VerifyReport:
        """Reads every byte and checks all that the format promises: see `sparselogits.verify`.

        Raises:
            FormatError: The first fault; names file, offset, field, reason and sequences.
            MismatchError: The manifest has changed since the cache was opened.
        """
        return verify_cache(
            self._directory,
            self.digest,
            keep_going=keep_going,
            num_threads=num_threads,
            progress=progress,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return Cache, (self._directory, self._verify_checksums, self.digest)

    def __repr__(self) -> str:
        config = self.config
        return (
            f"Cache({self.path!r}, {len(self)} sequences, {self.num_positions} positions, "
            f"{config.value_kind} of {config.rounds} {config.sampler} rounds, "
            f"vocabulary of {config.vocab_size}{'' if self.complete else ', incomplete'})"
        )

    def _check_indices(self, indices: npt.NDArray[np.int64]) -> None:
        if indices.size and (indices.min() < 0 or indices.max() >= len(self)):
            wrong = indices.min() if indices.min() < 0 else indices.max()
            raise SequenceNotFoundError(
                f"{self.path} has {len(self)} sequences, there is no index {wrong}"
            )

    def _read_sequences(
        self, indices: npt.NDArray[np.int64], start: int, stop: int
    ) -> SparseLogits:
        offsets, token_ids, counts, weights, input_ids, sequence_offsets = (
            self._reader.read_sequences(indices, start, stop)
        )
        ids = self._sequences().ids[indices]
        return self._result(
            offsets,
            token_ids,
            counts,
            weights,
            input_ids,
            sequence_id=int(ids[0]) if len(ids) == 1 else None,
            sequence_ids=ids,
            sequence_offsets=sequence_offsets,
        )

    def _result(
        self,
        offsets: npt.NDArray[np.int64],
        token_ids: npt.NDArray[np.int32],
        counts: npt.NDArray[np.uint16] | None,
        weights: npt.NDArray[np.float32] | None,
        input_ids: npt.NDArray[np.int32] | None,
        **sequences: Any,
    ) -> SparseLogits:
        config = self.config
        if weights is None:
            assert counts is not None
            weights = weights_of_counts(counts, config.rounds)
        return SparseLogits(
            offsets,
            token_ids,
            counts,
            weights,
            config.rounds,
            config.vocab_size,
            input_ids,
            **sequences,
        )

    def _sequences(self) -> SequenceTable:
        table = self._table
        if table is None:  # two threads may both read it: a fork could copy a lock that is held
            self._table = table = SequenceTable(*self._reader.sequence_table())
        return table
