"""`open` and `Cache`: reading, from any thread or process, in any order."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from sparselogits.arrays import integer_array
from sparselogits.cache_facts import CacheFacts
from sparselogits.checks import boolean, integer
from sparselogits.directory import local_directory
from sparselogits.errors import InvalidArgumentError, SequenceNotFoundError
from sparselogits.local_shards import LocalShards
from sparselogits.manifest import shard_path
from sparselogits.remote.location import is_url
from sparselogits.sequence_table import SequencePlaces, SequenceTable
from sparselogits.shard_access import ShardAccess
from sparselogits.sparse import SparseLogits, sparse_logits
from sparselogits.verify import VerifyReport, verify_files

if TYPE_CHECKING:
    from sparselogits.remote.open_cache import RemotePlace

_MAX_INDEX = (1 << 62) - 1
_DIGEST = re.compile(r"[0-9a-f]{64}")

T = TypeVar("T")


def open(
    path: str | os.PathLike[str],
    *,
    verify_checksums: bool = True,
    digest: str | None = None,
    local_cache: str | os.PathLike[str] | None = None,
    local_cache_bytes: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
    num_fetchers: int | None = None,
) -> Cache:
    """Opens a cache for reading and validates its manifest, its models and its shards' structure.

    An unfinished cache that has been recovered opens too; its `complete` is False.

    At a URL, a shard is fetched when it is first read, compared with its SHA-256, and validated
    then. The last four arguments are for URLs alone (docs/remote.md).

    Args:
        path: The cache's directory, or a URL for fsspec: `s3://…`, `hf://…`, `file://…`.
        verify_checksums: Whether a block's checksum is compared when it is first read. Bounds are
            checked in any case.
        digest: `Cache.digest` of the cache that is meant: another one is refused.
        local_cache: The directory for fetched shards, of any number of caches and processes.
            Default: SPARSELOGITS_CACHE, else `sparselogits` in the user's cache directory.
        local_cache_bytes: What the shards there may add up to. Default: 64 GiB.
        storage_options: What fsspec's file system takes: credentials, an endpoint. Default: what
            the environment says.
        num_fetchers: Shards fetched at a time. Default: 4.

    Raises:
        CacheIOError: There is no cache, only an unfinished one, or the system refused. At a URL:
            it cannot be fetched; names the URL, the attempts and the cause.
        FormatError: Something there is damaged, foreign or newer; names file, offset and field.
        MismatchError: The cache has another digest.
        InvalidArgumentError: An argument is wrong, or a package is missing that the URL needs.
    """
    if digest is not None and not (isinstance(digest, str) and _DIGEST.fullmatch(digest)):
        raise InvalidArgumentError(f"digest must be 64 lower-case hex digits, got {digest!r}")
    place: Path | RemotePlace
    if is_url(path):
        from sparselogits.remote.open_cache import remote_place

        place = remote_place(
            str(path), local_cache, local_cache_bytes, storage_options, num_fetchers
        )
    else:
        place = local_directory(path)
    return Cache(place, boolean("verify_checksums", verify_checksums), digest)


class Cache(CacheFacts):
    """An open cache, from `sparselogits.open`: a sequence of `SparseLogits`.

    Safe to use from several threads at once and after a fork. Pickling stores the path (of a remote
    cache all options too, credentials among them) and the digest: unpickling opens the cache again
    and refuses one that has changed.
    """

    def __init__(
        self, place: Path | RemotePlace, verify_checksums: bool, digest: str | None = None
    ) -> None:
        super().__init__(_shard_access(place, verify_checksums, digest))
        self._place = place
        self._verify_checksums = verify_checksums
        self._table: SequenceTable | None = None

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
        return sparse_logits(
            self.config,
            *self._shards.reading(
                lambda: self._shards.bounds.of_positions(wanted),
                lambda: self._reader.read_positions(wanted),
            ),
        )

    def prefetch(self, sequence_indices: npt.ArrayLike) -> None:
        """Has the shards of these sequences fetched, in this order, by threads of their own.

        Returns at once. What does not fit into the local cache beside shards that are in use or
        were fetched ahead is fetched when it is read. Nothing to do for a local cache.

        Raises:
            SequenceNotFoundError: An index is not from 0 to len - 1.
            InvalidArgumentError: Not one-dimensional or not integers.
        """
        wanted = integer_array("sequence_indices", sequence_indices)
        self._check_indices(wanted)
        self._shards.prefetch(wanted)

    def index_of(self, sequence_id: int) -> int:
        """The index of the sequence with this id.

        Raises:
            SequenceNotFoundError: There is none.
        """
        index = self._sequences().find(sequence_id)
        if index is None:
            raise SequenceNotFoundError(f"{self.path} has no sequence_id {sequence_id!r}")
        return index

    def length_of(self, index: int) -> int:
        """Positions of the sequence at an index, without the table of all.

        Raises:
            SequenceNotFoundError: `index` is not from 0 to len - 1.
        """
        return int(self._places(index).lengths[0])

    def fingerprint_of(self, index: int) -> int:
        """`fingerprint_tokens` of the sequence at an index, without the table of all.

        Raises:
            SequenceNotFoundError: `index` is not from 0 to len - 1.
        """
        return int(self._places(index).fingerprints[0])

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
        return verify_files(
            self._shards.files_to_verify(),
            keep_going=keep_going,
            num_threads=num_threads,
            progress=progress,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return Cache, (self._place, self._verify_checksums, self.digest)

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
        reader = self._reader
        read, places = self._shards.reading(
            lambda: self._shards_of(indices),
            lambda: (reader.read_sequences(indices, start, stop), reader.places(indices)),
        )
        offsets, token_ids, counts, weights, input_ids, sequence_offsets = read
        ids = places[0]
        return sparse_logits(
            self.config,
            offsets,
            token_ids,
            counts,
            weights,
            input_ids,
            sequence_id=int(ids[0]) if len(ids) == 1 else None,
            sequence_ids=ids,
            sequence_offsets=sequence_offsets,
        )

    def _sequences(self) -> SequenceTable:
        table = self._table
        if table is None:  # two threads may both read it: a fork could copy a lock that is held
            self._table = table = self._shards.sequence_table()
        return table

    def _places(self, indices: npt.ArrayLike) -> SequencePlaces:
        """What is known of these sequences, from their shards alone."""
        wanted = integer_array("indices", np.atleast_1d(indices))
        self._check_indices(wanted)
        return SequencePlaces(
            *self._shards.reading(
                lambda: self._shards_of(wanted), lambda: self._reader.places(wanted)
            )
        )

    def _shards_of(self, indices: npt.NDArray[np.int64]) -> list[int]:
        """The numbers of the shards that hold these sequences. REQUIRES: they are there."""
        return self._shards.bounds.of_sequences(indices)

    def _reading_shard(self, number: int, read: Callable[[Path], T]) -> T:
        """Does `read` with the file of a shard."""
        directory, file = self._shards.shard_directory, self._manifest.shards[number].file
        return self._shards.reading(lambda: [number], lambda: read(shard_path(directory, file)))

    def _hold(
        self, shards: Sequence[int], *, wait: bool = True
    ) -> AbstractContextManager[object] | None:
        """Keeps shards readable until the result's `__exit__`: see `ShardAccess.hold`."""
        return self._shards.hold(shards, wait=wait)


def _shard_access(
    place: Path | RemotePlace, verify_checksums: bool, digest: str | None
) -> ShardAccess:
    if isinstance(place, Path):
        return LocalShards(place, verify_checksums, digest)
    from sparselogits.remote.open_cache import RemoteCache

    return RemoteCache(place, verify_checksums, digest)
