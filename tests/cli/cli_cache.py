"""The small cache of these tests, and the writing of it."""

from __future__ import annotations

import numpy as np

import sparselogits as sl

VOCAB_SIZE = 100
ROUNDS = 4
# Sequence 0 has three positions, the second without entries; sequence 1 has none; sequence 2 one.
INPUT_IDS = [[5, 7, 9], [], [3]]
RECORDS = [[{7: 3, 8: 1}, {}, {99: 4}], [], [{0: 1, 1: 1, 2: 2}]]
SEQUENCE_IDS = [100, 7, 2**64 - 1]


def config() -> sl.CacheConfig:
    """With tokens, packed, counts."""
    return sl.CacheConfig(vocab_size=VOCAB_SIZE, rounds=ROUNDS, codec="packed")


def append_all(writer: sl.CacheWriter) -> None:
    """Writes the three sequences."""
    for input_ids, records, sequence_id in zip(INPUT_IDS, RECORDS, SEQUENCE_IDS, strict=True):
        writer.append(
            np.array(input_ids, np.int64),
            np.cumsum([0, *(len(record) for record in records)]),
            np.array([token for record in records for token in record], np.int64),
            np.array([n for record in records for n in record.values()], np.int64),
            sequence_id=sequence_id,
        )


def write_and_die(path: object) -> None:
    """Commits the three sequences, then fails inside `with`."""
    with sl.CacheWriter(path, config()) as writer:
        append_all(writer)
        writer.flush()
        raise RuntimeError("power cut")
