"""A real cache whose every number tells which sequence and position it belongs to."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

import sparselogits as sl
from sparselogits.torch import Batch

VOCAB = 1009
ROUNDS = 50
FIRST_ID = 2**63  # sequence ids are unsigned: exercise the upper half


def tokens_of(sequence: int, length: int) -> np.ndarray:
    """(length,) input tokens of a sequence."""
    return ((np.arange(length) * 17 + sequence * 101) % VOCAB).astype(np.int32)


def entries_of(sequence: int, position: int) -> tuple[list[int], list[int]]:
    """Ids and counts of one position; every seventh is empty."""
    if (sequence + position) % 7 == 6:
        return [], []
    first = (sequence * 37 + position * 5) % (VOCAB - 1)
    count = 1 + (sequence + position) % (ROUNDS - 1)
    return [first, first + 1], [count, ROUNDS - count]


def write_cache(
    path: Path,
    lengths: list[int],
    *,
    store_tokens: bool = True,
    shard_bytes: int = 1 << 30,
    metadata: dict[str, str] | None = None,
) -> str:
    """Sequence i has `lengths[i]` positions and the sequence_id FIRST_ID + 3 i."""
    config = sl.CacheConfig(vocab_size=VOCAB, rounds=ROUNDS, store_tokens=store_tokens)
    with sl.CacheWriter(path, config, metadata, shard_bytes=shard_bytes) as writer:
        for sequence, length in enumerate(lengths):
            rows = [entries_of(sequence, position) for position in range(length)]
            ids = [i for row, _ in rows for i in row]
            counts = [c for _, row in rows for c in row]
            offsets = np.cumsum([0] + [len(row) for row, _ in rows])
            writer.append(
                tokens_of(sequence, length),
                offsets,
                np.array(ids, np.int32),
                np.array(counts, np.int32),
                sequence_id=FIRST_ID + 3 * sequence,
            )
    return str(path)


def sequences(batch: Batch) -> list[int]:
    """The cache indices of a batch's rows."""
    return [(name - FIRST_ID) // 3 for name in batch.sequence_ids.tolist()]


def flat(lists: Iterable[list[int]]) -> list[int]:
    """Several batches as one list."""
    return [item for items in lists for item in items]


def check_rows(batch: Batch, lengths: list[int], pad_token_id: int = 0) -> None:
    """Every row of the batch holds what its own sequence_id says, and nothing else."""
    width = batch.input_ids.shape[1]
    for row, sequence in enumerate(sequences(batch)):
        length = lengths[sequence]
        tokens = tokens_of(sequence, length).tolist()
        assert batch.input_ids[row].tolist() == tokens + [pad_token_id] * (width - length)
        assert batch.labels[row].tolist() == tokens[1:] + [-100] * (width - max(length - 1, 0))
        for position in range(width):
            start, stop = batch.targets.offsets[row * width + position :][:2].tolist()
            ids, counts = entries_of(sequence, position) if position < length else ([], [])
            assert batch.targets.token_ids[start:stop].tolist() == ids
            weights = (batch.targets.weights[start:stop] * ROUNDS).round().int()
            assert weights.tolist() == counts
