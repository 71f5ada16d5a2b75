"""A tiny encoder of codec models, the counterpart of formats/reference_model.py.

It checks nothing: a plan of a model is written as it is given. Written from v1.md alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reference_codes import BlockFormat, families
from reference_conventions import bits
from reference_encoder import BitWriter, pack
from reference_model import MODEL_HEADER, MODEL_MAGIC


def flat_lengths(symbols: int) -> list[int]:
    """A complete code in which all symbols have about the same length."""
    longest = bits(symbols - 1)
    shorter = 2**longest - symbols
    return [longest - 1] * shorter + [longest] * (symbols - shorter)


def skewed_lengths(symbols: int, short: int = 0) -> list[int]:
    """A complete code of all symbols, in which `short` has one bit."""
    lengths = [length + 1 for length in flat_lengths(symbols - 1)]
    return [*lengths[:short], 1, *lengths[short:]]


def steep_lengths(symbols: int, used: Sequence[int]) -> list[int]:
    """A complete code of the symbols `used`: 1, 2, 3, … bits, the last two the same."""
    lengths = [0] * symbols
    for i, symbol in enumerate(used):
        lengths[symbol] = max(1, min(i + 1, len(used) - 1))
    return lengths


def cover(length: int) -> list[int]:
    """Widths of buckets that cover a list: the later, the wider."""
    widths: list[int] = []
    left = length
    while left > 0:
        widths.append(min(len(widths) // 2, bits(left - 1)))
        left -= 2 ** widths[-1]
    return widths


@dataclass
class ClassPlan:
    """A class of a model. What is None follows from the rest."""

    own_ids: list[int] = field(default_factory=list)
    own_bits: list[int] | None = None
    global_bits: list[int] | None = None
    hazards: list[int] | None = None


@dataclass
class FamilyPlan:
    """The map and the codes (as lengths) of a family; `number` may contradict them."""

    map: list[int]
    codes: list[list[int]]
    number: int | None = None


class ModelPlan:
    """A model as it shall be written. A family that is not given has one flat code."""

    def __init__(
        self,
        form: BlockFormat,
        classes: Sequence[ClassPlan] = (ClassPlan(),),
        global_ids: Sequence[int] = (),
        plans: Mapping[int, FamilyPlan] | None = None,
    ) -> None:
        self.form, self.global_ids = form, list(global_ids)
        self.own_ids = [list(plan.own_ids) for plan in classes]
        self.own = [cover(len(c.own_ids)) if c.own_bits is None else c.own_bits for c in classes]
        shared = cover(len(self.global_ids))
        self.shared = [shared if c.global_bits is None else c.global_bits for c in classes]
        numbers = [len(a) + len(b) + 1 for a, b in zip(self.own, self.shared, strict=True)]
        self.hazards = [
            [min(127, 4 * i) for i in range(number)] if plan.hazards is None else plan.hazards
            for plan, number in zip(classes, numbers, strict=True)
        ]
        self.families: list[FamilyPlan | None] = []
        for i, family in enumerate(families(form, len(classes))):
            default = FamilyPlan([0] * family.contexts, [flat_lengths(max(1, family.symbols))])
            plan = (plans or {}).get(i, default)
            self.families.append(plan if family.in_model else None)

    def place(self, c: int, token_id: int, raw: bool) -> tuple[int, int, int]:
        """Where a class has an id: bucket, entry, bits of the entry."""
        first_bucket = 0
        for ids, widths in ((self.own_ids[c], self.own[c]), (self.global_ids, self.shared[c])):
            first = 0
            for i, width in enumerate(widths):
                if not raw and token_id in ids[first : first + 2**width]:
                    return first_bucket + i, ids.index(token_id) - first, width
                first += 2**width
            first_bucket += len(widths)
        return first_bucket, token_id, self.form.id_bits


def encode_model(
    plan: ModelPlan, global_length: int | None = None, own_length: int | None = None, **header: Any
) -> bytes:
    """Section 13: the file of a model. Lengths of lists may be lies; `header` replaces fields."""
    form, out = plan.form, BitWriter()

    def put_list(ids: list[int], length: int | None) -> None:
        out.put(len(ids) if length is None else length, 25)
        for token_id in ids:
            out.put(token_id, form.id_bits)

    put_list(plan.global_ids, global_length)
    for own_ids, own, shared, hazards in zip(
        plan.own_ids, plan.own, plan.shared, plan.hazards, strict=True
    ):
        put_list(own_ids, own_length)
        for widths in (own, shared):
            out.put(len(widths), 9)
            for width in widths:
                out.put(width, 5)
        for hazard in hazards:
            out.put(hazard, 7)
    for family in plan.families:
        if family is not None:
            number = len(family.codes) if family.number is None else family.number
            out.put(number, 9)
            for code in family.map:
                out.put(code, bits(number - 1))
            for lengths in family.codes:
                put_lengths(out, lengths)
    fields = {
        "magic": MODEL_MAGIC, "version": 1, "vocab_size": form.vocab_size, "rounds": form.rounds,
        "value_kind": form.value_kind, "weight_dtype": form.weight_dtype,
        "codes_tokens": int(form.tokens), "num_classes": len(plan.own_ids),
    }  # fmt: skip
    return pack(MODEL_HEADER, fields | header) + out.to_bytes()


def put_lengths(out: BitWriter, lengths: Sequence[int]) -> None:
    """The lengths of a code; runs of zeros are counted."""
    at = 0
    while at < len(lengths):
        out.put(lengths[at], 4)
        if lengths[at] == 0:
            more = 0
            while more < 63 and at + more + 1 < len(lengths) and lengths[at + more + 1] == 0:
                more += 1
            out.put(more, 6)
            at += more
        at += 1


def code_words(lengths: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Symbol -> length and code word, canonical."""
    words: dict[int, tuple[int, int]] = {}
    word = length_before = 0
    for length, symbol in sorted((length, i) for i, length in enumerate(lengths) if length):
        word <<= length - length_before
        words[symbol] = (length, word)
        word, length_before = word + 1, length
    return words
