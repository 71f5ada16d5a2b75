"""Caches of the same sequences with draws of their own, to be added up, and their sums checked."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from caches import CONFIG, random_sequence

import sparselogits as sl

SYSTEMATIC = dataclasses.replace(CONFIG, sampler="systematic")


def write(
    path: Path,
    metadata: dict[str, str],
    *,
    draws: int = 0,
    ids: Any = range(6),
    config: sl.CacheConfig = SYSTEMATIC,
    **options: Any,
) -> Path:
    """A cache whose sequences have the tokens of their ids and counts that `draws` chooses."""
    with sl.CacheWriter(path, config, {"teacher": "test", **metadata}, **options) as writer:
        for i in ids:
            tokens = random_sequence(i).input_ids
            drawn = random_sequence(1000 * draws + i, config=config)
            filled = np.diff(random_sequence(i).offsets) > 0  # the same empty positions everywhere
            rows = [full(drawn, t, config) if filled[t] else ([], []) for t in range(len(tokens))]
            writer.append(
                tokens,
                np.cumsum([0, *(len(row[0]) for row in rows)]),
                np.concatenate([row[0] for row in rows]).astype(np.int64),
                np.concatenate([row[1] for row in rows]).astype(np.int64),
                i,
            )
    return path


def full(drawn: Any, t: int, config: sl.CacheConfig) -> tuple[Any, Any]:
    entries = slice(drawn.offsets[t], drawn.offsets[t + 1])
    if drawn.offsets[t] == drawn.offsets[t + 1]:
        return [t], [config.rounds]
    return drawn.token_ids[entries], drawn.counts[entries]


def dense(cache: sl.Cache, sequence_id: int) -> Any:
    """(S, V) counts of a sequence."""
    read = cache[cache.index_of(sequence_id)]
    rows = np.repeat(np.arange(read.num_positions), np.diff(read.offsets))
    counts = np.zeros((read.num_positions, cache.config.vocab_size), np.int64)
    np.add.at(counts, (rows, read.token_ids), read.counts)
    return counts


def assert_sum(path: Path, sources: list[Path]) -> sl.Cache:
    """Position by position; and every byte of it is sound."""
    total, parts = sl.open(path), [sl.open(source) for source in sources]
    assert sl.verify(path).ok
    assert total.config == dataclasses.replace(
        parts[0].config, rounds=sum(part.config.rounds for part in parts)
    )
    assert total.sequence_ids.tolist() == parts[0].sequence_ids.tolist()
    assert total.fingerprints.tolist() == parts[0].fingerprints.tolist()
    for sequence_id in total.sequence_ids.tolist():
        expected = sum(dense(part, sequence_id) for part in parts)
        np.testing.assert_array_equal(dense(total, sequence_id), expected)
        if total.config.store_tokens:
            of_first = parts[0][parts[0].index_of(sequence_id)].input_ids
            np.testing.assert_array_equal(total[total.index_of(sequence_id)].input_ids, of_first)
    return total
