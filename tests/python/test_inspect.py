"""Every byte is accounted for, and the statistics are those of the records."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from caches import random_sequence, write

import sparselogits as sl
from sparselogits.inspect import inspect_cache, stats_cache


@pytest.mark.parametrize("options", [{}, {"shard_bytes": 15_000}])
def test_sections_sum_to_the_files(tmp_path: Path, options: dict[str, int]) -> None:
    cache = write(tmp_path / "c", [random_sequence(i, 400) for i in range(8)], **options)
    seen: list[tuple[int, int]] = []
    report = inspect_cache(tmp_path / "c", lambda done, total: seen.append((done, total)))
    files = sum(path.stat().st_size for path in (tmp_path / "c").iterdir())
    assert sum(section["bits"] for section in report["sections"].values()) == 8 * files
    assert report["bytes"] == files == cache.nbytes
    for row in report["shards"]:
        assert sum(row["section_bits"].values()) == 8 * row["bytes"]
    assert len(report["shards"]) == len(cache.manifest.shards)
    assert report["sections"]["tokens"]["bits"] >= 10 * cache.num_positions
    assert report["sections"]["counts"]["bits"] > 0
    assert report["sections"]["presence"]["bits"] == cache.num_positions
    assert seen[-1][0] == seen[-1][1]
    json.dumps(report)


def test_sections_of_a_weights_cache(tmp_path: Path) -> None:
    config = sl.CacheConfig(vocab_size=100, value_kind="weights", store_tokens=False)
    # Random, so that no LZ4 shrinks the block: which repetitions one finds depends on its version.
    rng = np.random.default_rng(0)
    weights = rng.random(50, np.float32)
    with sl.CacheWriter(tmp_path / "c", config) as writer:
        writer.append(np.arange(50), np.arange(51), rng.permutation(50), weights=weights)
    sections = inspect_cache(tmp_path / "c")["sections"]
    assert sections["weights"]["bits"] == 32 * 50
    assert sections["entry_numbers"]["bits"] == 50
    assert sections["tokens"]["bits"] == sections["counts"]["bits"] == 0
    stats = stats_cache(tmp_path / "c")
    assert stats["counts"] is None
    assert stats["weight_sums"] == pytest.approx(
        {"mean": weights.mean(), "min": weights.min(), "max": weights.max()}
    )


def test_an_empty_cache(tmp_path: Path) -> None:
    write(tmp_path / "c", [])
    assert inspect_cache(tmp_path / "c")["records_bytes_per_position"] is None
    stats = stats_cache(tmp_path / "c")
    assert stats["unique_ids"]["mean"] is stats["entropy_nats"] is None
    json.dumps(stats)


def test_statistics(tmp_path: Path) -> None:
    sequences = [random_sequence(i, 400) for i in range(4)]
    write(tmp_path / "c", sequences)
    stats = stats_cache(tmp_path / "c")
    sizes = np.concatenate([np.diff(sequence.offsets) for sequence in sequences])
    counts = np.concatenate([sequence.counts for sequence in sequences])
    held = sizes[sizes > 0]
    assert stats["positions"] == 1600
    assert stats["empty_positions"] == (sizes == 0).sum() > 0
    assert stats["unique_ids"]["mean"] == pytest.approx(held.mean())
    assert stats["unique_ids"]["min"] == held.min()
    assert stats["unique_ids"]["max"] == held.max()
    assert stats["unique_ids"]["percentiles"]["p50"] == np.percentile(
        held, 50, method="inverted_cdf"
    )
    assert stats["unique_ids"]["histogram"] == {
        str(size): int((held == size).sum()) for size in np.unique(held)
    }
    assert stats["counts"]["mean"] == pytest.approx(counts.mean())
    assert stats["counts"]["histogram"]["1"] == (counts == 1).sum()
    entropies = []
    for sequence in sequences:
        for start, stop in zip(sequence.offsets[:-1], sequence.offsets[1:], strict=True):
            p = sequence.counts[start:stop] / 20
            if len(p):
                entropies.append(-(p * np.log(p)).sum())
    assert stats["entropy_nats"]["mean"] == pytest.approx(np.mean(entropies), rel=1e-6)
    assert stats["entropy_nats"]["max"] == pytest.approx(max(entropies), rel=1e-6)
    assert stats["paper_bytes_per_position"] == 3 * len(counts) / 1600
    assert sum(stats["bytes_per_position"].values()) * 1600 == pytest.approx(
        sl.open(tmp_path / "c").nbytes
    )
