"""`merge(rounds="add")`: counts that add up to a sample of all the rounds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from caches import CONFIG, Interruption, random_sequence
from hypothesis import given, settings
from hypothesis import strategies as st
from round_caches import SYSTEMATIC, assert_sum, dense, write

import sparselogits as sl

UNIT = 1 << 62


def systematic_counts(masses: list[int], rounds: int, uniform: int) -> list[int]:
    """Counts by the definition: points ⌊(j + u) T / N⌋ in the intervals of the integer masses."""
    ends = np.cumsum(masses).tolist()
    points = [(j * UNIT + uniform) * ends[-1] // (rounds * UNIT) for j in range(rounds)]
    tokens = np.searchsorted(ends, points, side="right")
    return np.bincount(tokens, minlength=len(masses)).tolist()


@settings(max_examples=200, deadline=None)
@given(
    masses=st.lists(st.integers(0, 1 << 40), min_size=1, max_size=30).filter(any),
    rounds=st.integers(1, 60),
    uniform=st.integers(0, UNIT - 1),
    log_parts=st.integers(0, 4),
    first=st.integers(0, UNIT - 1),
)
def test_offsets_of_equal_distance_add_up_to_one_systematic_sample(
    masses: list[int], rounds: int, uniform: int, log_parts: int, first: int
) -> None:
    """The identity in `round_sources`, in the sampler's integers, for M a power of two."""
    parts = 1 << log_parts
    offsets = [(first + m * (UNIT // parts)) % UNIT for m in range(parts)]
    each = [systematic_counts(masses, rounds, (uniform + o) % UNIT) for o in offsets]
    together = systematic_counts(masses, parts * rounds, parts * (uniform + first) % UNIT)
    assert np.sum(each, axis=0).tolist() == together


@pytest.mark.parametrize("codec", ["packed", "compact"])
@pytest.mark.parametrize("store_tokens", [True, False])
def test_two_systematic_caches_add_up(tmp_path: Path, codec: str, store_tokens: bool) -> None:
    config = dataclasses.replace(SYSTEMATIC, codec=codec, store_tokens=store_tokens)
    a = write(tmp_path / "a", {"seed": "7"}, config=config)
    b = write(tmp_path / "b", {"seed": "7", "systematic_offset": "0.5"}, draws=1, config=config)
    report = sl.merge([a, b], tmp_path / "out", rounds="add")
    total = assert_sum(tmp_path / "out", [a, b])
    assert total.metadata == {
        "teacher": "test",
        "seed": "7",
        "systematic_offsets": "0.0,0.5",
        "added_rounds": "20,20",
    }
    assert (report.sources, report.sequences, report.entries) == (2, 6, total.num_entries)
    assert (report.linked, report.copied, report.bytes) == (0, 1, total.nbytes)


def test_multinomial_caches_of_different_rounds_and_order_add_up(tmp_path: Path) -> None:
    more = dataclasses.replace(CONFIG, rounds=33)
    a = write(tmp_path / "a", {"seed": "1"}, config=CONFIG, ids=[5, 0, 2**64 - 1, 3])
    b = write(tmp_path / "b", {"seed": "2"}, config=more, ids=[0, 3, 5, 2**64 - 1], draws=1)
    sl.merge([a, b], tmp_path / "out", rounds="add")
    total = assert_sum(tmp_path / "out", [a, b])
    assert total.config.rounds == 53
    assert total.metadata["seeds"] == "1,2"
    assert total.metadata["added_rounds"] == "20,33"
    assert "seed" not in total.metadata


def test_sums_add_up_again_where_their_offsets_are_still_equally_spaced(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / str(m), {"seed": "0", "systematic_offset": str(m / 4)}, draws=m)
        for m in range(4)
    ]
    sl.merge([paths[2], paths[0]], tmp_path / "even", rounds="add")
    sl.merge([paths[1], paths[3]], tmp_path / "odd", rounds="add")
    sl.merge([tmp_path / "odd", tmp_path / "even"], tmp_path / "all", rounds="add")
    total = assert_sum(tmp_path / "all", [paths[1], paths[0], paths[2], paths[3]])
    assert total.metadata["systematic_offsets"] == "0.0,0.25,0.5,0.75"
    assert total.metadata["added_rounds"] == "20,20,20,20"
    with pytest.raises(sl.InvalidArgumentError, match=r"equal rounds, got \[20\]|0\.0,0\.25,0\.5"):
        sl.merge([tmp_path / "even", paths[1]], tmp_path / "three", rounds="add")


def test_three_offsets_that_floats_round_add_up(tmp_path: Path) -> None:
    sources = [
        write(tmp_path / str(m), {"seed": "0", "systematic_offset": repr(0.1 + m / 3)}, draws=m)
        for m in range(3)
    ]
    sl.merge(sources, tmp_path / "out", rounds="add")
    assert_sum(tmp_path / "out", sources)


def test_long_caches_are_added_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparselogits.merge_rounds.BATCH_BYTES", 20_000)
    a = write(tmp_path / "a", {"seed": "7"}, shard_bytes=1)
    b = write(tmp_path / "b", {"seed": "7", "systematic_offset": "0.5"}, draws=1)
    seen: list[tuple[int, int]] = []
    sl.merge([a, b], tmp_path / "out", rounds="add", progress=lambda *at: seen.append(at))
    assert_sum(tmp_path / "out", [a, b])
    assert len(seen) > 2
    assert seen[-1] == (180, 180)


def die(path: Path, seed: str) -> None:
    with sl.CacheWriter(path, CONFIG, {"seed": seed}) as writer:
        random_sequence(3).append_to(writer)
        raise Interruption


def test_recovered_caches_add_up_to_an_incomplete_one(tmp_path: Path) -> None:
    for name, seed in (("a", "1"), ("b", "2")):
        with pytest.raises(Interruption):
            die(tmp_path / name, seed)
        sl.recover(tmp_path / name)
    sources = [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(sl.InvalidArgumentError, match="is incomplete"):
        sl.merge(sources, tmp_path / "out", rounds="add")
    report = sl.merge(sources, tmp_path / "out", rounds="add", allow_incomplete=True)
    assert not report.complete
    assert not sl.open(tmp_path / "out").complete


def test_the_sources_are_untouched(tmp_path: Path) -> None:
    sources = [write(tmp_path / s, {"seed": s}, config=CONFIG, draws=int(s)) for s in "12"]
    before = {path: path.read_bytes() for s in sources for path in s.iterdir()}
    sl.merge(sources, tmp_path / "out", rounds="add")
    assert before == {path: path.read_bytes() for s in sources for path in s.iterdir()}


def test_sums_of_independent_draws_err_as_one_sample_of_all_rounds(tmp_path: Path) -> None:
    """Draws of `sample` with two seeds: counts of each token in [0, 2N], sums of 2N in each row."""
    logits = np.random.default_rng(0).standard_normal((200, 50)).astype(np.float32) * 2
    config = sl.CacheConfig(vocab_size=50, rounds=30, codec="packed")
    paths = [tmp_path / "a", tmp_path / "b"]
    drawn = []
    for seed, path in enumerate(paths):
        draws = sl.sample(logits, rounds=30, seed=seed)
        drawn.append(draws)
        with sl.CacheWriter(path, config, {"seed": str(seed)}) as writer:
            writer.append(np.zeros(200, int), draws.offsets, draws.token_ids, draws.counts)
    sl.merge(paths, tmp_path / "out", rounds="add")
    total = dense(sl.open(tmp_path / "out"), 0)
    assert (total.sum(axis=1) == 60).all()
    exponentials = np.exp(logits.astype(np.float64))
    p = exponentials / exponentials.sum(axis=1, keepdims=True)
    squared = ((total / 60 - p) ** 2).sum(axis=1)
    expected = (1 - (p**2).sum(axis=1)) / 60
    z = (squared - expected).mean() / (squared.std(ddof=1) / np.sqrt(200))
    assert abs(z) < 4.9  # 1e-6


def spread_of(counts: np.ndarray, p: np.ndarray) -> float:
    """Below 1 for systematic samples of one uniform a row, (P, V) counts of (P, V) p.

    Points (k + u) / N: the cumulative count at F is ⌈N F - u⌉, so N F minus it is in [u - 1, u).
    """
    rounds = counts[0].sum()
    excess = rounds * p.cumsum(axis=1) - counts.cumsum(axis=1)
    return float((np.maximum(excess.max(axis=1), 0) - np.minimum(excess.min(axis=1), 0)).max())


def systematic_cache(path: Path, logits: np.ndarray, rounds: int, offset: float) -> Path:
    """Of the draws of `sample` for the rows of two sequences."""
    config = sl.CacheConfig(vocab_size=logits.shape[1], rounds=rounds, sampler="systematic")
    facts = {"seed": "5"} | ({"systematic_offset": repr(offset)} if offset else {})
    half = len(logits) // 2
    with sl.CacheWriter(path, config, facts) as writer:
        for sequence_id in range(2):
            keys = np.stack([np.full(half, sequence_id), np.arange(half)], axis=1)
            draws = sl.sample(
                logits[sequence_id * half : (sequence_id + 1) * half],
                rounds=rounds,
                sampler="systematic",
                seed=5,
                position_keys=keys,
                offset=offset,
            )
            writer.append(np.zeros(half, int), draws.offsets, draws.token_ids, draws.counts)
    return path


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_draws_with_complementary_offsets_add_up_to_a_systematic_sample(
    tmp_path: Path, parts: int
) -> None:
    logits = (2.5 * np.random.default_rng(1).standard_normal((400, 900))).astype(np.float32)
    exponentials = np.exp(logits.astype(np.float64))
    p = exponentials / exponentials.sum(axis=1, keepdims=True)
    sources = [systematic_cache(tmp_path / str(m), logits, 13, m / parts) for m in range(parts)]
    sl.merge(sources, tmp_path / "out", rounds="add")
    total = assert_sum(tmp_path / "out", sources)
    counts = np.concatenate([dense(total, 0), dense(total, 1)])
    assert (counts.sum(axis=1) == 13 * parts).all()
    assert spread_of(counts, p) < 1 + 1e-5  # masses are integers: p is met to 1e-7
    # Draws whose points lie at unequal distances would be seen.
    other = systematic_cache(tmp_path / "other", logits, 13, 0.9 / parts)
    first = sl.open(sources[0])
    apart = [dense(cache, i) for cache in (first, sl.open(other)) for i in range(2)]
    assert spread_of(np.concatenate(apart[:2]) + np.concatenate(apart[2:]), p) > 1.05
