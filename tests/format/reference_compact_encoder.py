"""A tiny encoder of compact blocks, the counterpart of formats/reference_compact.py.

It checks nothing, so that it can write what no honest writer would: what is coded of a record can
be replaced. Written from v1.md alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

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
    gap_context,
    sum_class,
)
from reference_compact import COMPACT_HEADER, COMPACT_STRETCH
from reference_conventions import COUNTS, WEIGHT_BITS, bits
from reference_encoder import BitWriter, Record, pack, weight_pattern
from reference_model_encoder import ModelPlan, code_words

Edits = Mapping[tuple[int, str], int]  # (position, what is coded) -> what is written instead


class RecordWriter:
    """Writes the records of a block with the codes of a model."""

    def __init__(self, plan: ModelPlan, edits: Edits) -> None:
        self.plan, self.edits = plan, edits
        self.out, self.position = BitWriter(), 0
        self.words = [
            [] if family is None else [code_words(lengths) for lengths in family.codes]
            for family in plan.families
        ]

    def edited(self, what: str, written: int) -> int:
        """What is written instead, if the test wants that."""
        return self.edits.get((self.position, what), written)

    def symbol(self, family: int, context: int, symbol: int) -> None:
        """A symbol; its code stands from the most significant bit on."""
        plan = self.plan.families[family]
        if plan is not None:
            words = self.words[family][plan.map[context]]
            length, word = words[symbol]
            if len(words) == 1:  # a bit without a meaning
                word = self.edited("lone_bit", 0)
            for i in reversed(range(length)):
                self.out.put(word >> i, 1)

    def value(self, family: int, context: int, x: int) -> None:
        """A value: its symbol and the extra bits."""
        b = bits(x) - 3
        self.symbol(family, context, x if x < 32 else 32 + 4 * (b - 3) + (x >> b) % 4)
        self.out.put(x, b if x >= 32 else 0)

    def record(self, record: Record, before: int, c: int, next_token: int | None) -> None:
        """Section 12.2."""
        form = self.plan.form
        raw = bool(self.edited("raw", 0))
        placed = sorted(
            ((self.plan.place(c, token_id, raw), token_id, v) for token_id, v in record),
            key=lambda entry: entry[0][0],
        )
        k = len(placed)
        self.symbol(CLASS, before, c)
        self.value(ENTRY_NUMBER, c, self.edited("entry_number", k))
        if k > 0 and form.value_kind == COUNTS:
            self.counts([int(count) for _, _, count in placed])
        following, wide = 0, 0
        for i, ((b, entry, width), _, _) in enumerate(placed):
            context = gap_context(k - i, self.plan.hazards[c][following], wide)
            self.value(GAP, context, self.edited("gap", b - following))
            self.out.put(self.edited("entry", entry), width)
            wide = int(width > 0)
            following = b if wide else b + 1
        if form.value_kind != COUNTS:
            rest = WEIGHT_BITS[form.weight_dtype] - 9
            for (b, _, _), _, weight in placed:
                pattern = weight_pattern(weight, form.weight_dtype)
                self.symbol(WEIGHT, b // 32, pattern >> rest)
                self.out.put(pattern, rest)
        if next_token is not None:
            self.next_token(c, [(token_id, v) for _, token_id, v in placed], next_token)
        self.position += 1

    def counts(self, counts: list[int]) -> None:
        """Step 3. Of counts that are too large, what can be written of them."""
        k = len(counts)
        excess, left = self.plan.form.rounds - k, k
        at = 0
        while left > 2 and excess > 0:
            pair = [count - 1 for count in counts[at : at + 2]]
            small = [min(7, more) for more in pair]
            self.symbol(
                COUNT_PAIR, SUMS * sum_class(excess) + sum_class(left), 8 * small[0] + small[1]
            )
            for more in pair:
                if more >= 7:
                    context = SUMS * sum_class(max(0, excess - 7)) + sum_class(left)
                    self.value(COUNT, context, more - 7)
                excess -= more
                left -= 1
            at += 2
        if left == 2 and excess > 0:
            self.value(COUNT, SUMS * sum_class(excess) + sum_class(2), counts[at] - 1)

    def next_token(self, c: int, entries: list[tuple[int, float]], token: int) -> None:
        """Step 6."""
        ranked = [token_id for token_id, _ in sorted(entries, key=lambda entry: -entry[1])]
        rank = ranked.index(token) + 1 if token in ranked else 0
        rank = self.edited("rank", rank)
        if entries:
            context = 0
            if self.plan.form.value_kind == COUNTS:
                most = int(max(count for _, count in entries))
                context = min(15, 16 * (most - 1) // self.plan.form.rounds)
            self.value(TOKEN_RANK, context, rank)
        if rank == 0:
            b, entry, width = self.plan.place(c, token, bool(self.edited("raw_token", 0)))
            self.symbol(TOKEN_BUCKET, c, self.edited("token_bucket", b))
            self.out.put(self.edited("token_entry", entry), width)


def encode_compact_block(
    records: Sequence[Record],
    tokens: Sequence[int] | None,
    plan: ModelPlan,
    *,
    classes: Callable[[int], int] = lambda position: 0,
    edits: Edits | None = None,
    starts: Callable[[list[int]], object] | None = None,
    directory: tuple[int, int, int] | None = None,
) -> bytes:
    """Section 12: the content of a block.

    `classes` chooses the class of a position, `starts` changes the bits at which stretches start,
    `directory` gives `start_bits`, `step` and `bias`.
    """
    writer = RecordWriter(plan, edits or {})
    edges = []
    before = 0
    for i, record in enumerate(records):
        if i % COMPACT_STRETCH == 0:
            edges.append(writer.out.length)
            before = len(plan.own_ids)
        following = tokens[i + 1] if tokens is not None and i + 1 < len(records) else None
        c = classes(i)
        writer.record(record, before, c, following)
        before = c
    if starts is not None:
        starts(edges)
    step = edges[-1] // max(1, len(edges) - 1)
    off = [edge - i * step for i, edge in enumerate(edges)][1:]
    bias = max(0, -min(off, default=0))
    start_bits = bits(max(off, default=0) + bias)
    start_bits, step, bias = directory or (start_bits, step, bias)
    fields = BitWriter()
    if tokens is not None:
        fields.put(tokens[0], plan.form.id_bits)
    for i, edge in enumerate(edges[1:], 1):
        fields.put(edge - i * step + bias, start_bits)
    head = {"start_bits": start_bits, "step": step, "bias": bias}
    return pack(COMPACT_HEADER, head) + fields.to_bytes() + writer.out.to_bytes()
