"""What is appended is what is read."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from caches import CONFIG, assert_holds, assert_same, random_sequence, write
from hypothesis import given, settings
from hypothesis import strategies as st

import sparselogits as sl


def test_sequences_come_back_in_order(tmp_path: Path) -> None:
    sequences = [random_sequence(i, length) for i, length in enumerate((30, 0, 1, 2500, 64))]
    cache = write(tmp_path / "c", sequences)
    assert_holds(cache, sequences)
    assert len(cache) == 5
    assert cache.num_positions == 30 + 0 + 1 + 2500 + 64
    assert cache.complete
    assert cache.config == CONFIG
    assert cache.metadata == {"teacher": "test"}
    assert list(cache.sequence_lengths) == [30, 0, 1, 2500, 64]
    assert list(cache.sequence_starts) == [0, 30, 30, 31, 2531, 2595]
    files = sum(path.stat().st_size for path in (tmp_path / "c").iterdir())
    assert cache.nbytes == files
    assert cache.verify().positions == 2595
    for i, sequence in enumerate(sequences):
        assert cache.fingerprints[i] == sl.fingerprint_tokens(sequence.input_ids)


def test_append_many_equals_append(tmp_path: Path) -> None:
    sequences = [random_sequence(i, length) for i, length in ((9, 30), (4, 0), (7, 100))]
    one = write(tmp_path / "one", sequences)
    with sl.CacheWriter(tmp_path / "many", CONFIG, {"teacher": "test"}) as writer:
        writer.append_many(
            np.concatenate([s.input_ids for s in sequences]),
            np.cumsum([0, *(len(s.input_ids) for s in sequences)]),
            np.cumsum([0, *np.concatenate([np.diff(s.offsets) for s in sequences])]),
            np.concatenate([s.token_ids for s in sequences]),
            np.concatenate([s.counts for s in sequences]),
            [s.sequence_id for s in sequences],
        )
    assert_holds(sl.open(tmp_path / "many"), sequences)
    np.testing.assert_array_equal(sl.open(tmp_path / "many").fingerprints, one.fingerprints)


@given(
    draws=st.lists(
        st.lists(st.integers(0, 999), min_size=20, max_size=20) | st.just([]), max_size=20
    ),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_draws_in_any_order_are_sorted_and_merged(draws: list[list[int]], seed: int) -> None:
    tokens = np.random.default_rng(seed).integers(0, 1000, len(draws))
    flat = [token for position in draws for token in position]
    with tempfile.TemporaryDirectory() as folder:
        with sl.CacheWriter(f"{folder}/c", CONFIG) as writer:
            writer.append(tokens, np.cumsum([0, *map(len, draws)]), flat, np.ones(len(flat), int))
        read = sl.open(f"{folder}/c")[0]
    np.testing.assert_array_equal(read.input_ids, tokens)
    for position, drawn in enumerate(draws):
        ids, counts = read.position(position)
        expected, numbers = np.unique(np.array(drawn, int), return_counts=True)
        np.testing.assert_array_equal(ids, expected)
        np.testing.assert_array_equal(counts, numbers)


@pytest.mark.parametrize("dtype, bits", [("float32", 23), ("float16", 10), ("bfloat16", 7)])
def test_weights(tmp_path: Path, dtype: str, bits: int) -> None:
    config = sl.CacheConfig(vocab_size=70000, proposal_temperature=0.8, weight_dtype=dtype)
    assert config.value_kind == "weights"
    weights = np.random.default_rng(0).random(100).astype(np.float32)
    with sl.CacheWriter(tmp_path / "c", config) as writer:
        writer.append([1, 2, 3], [0, 60, 60, 100], np.arange(100) * 700, weights=weights)
    read = sl.open(tmp_path / "c")[0]
    assert read.counts is None
    np.testing.assert_array_equal(read.token_ids, np.arange(100) * 700)
    np.testing.assert_array_equal(read.offsets, [0, 60, 60, 100])
    # Stochastic rounding: one of the two neighbours, the right one on average.
    np.testing.assert_allclose(read.weights, weights, rtol=2.0**-bits if bits < 23 else 0)


@pytest.mark.parametrize("dtype, bits", [("float16", 10), ("bfloat16", 7)])
def test_narrow_weights_are_unbiased(tmp_path: Path, dtype: str, bits: int) -> None:
    config = sl.CacheConfig(vocab_size=70000, value_kind="weights", weight_dtype=dtype)
    weights = np.full(60_000, 0.3, np.float32)
    with sl.CacheWriter(tmp_path / "c", config) as writer:
        writer.append([1], [0, len(weights)], np.arange(len(weights)), weights=weights)
    read = sl.open(tmp_path / "c")[0].weights
    step = 2.0 ** -(bits + 2)  # between neighbours of 0.3
    standard_error = step / 2 / np.sqrt(len(weights))
    assert len(np.unique(read)) == 2
    assert abs(read.astype(np.float64).mean() - 0.3) < 4 * standard_error


def test_float64_weights_are_rounded(tmp_path: Path) -> None:
    config = sl.CacheConfig(vocab_size=10, value_kind="weights")
    with sl.CacheWriter(tmp_path / "c", config) as writer:
        writer.append([1], [0, 2], [5, 3], weights=np.array([0.1, 0.9]))
    np.testing.assert_array_equal(
        sl.open(tmp_path / "c")[0].weights, np.array([0.9, 0.1], np.float32)
    )


def test_tokens_need_not_be_stored(tmp_path: Path) -> None:
    config = sl.CacheConfig(vocab_size=1000, rounds=20, store_tokens=False)
    sequence = random_sequence(0)
    with sl.CacheWriter(tmp_path / "c", config) as writer:
        sequence.append_to(writer)
    cache = sl.open(tmp_path / "c")
    assert cache[0].input_ids is None
    assert cache.read_positions([0]).input_ids is None
    assert cache.fingerprints[0] == sl.fingerprint_tokens(sequence.input_ids)
    np.testing.assert_array_equal(cache[0].counts, sequence.counts)


def test_torch_tensors_are_taken(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    sequence = random_sequence(3)
    with sl.CacheWriter(tmp_path / "c", CONFIG) as writer:
        writer.append(
            torch.tensor(sequence.input_ids),
            torch.tensor(sequence.offsets),
            torch.tensor(sequence.token_ids, dtype=torch.int32),
            torch.tensor(sequence.counts, dtype=torch.uint8),
            3,
        )
    assert_same(sl.open(tmp_path / "c")[0], sequence)


def test_shards_roll_over(tmp_path: Path) -> None:
    sequences = [random_sequence(i, 400) for i in range(12)]
    # A shard grows by blocks of 1,024 positions, so that is how exactly its size is kept.
    cache = write(tmp_path / "c", sequences, shard_bytes=15_000)
    assert len(cache.manifest.shards) > 2
    assert all(15_000 <= row.bytes < 40_000 for row in cache.manifest.shards[:-1])
    assert_holds(cache, sequences)
    cache.verify()


def test_an_empty_cache(tmp_path: Path) -> None:
    with sl.CacheWriter(tmp_path / "c", CONFIG):
        pass
    cache = sl.open(tmp_path / "c")
    assert (len(cache), cache.num_positions, cache.complete) == (0, 0, True)
    assert list(cache) == []
    assert cache.read_sequences([]).num_positions == 0
    assert cache.read_positions([]).num_positions == 0
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["manifest.json"]
    cache.verify()


def test_default_sequence_ids_go_on_from_the_highest(tmp_path: Path) -> None:
    with sl.CacheWriter(tmp_path / "c", CONFIG) as writer:
        for sequence_id in (None, 40, 7, None, None):
            writer.append([], [0], [], [], sequence_id)
        assert writer.num_sequences == 5
        assert 7 in writer
        assert np.uint64(42) in writer
        assert 6 not in writer
        assert "7" not in writer
        writer.append([], [0], [], [], 2**64 - 1)
        with pytest.raises(sl.InvalidArgumentError, match="no sequence_id is left"):
            writer.append([], [0], [], [])
    assert list(sl.open(tmp_path / "c").sequence_ids) == [0, 40, 7, 41, 42, 2**64 - 1]


def test_extreme_vocabulary_and_rounds(tmp_path: Path) -> None:
    config = sl.CacheConfig(vocab_size=1 << 24, rounds=65535)
    with sl.CacheWriter(tmp_path / "c", config) as writer:
        writer.append([2**24 - 1], [0, 2], [2**24 - 1, 0], [65534, 1])
    ids, counts = sl.open(tmp_path / "c")[0].position(0)
    assert (list(ids), list(counts)) == ([0, 2**24 - 1], [1, 65534])
