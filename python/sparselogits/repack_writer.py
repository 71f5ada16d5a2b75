"""The sequences of a plan, read and written in batches of bounded size."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sparselogits import _core
from sparselogits.append_batch import AppendBatch
from sparselogits.directory import DirectoryLock
from sparselogits.durable import make_directory
from sparselogits.errors import InvalidArgumentError, SparseLogitsError
from sparselogits.manifest import Manifest
from sparselogits.reader import Cache
from sparselogits.repack_plan import RepackPlan
from sparselogits.repack_tokens import RepackTokens
from sparselogits.repack_training import train_for_plan
from sparselogits.resume import open_for_writing
from sparselogits.sequence_runs import BATCH_BYTES, memory_of, sequence_runs
from sparselogits.shard_series import COMMIT_BYTES, ShardSeries
from sparselogits.shard_set import open_shards

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Written:
    """What a writer did.

    Attributes:
        resumed: Sequences that were there before.
        entries: Of all sequences, those included.
    """

    resumed: int
    entries: int


def write_repacked(
    cache: Cache,
    plan: RepackPlan,
    tokens: RepackTokens,
    model: _core.CodecModel | None,
    directory: Path,
    progress: Progress | None,
) -> Written:
    """Writes the cache of a plan, or what is missing of it.

    An error leaves what was written committed. REQUIRES: nobody else is at work there.

    Args:
        cache: The source.
        plan, tokens: What to write.
        model: What to code with, if the plan names one.
        directory: The new cache.
        progress: Called with the positions done and the positions to do.

    Raises:
        InvalidArgumentError: There are other sequences than the plan's first ones.
        FormatError, FingerprintMismatchError, CacheIOError: See `sparselogits.repack`.
    """
    make_directory(directory)
    with DirectoryLock(directory):
        state = open_for_writing(directory, plan.config, plan.metadata, resume=True)
        resumed = _resumed(directory, state.manifest, cache, plan)
        entries = sum(row.entries for row in state.manifest.shards)
        series = ShardSeries(
            directory,
            state.manifest,
            state.next_number,
            plan.shard_bytes,
            COMMIT_BYTES,
            state.model if model is None else model,
            functools.cache(lambda: train_for_plan(cache, plan, tokens)),
        )
        try:
            entries += _append_all(cache, plan, resumed, tokens, series, progress)
            series.finish()
        except BaseException:
            with contextlib.suppress(SparseLogitsError):  # the first error is the one to see
                series.leave()
            raise
        finally:
            series.abandon()
    return Written(resumed, entries)


def _resumed(directory: Path, manifest: Manifest, cache: Cache, plan: RepackPlan) -> int:
    """How many of the plan's sequences are there."""
    if not manifest.shards:
        return 0
    shards = open_shards(directory, manifest, verify_checksums=True)
    held, _, fingerprints = shards.sequence_table()
    expected = plan.indices[: len(held)]
    if not (
        np.array_equal(held, cache.sequence_ids[expected])
        and np.array_equal(fingerprints, cache.fingerprints[expected])
    ):
        raise InvalidArgumentError(
            f"{directory} holds other sequences than this repack would have written: begin anew "
            "with restart=True (--restart), which removes it"
        )
    return len(held)


def _append_all(
    cache: Cache,
    plan: RepackPlan,
    resumed: int,
    tokens: RepackTokens,
    series: ShardSeries,
    progress: Progress | None,
) -> int:
    """Appends the rest of the plan; returns the number of entries."""
    lengths = cache.sequence_lengths[plan.indices]
    total = int(lengths.sum())
    done = int(lengths[:resumed].sum())
    entries = 0
    for indices in _batches(cache, plan.indices[resumed:]):
        batch = _batch(cache, indices, tokens)
        series.append(batch)
        series.settle()
        entries += len(batch.token_ids)
        done += len(batch.input_ids)
        if progress is not None:
            progress(done, total)
    return entries


def _batches(cache: Cache, indices: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Runs of sequences that take about `BATCH_BYTES`; at least one sequence each."""
    rows = cache.manifest.shards
    entries = np.array([row.entries / max(1, row.positions) for row in rows])
    per_position = np.repeat(entries, [row.sequences for row in rows])[indices]
    for start, stop in sequence_runs(
        memory_of(cache.sequence_lengths[indices], per_position), BATCH_BYTES
    ):
        yield indices[start:stop]


def _batch(cache: Cache, indices: npt.NDArray[np.int64], tokens: RepackTokens) -> AppendBatch:
    sparse = cache.read_sequences(indices)
    assert sparse.sequence_offsets is not None
    counts = None if sparse.counts is None else sparse.counts.astype(np.int64)
    return AppendBatch(
        input_ids=tokens.of(indices, sparse)
        if tokens.are_at_hand
        else np.zeros(sparse.num_positions, np.int64),
        sequence_offsets=sparse.sequence_offsets,
        offsets=sparse.offsets,
        token_ids=sparse.token_ids.astype(np.int64),
        counts=counts,
        weights=None if counts is not None else sparse.weights,
        sequence_ids=cache.sequence_ids[indices],
        fingerprints=None if tokens.are_at_hand else cache.fingerprints[indices],
    )
