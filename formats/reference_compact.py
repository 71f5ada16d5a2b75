"""Section 12 of v1.md: the content of a compact block. Slow and obvious."""

from __future__ import annotations

from typing import Any

from reference_codes import (
    CLASS,
    COUNT,
    COUNT_PAIR,
    ENTRY_NUMBER,
    GAP,
    SUMS,
    TOKEN_BUCKET,
    TOKEN_RANK,
    WEIGHT,
    BlockFormat,
    gap_context,
    sum_class,
    take_symbol,
    value_of,
)
from reference_conventions import COUNTS, WEIGHT_BITS, Bits, is_weight, require, u, weight_of
from reference_model import Bucket, Model

Record = list[tuple[int, int | float]]
COMPACT_HEADER = [("start_bits", 0, 1), ("reserved", 1, 3), ("step", 4, 4), ("bias", 8, 4)]
COMPACT_HEADER_LENGTH = 12
COMPACT_STRETCH = 16
MOST_START_BITS = 32


def decode_compact_block(
    frame: dict[str, Any], form: BlockFormat, model: Model
) -> tuple[list[int] | None, list[Record]]:
    """The tokens (None where not stored) and the records of a block of this format."""
    content, n, start = frame["content"], frame["num_items"], frame["start"]
    fixed = COMPACT_HEADER_LENGTH
    require(len(content) >= fixed, "content_length", start, "no room for the block's fields")
    start_bits, step, bias = content[0], u(content[4:8]), u(content[8:12])
    require(start_bits <= MOST_START_BITS, "start_bits", start, f"{start_bits} is above 32")
    require(not any(content[1:4]), "reserved", start + 1, "reserved bytes that are not zero")

    stretches = -(-n // COMPACT_STRETCH)
    directory_bits = (form.id_bits if form.tokens else 0) + (stretches - 1) * start_bits
    records_at = fixed + -(-directory_bits // 8)
    require(len(content) >= records_at, "content_length", start, "no room for the records")
    directory = Bits(content[fixed:records_at], start + fixed, "directory")
    tokens: list[int] | None = None
    if form.tokens:
        tokens = [directory.take(form.id_bits)]
        check_token(tokens[0], form, directory)
    edges = [0]
    for i in range(1, stretches):
        edges.append(i * step + directory.take(start_bits) - bias)
    directory.finish()
    source = Bits(content[records_at:], start + records_at, "records")
    end = source.end
    ok = all(0 <= edge <= end for edge in edges)
    require(ok, "directory", start + fixed, "a stretch that starts outside of the records")

    records: list[Record] = []
    for i in range(stretches):
        last = i == stretches - 1
        source.end = end if last else edges[i + 1]
        of_before = len(model.buckets)  # K
        for position in range(i * COMPACT_STRETCH, min((i + 1) * COMPACT_STRETCH, n)):
            of_before, record = decode_record(source, model, of_before)
            if tokens is not None and position < n - 1:
                tokens.append(decode_token(source, model, of_before, record))
                check_token(tokens[-1], form, source)
            records.append(sorted(record))
        if not last:
            ok = source.at == source.end
            require(ok, "stretch_padding", source.offset, "the records end before their stretch")
    source.field = "stretch_padding"
    source.finish()
    entries = sum(map(len, records))
    ok = entries == frame["num_entries"]
    require(ok, "num_entries", frame["offset"] + 20, f"the records have {entries} entries")
    return tokens, records


def symbol(source: Bits, model: Model, family: int, context: int) -> int:
    """A symbol of a family in a context; 0 of a family that is not in the model."""
    if not model.codes[family]:
        return 0
    return take_symbol(source, model.codes[family][model.maps[family][context]])


def value(source: Bits, model: Model, family: int, context: int) -> int:
    """A value of a family in a context."""
    return value_of(source, symbol(source, model, family, context))


def decode_record(source: Bits, model: Model, of_before: int) -> tuple[int, Record]:
    """Section 12.2, steps 1 to 5: the class, and the entries in the order of step 4."""
    form = model.form
    c = symbol(source, model, CLASS, of_before)
    k = value(source, model, ENTRY_NUMBER, c)
    ok = k <= form.most_entries
    require(ok, "entry_numbers", source.offset, f"{k} entries in a record")
    if k == 0:
        return c, []
    counts = decode_counts(source, model, k) if form.value_kind == COUNTS else []
    ids, numbers = decode_ids(source, model, c, k)
    if form.value_kind == COUNTS:
        return c, list(zip(ids, counts, strict=True))
    rest = WEIGHT_BITS[form.weight_dtype] - 9
    weights = []
    for b in numbers:
        high = symbol(source, model, WEIGHT, b // 32)
        weights.append(weight_of(high << rest | source.take(rest), form.weight_dtype))
        message = f"the weight {weights[-1]} is NaN or infinite"
        require(is_weight(weights[-1]), "weights", source.offset, message)
    return c, list(zip(ids, weights, strict=True))


def decode_counts(source: Bits, model: Model, k: int) -> list[int]:
    """Step 3."""
    excess, left = model.form.rounds - k, k
    above: list[int] = []

    def put(more: int) -> None:
        nonlocal excess, left
        ok = more <= excess
        require(ok, "counts", source.offset, f"counts sum to rounds + {more - excess}")
        above.append(more)
        excess -= more
        left -= 1

    while left > 2 and excess > 0:
        pair = symbol(source, model, COUNT_PAIR, SUMS * sum_class(excess) + sum_class(left))
        for more in (pair // 8, pair % 8):
            if more == 7:
                require(excess >= 7, "counts", source.offset, "counts sum to more than rounds")
                context = SUMS * sum_class(excess - 7) + sum_class(left)
                more += value(source, model, COUNT, context)
            put(more)
    if left == 2 and excess > 0:
        put(value(source, model, COUNT, SUMS * sum_class(excess) + sum_class(2)))
    while left > 1:
        put(0)
    put(excess)
    return [1 + more for more in above]


def decode_ids(source: Bits, model: Model, c: int, k: int) -> tuple[list[int], list[int]]:
    """Step 4: the ids, and the bucket of each."""
    ids: list[int] = []
    numbers: list[int] = []
    following, wide = 0, 0
    for i in range(k):
        context = gap_context(k - i, model.hazards[c][following], wide)
        b = following + value(source, model, GAP, context)
        ok = b < len(model.buckets[c])
        require(ok, "ids", source.offset, f"bucket {b} of {len(model.buckets[c])}")
        ids.append(take_entry(source, model.buckets[c][b], "ids"))
        numbers.append(b)
        require(ids[-1] < model.form.vocab_size, "ids", source.offset, f"{ids[-1]} ≥ vocab_size")
        wide = int(model.buckets[c][b].bits > 0)
        following = b if wide else b + 1
    require(len(set(ids)) == k, "ids", source.offset, "an id is there twice")
    return ids, numbers


def take_entry(source: Bits, bucket: Bucket, name: str) -> int:
    """An entry of a bucket: its id."""
    found = bucket.entry(number := source.take(bucket.bits))
    require(found is not None, name, source.offset, f"entry {number} is beyond its list")
    assert found is not None
    return found


def decode_token(source: Bits, model: Model, c: int, record: Record) -> int:
    """Step 6: the input token of the next position; `record` is in the order of step 4."""
    rank = 0
    if record:
        context = 0
        if model.form.value_kind == COUNTS:
            most = max(count for _, count in record)
            context = min(15, int(16 * (most - 1) // model.form.rounds))
        rank = value(source, model, TOKEN_RANK, context)
        ok = rank <= len(record)
        require(ok, "tokens", source.offset, f"entry {rank} of {len(record)}")
    if rank > 0:
        return sorted(record, key=lambda entry: -entry[1])[rank - 1][0]
    b = symbol(source, model, TOKEN_BUCKET, c)
    ok = b < len(model.buckets[c])
    require(ok, "tokens", source.offset, f"bucket {b} of {len(model.buckets[c])}")
    return take_entry(source, model.buckets[c][b], "tokens")


def check_token(token: int, form: BlockFormat, source: Bits) -> None:
    """A token is an id of the vocabulary."""
    require(token < form.vocab_size, "tokens", source.offset, f"token {token} ≥ vocab_size")
