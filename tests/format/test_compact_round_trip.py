"""Compact blocks: what one implementation writes, the other reads; what one refuses, the other
refuses too. The library writes with models that it trained, the reference with random ones.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import reference_decoder
from compact_shards import header_of
from drawn_caches import DTYPES, caches, plain, write
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from library import decode_shard
from reference_algorithms import xxh64
from reference_codes import BlockFormat, families
from reference_compact_encoder import encode_compact_block
from reference_conventions import bits
from reference_encoder import ShardEncoder, fingerprint
from reference_model import model_file
from reference_model_encoder import (
    ClassPlan,
    FamilyPlan,
    ModelPlan,
    encode_model,
    flat_lengths,
    skewed_lengths,
)

import sparselogits as sl

SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
ERRORS = {
    sl.CorruptionError: "Corruption",
    sl.TruncatedError: "Truncated",
    sl.UnsupportedError: "Unsupported",
}


def form_of(config):
    """The format of a configuration's blocks."""
    weights = config["value_kind"] == "weights"
    dtype = DTYPES[config["weight_dtype"]] if weights else 0
    stored = config["store_tokens"]
    return BlockFormat(config["vocab_size"], config["rounds"], int(weights), dtype, stored)


def random_plan(form, numbers):
    """Any model that the text allows and that has codes for everything."""

    def some_ids():
        size = int(numbers.integers(0, min(60, form.vocab_size) + 1))
        ids = numbers.choice(min(form.vocab_size, 2000), size, replace=False)
        return (ids * (form.vocab_size // 2000 or 1)).tolist()

    def widths(length):
        out = []
        while length > 0:
            out.append(int(numbers.integers(0, bits(length - 1) + 1)))
            length -= 2 ** out[-1]
        return out

    shared = some_ids()
    classes = []
    for _ in range(int(numbers.integers(1, 5))):
        own = some_ids()
        own_bits, global_bits = widths(len(own)), widths(len(shared))
        hazards = numbers.integers(0, 128, len(own_bits) + len(global_bits) + 1).tolist()
        classes.append(ClassPlan(own, own_bits, global_bits, hazards))
    plans = {}
    for i, family in enumerate(families(form, len(classes))):
        if family.in_model:
            codes = [flat_lengths(family.symbols)]
            for _ in range(int(numbers.integers(0, 3))):
                short = int(numbers.integers(0, family.symbols))
                codes.append(skewed_lengths(family.symbols, short))
            contexts = numbers.integers(0, len(codes), family.contexts).tolist()
            plans[i] = FamilyPlan(contexts, codes)
    return ModelPlan(form, classes, shared, plans)


def encode(config, rows, plan, model, numbers, change=None):
    """A shard with compact blocks of 64 positions; `change` edits the content of the first."""
    form = form_of(config)
    names = ("sampler", "temperature")
    header = {name: config[name] for name in names} | header_of(form, xxh64(model))
    header["sampler"] = header["sampler"].encode()
    shard = ShardEncoder({}, **header)
    tokens = [token for _, ids, _ in rows for token in ids]
    records = [record for _, _, part in rows for record in part]
    classes = numbers.integers(0, len(plan.own_ids), 64).tolist()
    for first in range(0, len(records), 64):
        part = slice(first, first + 64)
        stored = tokens[part] if form.tokens else None
        content = encode_compact_block(records[part], stored, plan, classes=lambda i: classes[i])
        shard.block(records[part], stored, compact=content, edit=None if first else change)
    if rows:
        shard.sequences([(i, fingerprint(ids), len(part)) for i, ids, part in rows])
    shard.commit()
    return shard.finish()


def both(data, model, positions=None):
    """What the library and the reference make of a shard: its content, or the class of an error."""
    name = model_file(xxh64(model))
    try:
        shard = reference_decoder.decode_shard(data, {name: model})
        chosen = np.arange(len(shard.records)) if positions is None else positions
        tokens = None if shard.tokens is None else [shard.tokens[i] for i in chosen]
        reference = {"tokens": tokens, "records": [shard.records[i] for i in chosen]}
    except reference_decoder.FormatError as error:
        reference, chosen = type(error).__name__, np.arange(0)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "shard.slc"
        path.write_bytes(data)
        path.with_name(name).write_bytes(model)
        try:
            library = decode_shard(path, chosen)
        except sl.FormatError as error:
            library = ERRORS[type(error)]
    return library, reference


@SETTINGS
@given(caches(), st.integers(0, 2), st.integers(0, 3))
def test_library_to_reference(cache, flush_every, num_classes):
    config, rows = cache
    assume(any(record for _, _, part in rows for record in part))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        write(path / "packed", config, rows)
        model = sl.train_model(path / "packed", num_classes=num_classes or None)
        write(path / "compact", config | {"codec": "compact"}, rows, flush_every, model=model)
        decoded = reference_decoder.decode(path / "compact")
    want = plain(config, rows)
    for name, values in want.items():
        found = [shard[name] for shard in decoded["shards"]]
        assert (values or []) == [value for part in found for value in part or []]
    assert decoded["manifest"]["config"]["codec"] == "compact"


@SETTINGS
@given(caches(), st.integers(0, 2**32))
def test_reference_to_library(cache, seed):
    config, rows = cache
    numbers = np.random.default_rng(seed)
    plan = random_plan(form_of(config), numbers)
    model = encode_model(plan)
    data = encode(config, rows, plan, model, numbers)
    positions = numbers.permutation(sum(len(part) for _, _, part in rows))
    library, reference = both(data, model, positions)
    assert library == reference
    want = plain(config, rows)["records"]
    assert reference["records"] == [list(map(tuple, want[i])) for i in positions]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", ["counts", "weights"])
def test_flipped_bits_of_a_block(kind, seed):
    """Under good checksums: the same content from both, or the same class of error."""
    numbers = np.random.default_rng(seed)
    config = small_config(kind, seed)
    plan = random_plan(form_of(config), numbers)
    model, rows = encode_model(plan), small_rows(config, numbers)
    length = []
    encode(config, rows, plan, model, np.random.default_rng(seed), lambda c: length.append(len(c)))
    refused = 0
    for bit in numbers.permutation(8 * length[0])[:60].tolist():

        def flip(content, bit=bit):
            content[bit // 8] ^= 1 << bit % 8

        data = encode(config, rows, plan, model, np.random.default_rng(seed), flip)
        library, reference = both(data, model)
        assert library == reference
        refused += reference == "Corruption"
    assert refused > 0


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["counts", "weights"])
def test_flipped_bits_of_a_model(kind, seed):
    """Under a good digest: the same content from both, or the same class of error."""
    numbers = np.random.default_rng(seed)
    config = small_config(kind, seed)
    plan = random_plan(form_of(config), numbers)
    model, rows = encode_model(plan), small_rows(config, numbers)
    outcomes = set()
    for bit in numbers.permutation(8 * len(model))[:80].tolist():
        flipped = bytearray(model)
        flipped[bit // 8] ^= 1 << bit % 8
        data = encode(config, rows, plan, flipped, np.random.default_rng(seed))
        library, reference = both(data, bytes(flipped))
        assert library == reference
        outcomes.add(str(reference)[:9])
    assert len(outcomes) > 1, "some flips are harmless, or show in the records"


def small_config(kind, seed):
    """One of a few configurations."""
    return {
        "vocab_size": [7, 300, 49152][seed % 3], "rounds": [50, 3, 65535][seed // 3 % 3],
        "value_kind": kind, "weight_dtype": ["float32", "float16", "bfloat16"][seed % 3],
        "store_tokens": seed % 2 == 0, "sampler": "multinomial", "temperature": 1.0,
    }  # fmt: skip


def small_rows(config, numbers):
    """One sequence of 40 positions."""
    records = []
    for _ in range(40):
        limit = min(5, config["vocab_size"], config["rounds"])
        k = int(numbers.integers(0, limit + 1))
        ids = np.sort(numbers.choice(config["vocab_size"], k, replace=False)).tolist()
        if config["value_kind"] == "weights" or k == 0:
            values = (numbers.integers(1, 9, k) / 8).tolist()
        else:
            values = (1 + numbers.multinomial(config["rounds"] - k, np.full(k, 1 / k))).tolist()
        records.append(list(zip(ids, values, strict=True)))
    return [(1, numbers.integers(0, config["vocab_size"], 40).tolist(), records)]
