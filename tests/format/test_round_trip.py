"""What one implementation writes, the other reads: the library and the reference, both ways."""

from __future__ import annotations

import contextlib
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
import reference_decoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from library import contents, make_cache
from reference_encoder import encode_shard, fingerprint

import sparselogits as sl

SETTINGS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
DTYPES = {"float32": 1, "float16": 2, "bfloat16": 3}


def representable(weight: float, dtype: str) -> float:
    """The nearest weight, towards zero, that the dtype holds."""
    if dtype == "float16":
        return float(np.float16(weight))
    (bits,) = struct.unpack("<I", struct.pack("<f", weight))
    if dtype == "bfloat16":
        bits &= 0xFFFF0000
    return float(struct.unpack("<f", struct.pack("<I", bits))[0])


@st.composite
def caches(draw):
    """A configuration and the sequences (sequence_id, tokens, records) of a cache."""
    vocab_size = draw(st.sampled_from([1, 2, 3, 255, 256, 257, 49152, 151936, 2**24]))
    rounds = draw(st.sampled_from([1, 2, 50, 65535]))
    kind = draw(st.sampled_from(["counts", "weights"]))
    dtype = draw(st.sampled_from(sorted(DTYPES))) if kind == "weights" else "float32"
    config = {
        "vocab_size": vocab_size,
        "rounds": rounds,
        "value_kind": kind,
        "weight_dtype": dtype,
        "store_tokens": draw(st.booleans()),
        "sampler": draw(st.sampled_from(["multinomial", "systematic", "x-1_0123456789ab"])),
        "temperature": draw(st.sampled_from([1.0, 0.1, 1e300])),
        "tokenizer_fingerprint": draw(st.sampled_from([None, "00000000000000ff", "f" * 16])),
    }
    numbers = np.random.default_rng(draw(st.integers(0, 2**32)))
    empty = draw(st.sampled_from([0.0, 0.3, 1.0]))
    most = draw(st.integers(1, 20))
    lengths = draw(st.lists(st.sampled_from([0, 1, 2, 5, 63, 64, 65, 130]), max_size=5))
    rows = []
    for identity, length in enumerate(lengths):
        tokens = numbers.integers(0, vocab_size, length).tolist()
        records = []
        for _ in range(length):
            limit = min(most, vocab_size, rounds if kind == "counts" else most)
            k = 0 if numbers.random() < empty else int(numbers.integers(1, limit + 1))
            ids = np.unique(numbers.integers(0, vocab_size, k))
            k = len(ids)
            if kind == "counts" and k:
                values = (1 + numbers.multinomial(rounds - k, np.full(k, 1 / k))).tolist()
            else:
                values = [representable(float(w), dtype) for w in numbers.gamma(0.5, 2.0, k)]
            records.append(list(zip(ids.tolist(), values, strict=True)))
        rows.append((identity * 10**18 + 3, tokens, records))
    return config, rows


def plain(config, rows):
    """What a decoder makes of it, in the form of `Shard.to_dict`."""
    return {
        "sequences": [[i, f"{fingerprint(ids):016x}", len(ids)] for i, ids, _ in rows],
        "tokens": [t for _, ids, _ in rows for t in ids] if config["store_tokens"] else None,
        "records": [[list(entry) for entry in record] for _, _, part in rows for record in part],
    }


def write(path, config, rows, flush_every):
    """Writes a cache with the library."""
    dtype = {"counts": np.uint16, "weights": np.float32}[config["value_kind"]]
    with sl.CacheWriter(path, sl.CacheConfig(**config), {"note": "é"}) as writer:
        for i, (identity, tokens, records) in enumerate(rows):
            entries = [entry for record in records for entry in record]
            writer.append(
                np.array(tokens, np.int32),
                np.cumsum([0, *map(len, records)], dtype=np.int64),
                np.array([token_id for token_id, _ in entries], np.int32),
                sequence_id=identity,
                **{config["value_kind"]: np.array([value for _, value in entries], dtype)},
            )
            if flush_every and i % flush_every == 0:
                writer.flush()


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
