"""Defects found in other systems, which must not happen here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import sparselogits as sl


def test_ids_above_2_17_survive(tmp_path: Path) -> None:
    """Masking ids to 17 bits makes 20,864 of 151,936 tokens alias."""
    config = sl.CacheConfig(vocab_size=151_936, rounds=1)
    ids = np.arange(151_936)
    with sl.CacheWriter(tmp_path / "c", config) as writer:
        writer.append(ids, np.arange(len(ids) + 1), ids, np.ones_like(ids))
    read = sl.open(tmp_path / "c")[0]
    np.testing.assert_array_equal(read.token_ids, ids)
    np.testing.assert_array_equal(read.input_ids, ids)


@pytest.mark.parametrize("rounds", [50, 1000])
def test_counts_are_exact_integers(tmp_path: Path, rounds: int) -> None:
    """Rounding counts to 7-bit probabilities puts up to 16 % more mass into the tail."""
    config = sl.CacheConfig(vocab_size=100, rounds=rounds)
    counts = np.stack([np.arange(1, rounds), rounds - np.arange(1, rounds)], axis=1).reshape(-1)
    n = rounds - 1
    with sl.CacheWriter(tmp_path / "c", config) as writer:
        writer.append(np.zeros(n, int), 2 * np.arange(n + 1), np.tile([3, 90], n), counts)
    read = sl.open(tmp_path / "c")[0]
    np.testing.assert_array_equal(read.counts, counts)
    np.testing.assert_array_equal(read.weights, (counts / rounds).astype(np.float32))


def test_nothing_is_dropped_after_sampling(tmp_path: Path) -> None:
    """Keeping the top U of the drawn ids loses up to 88 % of the tail's mass."""
    config = sl.CacheConfig(vocab_size=50_000, rounds=65_535)
    logits = np.random.default_rng(0).normal(size=(8, 50_000)).astype(np.float32)
    draws = sl.sample(logits, rounds=65_535)
    with sl.CacheWriter(tmp_path / "c", config) as writer:
        writer.append(np.zeros(8, int), draws.offsets, draws.token_ids, draws.counts)
    read = sl.open(tmp_path / "c")[0]
    assert np.diff(read.offsets).min() > 10_000
    np.testing.assert_array_equal(read.token_ids, draws.token_ids)
    np.testing.assert_array_equal(read.counts, draws.counts)
    np.testing.assert_array_equal(
        np.add.reduceat(read.counts.astype(int), read.offsets[:-1]), 65_535
    )


def test_fingerprints_are_the_same_in_every_process(tmp_path: Path) -> None:
    """Python's hash() is salted: stored on disk it matches nothing in the next process."""
    script = (
        "import sparselogits as sl\n"
        "class T:\n"
        "    special_tokens_map = {'eos_token': 'b'}\n"
        "    def get_vocab(self): return {t: i for i, t in enumerate(set('abcdefgh'))}\n"
        "T.get_vocab = lambda self: {t: ord(t) for t in set('abcdefgh')}\n"
        "print(sl.fingerprint_tokens(range(100)), sl.fingerprint_tokenizer(T()))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in (1, 2, 3)
    }
    assert len(outputs) == 1


def test_each_sequence_has_its_own_fingerprint(tmp_path: Path) -> None:
    """A hash of the whole batch as the key of each row finds no row again in another batch."""
    config = sl.CacheConfig(vocab_size=10, rounds=1, store_tokens=False)
    rows = [[1, 2, 3], [4, 5], [6]]
    with sl.CacheWriter(tmp_path / "c", config) as writer:
        writer.append_many([1, 2, 3, 4, 5, 6], [0, 3, 5, 6], range(7), [0] * 6, [1] * 6)
    fingerprints = sl.open(tmp_path / "c").fingerprints
    assert list(fingerprints) == [sl.fingerprint_tokens(row) for row in rows]


def write_and_be_interrupted(path: Path) -> None:
    with sl.CacheWriter(path, sl.CacheConfig(vocab_size=10, rounds=1)) as writer:
        writer.append([1], [0, 1], [2], [1])
        raise KeyboardInterrupt


def test_an_exception_does_not_make_a_truncated_cache_look_complete(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_and_be_interrupted(tmp_path / "c")
    with pytest.raises(sl.CacheIOError, match="unfinished"):
        sl.open(tmp_path / "c")
    sl.recover(tmp_path / "c")
    cache = sl.open(tmp_path / "c")
    assert len(cache) == 1
    assert not cache.complete
