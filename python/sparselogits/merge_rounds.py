"""`merge(..., rounds="add")`: draws of the same positions become one sample of all their rounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sparselogits.agreement import check_same_config
from sparselogits.append_batch import AppendBatch
from sparselogits.config import CacheConfig
from sparselogits.directory import DirectoryLock
from sparselogits.durable import make_directory
from sparselogits.errors import (
    FingerprintMismatchError,
    InvalidArgumentError,
    MismatchError,
)
from sparselogits.limits import MAX_ROUNDS
from sparselogits.manifest import Manifest, check_metadata
from sparselogits.merge_metadata import merged_metadata
from sparselogits.reader import Cache
from sparselogits.repack_tokens import RepackTokens
from sparselogits.resume import open_for_writing
from sparselogits.round_sources import KEYS_OF_DRAWS, added_draws
from sparselogits.sequence_runs import BATCH_BYTES, memory_of, sequence_runs
from sparselogits.sequence_table import SequenceTable
from sparselogits.shard_series import COMMIT_BYTES, SHARD_BYTES, ShardSeries
from sparselogits.sparse import SparseLogits

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class RoundSum:
    """Caches that add up, and what their sum is.

    Attributes:
        caches: Two or more. The sum has the order, the tokens and the codec of the first.
        indices: For each cache, (n,) int64: where it has the first one's sequences.
        config, metadata: Of the sum.
    """

    caches: tuple[Cache, ...]
    indices: tuple[npt.NDArray[np.int64], ...]
    config: CacheConfig
    metadata: dict[str, str]


def plan_sum(sources: Sequence[tuple[Path, Manifest]], given: Mapping[str, str]) -> RoundSum:
    """Makes sure that the sum of these caches is a sample, and of the same sequences.

    Raises:
        InvalidArgumentError: Their draws do not add up to a sample; says why.
        MismatchError: They differ in more than their draws; names the field and both values.
        FormatError, CacheIOError: A source is damaged or cannot be read.
    """
    if len(sources) < 2:
        raise InvalidArgumentError("rounds='add' needs at least two caches, got one")
    first_directory, first = sources[0]
    for directory, manifest in sources[1:]:
        same = replace(manifest.config, rounds=first.config.rounds)
        check_same_config(first.config, same, str(directory), str(first_directory))
    draws = added_draws(sources)
    shared = [(directory, _without_draws(manifest)) for directory, manifest in sources]
    facts = merged_metadata(shared, given)
    for key in KEYS_OF_DRAWS & given.keys():
        raise InvalidArgumentError(
            f"metadata[{key!r}] says what was drawn: it cannot be given with rounds='add'"
        )
    rounds = sum(manifest.config.rounds for _, manifest in sources)
    if rounds > MAX_ROUNDS:
        raise InvalidArgumentError(f"the rounds add up to {rounds}: the limit is {MAX_ROUNDS}")
    caches = tuple(
        Cache(directory, verify_checksums=True, digest=manifest.digest)
        for directory, manifest in sources
    )
    return RoundSum(
        caches=caches,
        indices=tuple(_places(caches[0], cache) for cache in caches),
        config=replace(first.config, rounds=rounds),
        metadata=check_metadata({**facts, **draws}),
    )


def write_sum(plan: RoundSum, directory: Path, progress: Progress | None) -> None:
    """Writes the cache of a plan into a missing directory.

    Raises:
        MismatchError: A position has draws in one cache and none in another.
        FormatError, CacheIOError: A source is damaged, or the system refused.
    """
    make_directory(directory)
    with DirectoryLock(directory):
        state = open_for_writing(directory, plan.config, plan.metadata, resume=False)
        series = ShardSeries(
            directory, state.manifest, state.next_number, SHARD_BYTES, COMMIT_BYTES
        )
        try:
            total, done = plan.caches[0].num_positions, 0
            for batch in _batches(plan):
                series.append(batch)
                series.settle()
                done += len(batch.input_ids)
                if progress is not None:
                    progress(done, total)
            series.finish()
        finally:
            series.abandon()
    made = Cache(directory, verify_checksums=True)  # opens, so its structure is sound
    if not all(cache.complete for cache in plan.caches):
        replace(made.manifest, complete=False).write(directory)


def _without_draws(manifest: Manifest) -> Manifest:
    kept = {key: value for key, value in manifest.metadata.items() if key not in KEYS_OF_DRAWS}
    return replace(manifest, metadata=kept)


def _places(first: Cache, other: Cache) -> npt.NDArray[np.int64]:
    """Where `other` has the sequences of `first`, which must be the same ones.

    Raises:
        MismatchError: They are not, or FingerprintMismatchError; names a sequence_id.
    """
    table = SequenceTable(other.sequence_ids, other.sequence_starts, other.fingerprints)
    places = table.find_all(first.sequence_ids)
    if (places < 0).any():
        missing = first.sequence_ids[places < 0][0]
        raise MismatchError(f"{other.path} has no sequence_id {missing}, which {first.path} has")
    if len(other) > len(first):
        extra = np.setdiff1d(other.sequence_ids, first.sequence_ids)[0]
        raise MismatchError(f"{first.path} has no sequence_id {extra}, which {other.path} has")
    for name, kind, of_first, of_other in (
        ("length", MismatchError, first.sequence_lengths, other.sequence_lengths[places]),
        ("fingerprint", FingerprintMismatchError, first.fingerprints, other.fingerprints[places]),
    ):
        differ = np.flatnonzero(of_first != of_other)
        if len(differ):
            at = differ[0]
            raise kind(
                f"sequence_id {first.sequence_ids[at]}: its {name} in {first.path} is "
                f"{_shown(name, of_first[at])}, not {_shown(name, of_other[at])} as in {other.path}"
            )
    return places


def _shown(name: str, value: np.generic) -> str:
    return f"{int(value):016x}" if name == "fingerprint" else str(value)


def _batches(plan: RoundSum) -> Iterator[AppendBatch]:
    first = plan.caches[0]
    tokens = RepackTokens(first, plan.config.store_tokens, None)
    per_position = sum(cache.num_entries for cache in plan.caches) / max(1, first.num_positions)
    sizes = memory_of(first.sequence_lengths, per_position)
    for start, stop in sequence_runs(sizes, BATCH_BYTES):
        parts = [
            cache.read_sequences(indices[start:stop])
            for cache, indices in zip(plan.caches, plan.indices, strict=True)
        ]
        _check_empty_positions(plan, parts)
        offsets, token_ids, counts = _side_by_side(parts)
        indices = plan.indices[0][start:stop]
        sequence_offsets = parts[0].sequence_offsets
        assert sequence_offsets is not None
        yield AppendBatch(
            input_ids=tokens.of(indices, parts[0])
            if tokens.are_at_hand
            else np.zeros(parts[0].num_positions, np.int64),
            sequence_offsets=sequence_offsets,
            offsets=offsets,
            token_ids=token_ids,
            counts=counts,
            weights=None,
            sequence_ids=first.sequence_ids[indices],
            fingerprints=None if tokens.are_at_hand else first.fingerprints[indices],
        )


def _check_empty_positions(plan: RoundSum, parts: list[SparseLogits]) -> None:
    empty = [np.diff(part.offsets) == 0 for part in parts]
    for cache, other in zip(plan.caches[1:], empty[1:], strict=True):
        differ = np.flatnonzero(other != empty[0])
        if not len(differ):
            continue
        starts, ids = parts[0].sequence_offsets, parts[0].sequence_ids
        assert starts is not None
        assert ids is not None
        number = int(np.searchsorted(starts, differ[0], side="right")) - 1
        with_draws = (plan.caches[0], cache)
        have, lack = with_draws if other[differ[0]] else with_draws[::-1]
        raise MismatchError(
            f"sequence_id {ids[number]}, position {differ[0] - starts[number]}: {have.path} has "
            f"draws, {lack.path} has none"
        )


def _side_by_side(
    parts: list[SparseLogits],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """All entries of each position, one part after the other. The core adds up those of one id."""
    lengths = np.stack([np.diff(part.offsets) for part in parts])  # (M, T)
    offsets = np.concatenate([[0], np.cumsum(lengths.sum(axis=0))])
    begins = offsets[:-1] + np.cumsum(lengths, axis=0) - lengths  # of each part's entries
    token_ids = np.empty(offsets[-1], np.int64)
    counts = np.empty(offsets[-1], np.int64)
    for part, length, begin in zip(parts, lengths, begins, strict=True):
        assert part.counts is not None
        places = np.arange(part.num_entries) + np.repeat(begin - part.offsets[:-1], length)
        token_ids[places] = part.token_ids
        counts[places] = part.counts
    return offsets, token_ids, counts
