"""What one implementation writes, the other reads: the library and the reference, both ways."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import numpy as np
import pytest
import reference_decoder
from drawn_caches import DTYPES, caches, plain, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from library import contents, make_cache
from reference_encoder import encode_shard

import sparselogits as sl

SETTINGS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@SETTINGS
@given(caches(), st.integers(0, 2))
def test_library_to_reference(cache, flush_every):
    config, rows = cache
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "cache"
        write(path, config, rows, flush_every)
        decoded = reference_decoder.decode(path)
    want = plain(config, rows)
    for name, values in want.items():
        found = [shard[name] for shard in decoded["shards"]]
        if values is None:
            assert all(part is None for part in found)
        else:
            assert [value for part in found for value in part] == values
    assert all(shard["metadata"] == {"note": "é"} for shard in decoded["shards"])
    assert decoded["manifest"]["metadata"] == {"note": "é"}
    stated = decoded["manifest"]["config"]
    assert {name: stated[name] for name in config} == config


@SETTINGS
@given(caches(), st.integers(0, 2), st.booleans(), st.sampled_from([6, 7, 16]))
def test_reference_to_library(cache, commit_every, wrap, block_log2):
    config, rows = cache
    weights = config["value_kind"] == "weights"
    data = encode_shard(
        rows,
        {"note": "é"},
        commit_every=commit_every,
        wrap=wrap,
        block_log2=block_log2,
        vocab_size=config["vocab_size"],
        rounds=config["rounds"],
        value_kind=int(weights),
        weight_dtype=DTYPES[config["weight_dtype"]] if weights else 0,
        store_tokens=int(config["store_tokens"]),
        sampler=config["sampler"].encode(),
        temperature=config["temperature"],
        tokenizer_fingerprint=int(config["tokenizer_fingerprint"] or "0", 16),
    )
    with tempfile.TemporaryDirectory() as directory:
        shard = reference_decoder.decode_shard(data)
        opened = sl.open(make_cache(Path(directory) / "cache", data, shard))
        opened.verify()
        assert contents(opened) == plain(config, rows)


@pytest.mark.parametrize("cut", [0, 1, 40])
def test_what_was_flushed_survives_a_cut(tmp_path, cut):
    """Section 9: a partial shard holds what was committed, whatever stands after its last CMIT."""
    config = sl.CacheConfig(vocab_size=9, rounds=2)
    rows = [(i, [1, 2], [[(i, 2)], [(0, 1), (8, 1)]]) for i in range(3)]
    with contextlib.suppress(KeyboardInterrupt), sl.CacheWriter(tmp_path / "c", config) as writer:
        for identity, tokens, records in rows:
            entries = np.array([entry for record in records for entry in record])
            offsets = np.cumsum([0, *map(len, records)])
            writer.append(
                np.array(tokens), offsets, entries[:, 0], entries[:, 1], sequence_id=identity
            )
            writer.flush()
            if identity == 1:
                (partial,) = (tmp_path / "c").glob("*.partial")
                size = partial.stat().st_size
        raise KeyboardInterrupt
    with partial.open("r+b") as file:
        file.truncate(size + cut)
    sl.recover(tmp_path / "c")
    decoded = reference_decoder.decode(tmp_path / "c")
    assert [row[0] for shard in decoded["shards"] for row in shard["sequences"]] == [0, 1]
    assert decoded["manifest"]["complete"] is False
