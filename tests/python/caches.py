"""Sequences for tests: drawn from a generator, held as plain Python, written and compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

import sparselogits as sl

CONFIG = sl.CacheConfig(vocab_size=1000, rounds=20, codec="packed")


@dataclass
class Sequence:
    """What goes into `append`, and how it must come back: canonical."""

    sequence_id: int
    input_ids: np.ndarray
    offsets: np.ndarray
    token_ids: np.ndarray
    counts: np.ndarray

    def append_to(self, writer: sl.CacheWriter) -> None:
        writer.append(self.input_ids, self.offsets, self.token_ids, self.counts, self.sequence_id)


def random_sequence(
    sequence_id: int, length: int = 30, config: sl.CacheConfig = CONFIG
) -> Sequence:
    """Multinomial draws of a skewed distribution; some positions are empty."""
    rng = np.random.default_rng(sequence_id)
    offsets, ids, counts = [0], [], []
    for _ in range(length):
        if rng.random() < 0.9:
            draws = (rng.random(config.rounds) ** 4 * config.vocab_size).astype(np.int64)
            unique, number = np.unique(draws, return_counts=True)
            ids.append(unique)
            counts.append(number)
        offsets.append(sum(map(len, ids)))
    return Sequence(
        sequence_id,
        rng.integers(0, config.vocab_size, length),
        np.array(offsets, np.int64),
        np.concatenate([*ids, np.empty(0, np.int64)]).astype(np.int64),
        np.concatenate([*counts, np.empty(0, np.int64)]).astype(np.int64),
    )


def write(path: Path, sequences: list[Sequence], **options: object) -> sl.Cache:
    """A finished cache of these sequences."""
    with sl.CacheWriter(path, CONFIG, {"teacher": "test"}, **options) as writer:  # type: ignore[arg-type]
        for sequence in sequences:
            sequence.append_to(writer)
    return sl.open(path)


class Interruption(Exception):
    """What ends a `with` block early."""


def write_and_fail(path: Path, sequences: list[Sequence], **options: object) -> None:
    """Raises Interruption inside `with`, after these sequences were appended."""
    with sl.CacheWriter(path, CONFIG, {"teacher": "test"}, **options) as writer:  # type: ignore[arg-type]
        for sequence in sequences:
            sequence.append_to(writer)
        raise Interruption("the teacher died")


def assert_same(read: sl.SparseLogits, sequence: Sequence) -> None:
    """A sequence came back as it went in."""
    assert read.sequence_id == sequence.sequence_id
    np.testing.assert_array_equal(read.input_ids, sequence.input_ids)
    np.testing.assert_array_equal(read.offsets, sequence.offsets)
    np.testing.assert_array_equal(read.token_ids, sequence.token_ids)
    np.testing.assert_array_equal(read.counts, sequence.counts)
    np.testing.assert_array_equal(read.weights, (sequence.counts / read.rounds).astype(np.float32))


def assert_holds(cache: sl.Cache, sequences: list[Sequence]) -> None:
    """A cache holds exactly these sequences, in this order."""
    assert list(cache.sequence_ids) == [sequence.sequence_id for sequence in sequences]
    for read, sequence in zip(cache, sequences, strict=True):
        assert_same(read, sequence)
