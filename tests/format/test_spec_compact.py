"""Sections 12 and 13 of v1.md against the reference decoder and the C++ core."""

from __future__ import annotations

import re

import pytest
import reference_codes
import reference_compact
import reference_model
from reference_codes import BlockFormat, families, value_symbols
from specification import fields, number, section, stated

from sparselogits import _core

BLOCK = section("12. Content of a `compact` block")
CODES, RECORD = section("12.1 Codes"), section("12.2 Record")
MODEL = section("13. Codec models")
CORE = _core.format_constants()["compact"]


@pytest.mark.parametrize(
    "text,table,length",
    [
        (BLOCK, reference_compact.COMPACT_HEADER, "block_header_length"),
        (MODEL, reference_model.MODEL_HEADER, "model_header_length"),
    ],
    ids=["block", "model"],
)
def test_tables(text, table, length):
    assert fields(text) == table
    ends = [offset + size for _, offset, size in table]
    assert [offset for _, offset, _ in table] == [0, *ends[:-1]], "fields without gaps"
    assert ends[-1] == CORE[length]


def test_model_header():
    magic = re.search(r"`magic` \| `([0-9A-F ]+)`", MODEL)
    assert bytes.fromhex(magic[1]) == reference_model.MODEL_MAGIC
    version = stated(r"`version` \| (\d+)\.", MODEL)
    assert version == reference_model.MODEL_VERSION
    assert stated(r"It is (\d+) bytes of header", MODEL) == CORE["model_header_length"]


@pytest.mark.parametrize(
    "text,pattern,ours,theirs",
    [
        (BLOCK, r"\*\*stretches\*\* of (\d+)", reference_compact.COMPACT_STRETCH, "stretch"),
        (BLOCK, r"`start_bits` \| 0 … (\d+)", reference_compact.MOST_START_BITS, "start_bits"),
        (RECORD, r"`(\d+) · C\(excess\) \+ C\(left\)`", reference_codes.SUMS, "sum_classes"),
        (RECORD, r"where it is (\d+), a value", 7, "pair_limit"),
        (CODES, r"`x < (\d+)`: symbol", reference_codes.PLAIN_VALUES, "plain_values"),
        (RECORD, r"\+ (\d+) · wide`", reference_codes.GAP_RATIOS, "gap_classes"),
        (RECORD, r"hazard\[next\] \+ (\d+)\)\)", reference_codes.HAZARD_ZERO, "hazard_zero"),
        (MODEL, r"at most (2\^26) bytes", reference_model.MODEL_LIMITS["model_bytes"], "bytes"),
        (MODEL, r"`num_classes` \| 1 … (\d+)", reference_model.MODEL_LIMITS["num_classes"],
         "classes"),
        (MODEL, r"numbered from 0; at most (\d+)", reference_model.MODEL_LIMITS["buckets"],
         "buckets"),
        (MODEL, r"its codes in 9 bits, 1 … (\d+)", reference_model.MODEL_LIMITS["codes"], "codes"),
        (MODEL, r"`bits ≤ (\d+)`", reference_model.MOST_BUCKET_BITS, "bucket_bits"),
    ],
)  # fmt: skip
def test_numbers(text, pattern, ours, theirs):
    assert stated(pattern, text) == ours == CORE[theirs]


def test_largest_numbers():
    """Where the text states the largest, or the width, of what is counted elsewhere."""
    assert stated(r"`min\((\d+), E\(x\) − 4\)`", CODES) == CORE["sum_classes"] - 1
    assert stated(r"`min\((\d+), max\(0, E\(k − i\)", RECORD) == CORE["gap_classes"] - 1
    width = stated(r"\n   (\d+) bits for each of its buckets: `hazard`", MODEL)
    assert 2**width - 1 == CORE["hazard"]


FORMATS = {
    "counts": BlockFormat(2**24, 65535, 0, 0, True),
    "counts without tokens": BlockFormat(49152, 50, 0, 0, False),
    "rounds of 2": BlockFormat(300, 2, 0, 0, True),
    "vocabulary of 1": BlockFormat(1, 1, 0, 0, True),
    "weights": BlockFormat(2**24, 65535, 1, 1, True),
    "weights without tokens": BlockFormat(40, 50, 1, 3, False),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("num_classes", [1, 7, 256])
def test_families(name, num_classes):
    form = FORMATS[name]
    table = [tuple(row) for row in re.findall(
        r"^\| (\d) `\w+` \| `?(.+?)`? \| (.+?) \| (\d+) \|", CODES, re.M)]  # fmt: skip
    assert [int(row[0]) for row in table] == list(range(8))
    known = {
        "K": num_classes, "M": form.most_entries, "V": value_symbols, "rounds": form.rounds,
        "counts": form.value_kind == 0, "weights": form.value_kind == 1,
        "codes_tokens": form.tokens,
    }  # fmt: skip

    def meant(text):
        for sign, python in (("`", ""), ("−", "-"), ("≥", ">="), (", else", " else")):
            text = text.replace(sign, python)
        return eval(text, known)

    rows = [
        (meant(contexts), meant(symbols), int(longest)) for _, contexts, symbols, longest in table
    ]
    ours = [
        (family.contexts, family.symbols, family.longest) for family in families(form, num_classes)
    ]
    theirs = _core.compact_families(
        form.vocab_size, form.rounds, form.value_kind == 1, form.tokens, num_classes
    )
    assert rows == ours == theirs


def test_values():
    """The symbols of values: those of the text, in order, and V counts them."""
    seen = []
    for x in [*range(5000), 65534, 65535]:
        b = x.bit_length() - 3
        symbol = x if x < 32 else 32 + 4 * (b - 3) + x // 2**b % 4
        assert value_symbols(x) == symbol + 1
        seen.append(symbol)
    assert seen == sorted(seen)
    assert number("65,535") == reference_codes.MOST_ENTRIES
