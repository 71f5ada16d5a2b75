"""Captures whose draws add up: what docs/merge_repack.md says of more rounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")

from capture_models import VOCABULARY, llama

import sparselogits as sl

WINDOWS = np.random.default_rng(3).integers(0, VOCABULARY, (2, 9))


def capture(path: Path, **options: object) -> sl.Cache:
    options = {"rounds": 12, "seed": 3, "progress": False, **options}
    return sl.capture(llama(), WINDOWS, path, **options)


def dense(cache: sl.Cache) -> np.ndarray:
    """(P, V) counts."""
    read = cache.read_sequences(np.arange(len(cache)))
    counts = np.zeros((read.num_positions, VOCABULARY), np.int64)
    counts[np.repeat(np.arange(len(counts)), np.diff(read.offsets)), read.token_ids] = read.counts
    return counts


def test_captures_with_complementary_offsets_are_one_with_twice_the_rounds(tmp_path: Path) -> None:
    """Four of 12 rounds are two of 24 and one of 48."""
    parts = [
        capture(tmp_path / str(m), sampler="systematic", **({"offset": m / 4} if m else {}))
        for m in range(4)
    ]
    for name, members in (("even", (0, 2)), ("odd", (1, 3))):
        sl.merge([tmp_path / str(m) for m in members], tmp_path / name, rounds="add")
        total = sl.open(tmp_path / name)
        assert total.config.rounds == 24
        np.testing.assert_array_equal(dense(total), sum(dense(parts[m]) for m in members))
    # Systematic samples of one p differ by at most 1 in every token, whatever their uniforms.
    even, odd = (dense(sl.open(tmp_path / name)) for name in ("even", "odd"))
    assert np.abs(even - odd).max() == 1
    sl.merge([tmp_path / "odd", tmp_path / "even"], tmp_path / "all", rounds="add")
    assert sl.open(tmp_path / "all").config.rounds == 48


def test_captures_with_one_offset_or_two_seeds_are_refused(tmp_path: Path) -> None:
    capture(tmp_path / "a", sampler="systematic")
    capture(tmp_path / "b", sampler="systematic")
    capture(tmp_path / "c", sampler="systematic", seed=4, offset=0.5)
    with pytest.raises(sl.InvalidArgumentError, match="the same points twice are no more rounds"):
        sl.merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out", rounds="add")
    with pytest.raises(sl.InvalidArgumentError, match="where their uniforms are the same"):
        sl.merge([tmp_path / "a", tmp_path / "c"], tmp_path / "out", rounds="add")


def test_multinomial_captures_of_two_seeds_add_up(tmp_path: Path) -> None:
    parts = [capture(tmp_path / str(seed), seed=seed, rounds=5 + seed) for seed in (1, 2)]
    sl.merge([tmp_path / "1", tmp_path / "2"], tmp_path / "out", rounds="add")
    total = sl.open(tmp_path / "out")
    assert (total.config.rounds, total.metadata["seeds"]) == (13, "1,2")
    np.testing.assert_array_equal(dense(total), dense(parts[0]) + dense(parts[1]))
