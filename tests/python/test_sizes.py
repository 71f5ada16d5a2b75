"""The sizes that the project promises, on real teacher samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import sparselogits as sl
from sparselogits.inspect import inspect_cache

# name, rounds, limit of bytes/position for records, everything but the tokens included
PROMISES = [
    ("multinomial50-sharp", 50, 29.0),
    ("multinomial50-flat", 50, 45.0),
    ("systematic18-sharp", 18, 29.0),
]


@pytest.mark.parametrize("name, rounds, limit", PROMISES)
def test_real_samples(
    tmp_path: Path, real_samples: Path, name: str, rounds: int, limit: float
) -> None:
    with np.load(real_samples / f"smollm2-135m-{name}-dev.npz") as file:
        tokens, offsets = file["tokens"], file["offsets"].astype(np.int64)
        token_ids, counts = file["token_ids"], file["counts"]
    config = sl.CacheConfig(
        vocab_size=49152, rounds=rounds, sampler=name.split("-")[0][:-2], codec="packed"
    )
    with sl.CacheWriter(tmp_path / "c", config) as writer:
        writer.append_many(tokens.reshape(-1), np.arange(177) * 512, offsets, token_ids, counts)
    report = inspect_cache(tmp_path / "c")
    assert report["positions"] == 90_112
    assert report["records_bytes_per_position"] <= limit
    assert report["overhead_bits_per_position"] <= 1.5
    if name.endswith("flat"):  # here no block was worth wrapping: every section is in the open
        assert report["sections"]["wrapped_blocks"]["bits"] == 0
    cache = sl.open(tmp_path / "c")
    whole = cache.read_sequences(np.arange(len(cache)))
    np.testing.assert_array_equal(whole.token_ids, token_ids)
    np.testing.assert_array_equal(whole.counts, counts)
    np.testing.assert_array_equal(whole.offsets, offsets)
    np.testing.assert_array_equal(whole.input_ids, tokens.reshape(-1))
