"""Shards with compact blocks and models written by hand, for the golden files.

`MODELS` has the files that the shards made so far need beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from golden_valid import Numbers, Rows, content
from reference_algorithms import xxh64
from reference_codes import (
    CLASS,
    COUNT,
    COUNT_PAIR,
    ENTRY_NUMBER,
    GAP,
    BlockFormat,
    families,
)
from reference_compact_encoder import Edits, encode_compact_block
from reference_encoder import Record, ShardEncoder, fingerprint
from reference_model import model_file
from reference_model_encoder import (
    ClassPlan,
    FamilyPlan,
    ModelPlan,
    encode_model,
    flat_lengths,
    skewed_lengths,
)

Made = tuple[bytes, dict[str, Any]]
MODELS: dict[str, bytes] = {}
COUNTS_50 = BlockFormat(300, 50, 0, 0, True)


def model_of(plan: ModelPlan) -> int:
    """Keeps a model; returns its digest."""
    model = encode_model(plan)
    digest = xxh64(model)
    MODELS[model_file(digest)] = model
    return digest


def header_of(form: BlockFormat, digest: int) -> dict[str, Any]:
    """The fields of a shard's header that go with a model."""
    return {
        "vocab_size": form.vocab_size, "rounds": form.rounds, "value_kind": form.value_kind,
        "weight_dtype": form.weight_dtype, "store_tokens": int(form.tokens), "codec": 1,
        "incompatible_features": 2, "model_digest": digest,
    }  # fmt: skip


def compact_shard(
    rows: Rows,
    plan: ModelPlan,
    *,
    classes: Callable[[int], int] = lambda position: 0,
    edits: Edits | None = None,
    directory: tuple[int, int, int] | None = None,
    packed: Sequence[int] = (),
    wrap: bool = False,
    **header: Any,
) -> Made:
    """A shard whose blocks are compact, except those of the indices `packed`."""
    fields = header_of(plan.form, model_of(plan)) | header
    fields["incompatible_features"] |= int(wrap)
    shard = ShardEncoder({}, **fields)
    records = [record for _, _, part in rows for record in part]
    tokens = [token for _, ids, _ in rows for token in ids]
    size = 1 << shard.header["block_log2"]
    for i, first in enumerate(range(0, len(records), size)):
        part = records[first : first + size]
        its_tokens = tokens[first : first + size] if shard.header["store_tokens"] else None
        block = None
        if i not in packed:
            block = encode_compact_block(
                part, its_tokens, plan, classes=classes, edits=edits, directory=directory
            )
        shard.block(part, its_tokens, compact=block, wrap=wrap)
    shard.sequences([(i, fingerprint(ids), len(part)) for i, ids, part in rows])
    shard.commit()
    return shard.finish(), content(shard.header, {}, rows)


def sequence(numbers: Numbers, records: Sequence[Record], vocab_size: int) -> Rows:
    """One sequence: most tokens are ids of the record before them."""
    tokens = [numbers.below(vocab_size)]
    for record in records[:-1]:
        known = len(record) > 0 and numbers.below(3) > 0
        tokens.append(record[numbers.below(len(record))][0] if known else numbers.below(vocab_size))
    return [(31, tokens, list(records))]


def mixed_plan(form: BlockFormat) -> ModelPlan:
    """Three classes: lists of their own and the global one, of its own, and none but raw ids."""
    numbers = Numbers(50)
    shared = numbers.ids(form.vocab_size, min(form.vocab_size, 40))[::-1]
    own = numbers.ids(form.vocab_size, min(form.vocab_size, 11))
    table = families(form, 3)

    def plan(number: int, *codes: Callable[[int], list[int]]) -> FamilyPlan:
        contexts, symbols = table[number].contexts, table[number].symbols
        return FamilyPlan(
            [context % len(codes) for context in range(contexts)], [code(symbols) for code in codes]
        )

    plans: Mapping[int, FamilyPlan] = {
        CLASS: plan(CLASS, lambda n: [1, 2, 2], lambda n: [2, 2, 1], flat_lengths),
        ENTRY_NUMBER: plan(ENTRY_NUMBER, flat_lengths, skewed_lengths),
        COUNT_PAIR: plan(COUNT_PAIR, skewed_lengths, flat_lengths),
        COUNT: plan(COUNT, flat_lengths, skewed_lengths, flat_lengths),
        GAP: plan(GAP, skewed_lengths, flat_lengths),
    }
    classes = [
        ClassPlan(own, hazards=None),
        ClassPlan(own[::2] + own[1::2], own_bits=[3, 1, 0], global_bits=[4, 4, 3]),
        ClassPlan([], global_bits=[0, 1, 6], hazards=[127, 0, 40, 8]),
    ]
    used = {number: p for number, p in plans.items() if table[number].in_model}
    return ModelPlan(form, classes, shared, used)


def by_turns(position: int) -> int:
    """The three classes, in all orders."""
    return (position * position + position // 5) % 3


def mixed(form: BlockFormat, seed: int, most: int = 12, length: int = 50, **shard: Any) -> Made:
    """A shard of all zones and codes of `mixed_plan`; every seventh record is empty."""
    numbers, plan = Numbers(seed), mixed_plan(form)
    records: list[Record] = []
    for i in range(length):
        # Half of the ids are in the lists.
        record = dict(numbers.record(form.vocab_size, form.rounds, most))
        listed = plan.global_ids + plan.own_ids[0]
        ids = sorted({listed[t % len(listed)] if numbers.below(2) else t for t in record})
        counts = numbers.counts(form.rounds, len(ids))
        records.append([] if i % 7 == 3 else list(zip(ids, counts, strict=True)))
    rows = sequence(numbers, records, form.vocab_size)
    return compact_shard(rows, plan, classes=by_turns, **shard)
