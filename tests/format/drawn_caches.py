"""Caches of all kinds, small and random, and what they hold as plain data."""

from __future__ import annotations

import struct

import numpy as np
from hypothesis import strategies as st
from reference_encoder import fingerprint

import sparselogits as sl

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


def write(path, config, rows, flush_every=0, **writer_options):
    """Writes a cache with the library."""
    dtype = {"counts": np.uint16, "weights": np.float32}[config["value_kind"]]
    config_of = sl.CacheConfig(**config)
    with sl.CacheWriter(path, config_of, {"note": "é"}, **writer_options) as writer:
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
