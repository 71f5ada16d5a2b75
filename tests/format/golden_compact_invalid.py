"""The invalid golden shards with compact blocks, and those whose model is wrong: see
golden_invalid.py. What is wrong with a model is in a file of its own beside the shard.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from compact_shards import COUNTS_50, header_of
from golden_invalid import Invalid, put
from reference_algorithms import xxh64
from reference_codes import CLASS, COUNT, COUNT_PAIR, ENTRY_NUMBER, GAP, BlockFormat
from reference_compact_encoder import encode_compact_block
from reference_encoder import Record, ShardEncoder, fingerprint
from reference_model import model_file
from reference_model_encoder import (
    ClassPlan,
    FamilyPlan,
    ModelPlan,
    encode_model,
    flat_lengths,
)

CASES: dict[str, Invalid] = {}
HEADER, BLOCK, MODEL = "header", "block", "model"  # where an error points to
OWN, SHARED = [40, 10, 30], [20, 10, 40, 50, 60]
PLAN = ModelPlan(COUNTS_50, [ClassPlan(OWN, own_bits=[1, 0]), ClassPlan()], SHARED)
RECORDS: list[Record] = [[(10, 20), (20, 10), (30, 1), (299, 19)], [], [(7, 50)]] * 7
TOKENS = [30, 5, 299] * 7  # the second is not an entry of the first record


def build(
    records: list[Record] = RECORDS,
    tokens: list[int] = TOKENS,
    *,
    plan: ModelPlan = PLAN,
    model: bytes | None = None,
    header: dict[str, Any] | None = None,
    block: dict[str, Any] | None = None,
    frame: dict[str, Any] | None = None,
) -> tuple[bytes, tuple[int, int], bytes]:
    """A shard of one compact block, the bytes of that block, and the model that the shard names."""
    model = encode_model(plan) if model is None else model
    fields = header_of(plan.form, xxh64(model)) | (header or {})
    shard = ShardEncoder({}, **fields)
    stored = tokens if plan.form.tokens else None
    content = encode_compact_block(records, stored, plan, **(block or {}))
    shard.block(records, stored, compact=content, **(frame or {}))
    shard.sequences([(1, fingerprint(tokens), len(records))])
    shard.commit()
    return shard.finish(), shard.frames[1][1:], model


def add(
    name: str,
    error: str,
    field: str,
    place: str,
    *args: Any,
    keep: bool = True,
    also: tuple[str, ...] = (),
    damage: Callable[[bytearray], object] | None = None,
    **parts: Any,
) -> None:
    """Registers a shard that `build` makes, and its model unless that is not to be kept.

    `damage` changes the model after its digest was taken.
    """
    data, block, model = build(*args, **parts)
    file = model_file(xxh64(model))
    if damage is not None:
        changed = bytearray(model)
        damage(changed)
        model = bytes(changed)
    within = {HEADER: (0, 128), BLOCK: block, MODEL: (0, len(model))}[place]
    CASES[name] = Invalid(
        data, error, field, within, also, ((file, model),) if keep else (), file * (place == MODEL)
    )


def own_plan(i: int) -> ModelPlan:
    """A model that no other case has: all files lie in one directory."""
    return ModelPlan(COUNTS_50, [ClassPlan([200 + i])])


def header_cases() -> None:
    """Sections 3.1, 4 and 12: features, digests, models that do not fit."""
    add("model_missing", "Corruption", "model_digest", HEADER, plan=own_plan(1), keep=False)
    other = [
        ("vocab_size", {"vocab_size": 301}), ("rounds", {"rounds": 51}),
        ("value_kind", {"value_kind": 1, "weight_dtype": 1}),
    ]  # fmt: skip
    for name, header in other:
        add(f"model_of_other_{name}", "Corruption", "model_digest", HEADER, header=header)
    weights = ModelPlan(BlockFormat(300, 50, 1, 1, True))
    add("model_of_other_weight_dtype", "Corruption", "model_digest", HEADER,
        [[(1, 0.5)]], [1], plan=weights, header={"weight_dtype": 3})  # fmt: skip
    untold = ModelPlan(BlockFormat(300, 50, 0, 0, False))
    add("model_without_token_codes", "Corruption", "model_digest", HEADER, plan=untold,
        header={"store_tokens": 1})  # fmt: skip
    add("codec_model_without_digest", "Corruption", "model_digest", HEADER, keep=False,
        header={"model_digest": 0})  # fmt: skip
    add("digest_without_codec_model", "Corruption", "model_digest", HEADER, keep=False,
        header={"incompatible_features": 0})  # fmt: skip
    add("compact_block_without_codec_model", "Corruption", "codec", BLOCK, keep=False,
        header={"incompatible_features": 0, "model_digest": 0})  # fmt: skip


def block_cases() -> None:
    """Section 12, before the records."""
    wrong: list[tuple[str, str, dict[str, Any]]] = [
        ("start_bits_33", "start_bits", {"edit": put(0, 33)}),
        ("reserved", "reserved", {"edit": put(2, 1)}),
        ("of_11_bytes", "content_length", {"edit": lambda c: c.__delitem__(slice(11, None))}),
        ("without_directory", "content_length",
         {"edit": lambda c: c.__delitem__(slice(13, None))}),
        ("num_entries", "num_entries", {"num_entries": 34}),
        ("num_entries_hostile", "num_entries", {"num_entries": 2**22}),
        ("padding", "stretch_padding", {"edit": put(-1, 0x80)}),
        ("a_byte_longer", "stretch_padding", {"edit": lambda content: content.append(0)}),
        ("a_byte_shorter", "records", {"edit": lambda content: content.pop()}),
        ("all_ones", "counts", {"edit": lambda c: c.__setitem__(
            slice(15, None), b"\xff" * (len(c) - 15))}),
    ]  # fmt: skip
    for name, field, frame in wrong:
        add(f"compact_{name}", "Corruption", field, BLOCK, frame=frame)
    # Three stretches of 16, 16 and 10 positions: two starts behind the first token.
    records, tokens = RECORDS * 2, TOKENS * 2
    starts: dict[str, tuple[str, Callable[[list[int]], object]]] = {
        "past_end": ("directory", lambda edges: edges.__setitem__(2, 10**6)),
        "before_0": ("directory", lambda edges: edges.__setitem__(1, -(10**6))),
        "descending": ("stretch_padding", lambda edges: edges.__setitem__(1, edges[2] + 1)),
        "early": ("records", lambda edges: edges.__setitem__(1, edges[1] - 1)),
        "late": ("stretch_padding", lambda edges: edges.__setitem__(1, edges[1] + 1)),
    }
    for name, (field, change) in starts.items():
        block = {"starts": change, "directory": (32, 0, 2**31)}
        also = () if field == "directory" else ("directory",)
        add(f"compact_start_{name}", "Corruption", field, BLOCK, records, tokens, block=block,
            also=also)  # fmt: skip
    # 9 bits of the first token and 32 of a start: 7 bits of padding.
    add("compact_directory_padding", "Corruption", "directory", BLOCK,
        block={"directory": (32, 0, 2**31)}, frame={"edit": put(12 + 5, 0x80)})  # fmt: skip
    add("compact_first_token", "Corruption", "tokens", BLOCK, RECORDS, [300, *TOKENS[1:]])


def record_cases() -> None:
    """Section 12.2."""
    edits: dict[str, tuple[str, tuple[int, str], int]] = {
        "entries_above_most": ("entry_numbers", (0, "entry_number"), 51),
        "bucket_that_is_not_there": ("ids", (0, "gap"), 8),
        "bucket_255": ("ids", (2, "gap"), 255),
        "rank_above_entries": ("tokens", (0, "rank"), 5),
        "token_bucket_that_is_not_there": ("tokens", (0, "token_bucket"), 200),
    }
    for name, (field, place, value) in edits.items():
        add(f"compact_{name}", "Corruption", field, BLOCK, block={"edits": {place: value}})
    # Own ids in one bucket of four entries, global ones in one of eight: the lists end before.
    short = ModelPlan(COUNTS_50, [ClassPlan(OWN, own_bits=[2], global_bits=[3])], SHARED)
    beyond: dict[str, tuple[str, int, dict[tuple[int, str], int]]] = {
        "entry_beyond_own_list": ("ids", 10, {(0, "entry"): 3}),
        "entry_beyond_global_list": ("ids", 20, {(0, "entry"): 5}),
        "token_beyond_own_list": ("tokens", 40, {(0, "rank"): 0, (0, "token_entry"): 3}),
        "token_beyond_global_list": ("tokens", 60, {(0, "rank"): 0, (0, "token_entry"): 7}),
    }
    for name, (field, token_id, edit) in beyond.items():
        add(f"compact_{name}", "Corruption", field, BLOCK, [[(token_id, 50)]] * 2,
            [1, token_id], plan=short, block={"edits": edit})  # fmt: skip
    one: dict[str, tuple[str, Record, int]] = {
        "id_of_vocab_size": ("ids", [(300, 50)], 1),
        "id_of_511": ("ids", [(511, 50)], 1),
        "id_twice_in_own_list": ("ids", [(10, 25), (10, 25)], 1),
        "id_twice_raw": ("ids", [(100, 10), (100, 10), (101, 30)], 1),
        "counts_above_rounds": ("counts", [(1, 56), (2, 1)], 1),
        "pair_above_rounds": ("counts", [(1, 50), (2, 1), (3, 1)], 1),
        "second_of_pair_above_rounds": ("counts", [(1, 45), (2, 6), (3, 1)], 1),
        "escape_above_rounds": ("counts", [(1, 45), (2, 8), (3, 1)], 1),
        "token_of_vocab_size": ("tokens", [(1, 50)], 300),
        "token_of_511": ("tokens", [], 511),
    }
    for name, (field, record, token) in one.items():
        add(f"compact_{name}", "Corruption", field, BLOCK, [record, []], [1, token])
    for dtype, called in ((1, "float32"), (2, "float16"), (3, "bfloat16")):
        plan = ModelPlan(BlockFormat(300, 50, 1, dtype, True))
        for name, weight in (("nan", math.nan), ("inf", math.inf)):
            add(f"compact_weight_{name}_{called}", "Corruption", "weights", BLOCK,
                [[(3, 0.5), (9, weight)]], [1], plan=plan)  # fmt: skip
    few = ModelPlan(BlockFormat(33, 50, 1, 1, True))
    add("compact_weights_more_than_vocab_size", "Corruption", "entry_numbers", BLOCK,
        [[(i % 33, 0.5) for i in range(34)]], [1], plan=few)  # fmt: skip


def family(which: int, contexts: int, lengths: list[int], **more: Any) -> ModelPlan:
    """A model in which one family has one code of these lengths."""
    plan = {which: FamilyPlan(more.pop("map", [0] * contexts), [lengths], **more)}
    return ModelPlan(COUNTS_50, plans=plan)


def model_cases() -> None:
    """Section 13."""
    add("model_damaged", "Corruption", "digest", MODEL, plan=own_plan(2), damage=put(40, 0xFF))
    add("model_cut", "Corruption", "digest", MODEL, plan=own_plan(3), damage=lambda m: m.pop())
    whole, odd = encode_model(PLAN), encode_model(ModelPlan(COUNTS_50))  # bits to pad: 0, some
    files: dict[str, tuple[str, str, bytes]] = {
        "of_no_bytes": ("Truncated", "header", b""),
        "of_31_bytes": ("Truncated", "header", whole[:31]),
        "truncated": ("Truncated", "code_lengths", whole[:-1]),
        "of_a_header": ("Truncated", "global_ids", whole[:32]),
        "a_byte_longer": ("Corruption", "padding", whole + b"\0"),
        "padding": ("Corruption", "padding", odd[:-1] + bytes([odd[-1] | 0x80])),
        "magic": ("Corruption", "magic", b"\x89SLC\r\n\x1a\n" + whole[8:]),
    }
    headers: dict[str, tuple[str, dict[str, int]]] = {
        "version_2": ("version", {"version": 2}),
        "vocab_size_0": ("vocab_size", {"vocab_size": 0}),
        "vocab_size_2_24_plus_1": ("vocab_size", {"vocab_size": 2**24 + 1}),
        "rounds_0": ("rounds", {"rounds": 0}),
        "rounds_65536": ("rounds", {"rounds": 65536}),
        "value_kind_2": ("value_kind", {"value_kind": 2}),
        "weight_dtype_of_counts": ("weight_dtype", {"weight_dtype": 1}),
        "codes_tokens_2": ("codes_tokens", {"codes_tokens": 2}),
        "num_classes_0": ("num_classes", {"num_classes": 0}),
        "num_classes_257": ("num_classes", {"num_classes": 257}),
    }
    for name, (field, header) in headers.items():
        error = "Unsupported" if field == "version" else "Corruption"
        files[name] = (error, field, encode_model(PLAN, **header))
    for at in (10, 23, 31):
        changed = bytearray(whole)
        changed[at] = 1
        files[f"reserved_{at}"] = ("Corruption", "reserved", bytes(changed))
    files["global_length_hostile"] = (
        "Corruption", "global_ids", encode_model(PLAN, global_length=2**25 - 1))  # fmt: skip
    files["class_length_hostile"] = (
        "Corruption", "class_ids", encode_model(PLAN, own_length=2**25 - 1))  # fmt: skip
    for name, (error, field, model) in files.items():
        add(f"model_{name}", error, field, MODEL, model=model)

    pair = flat_lengths(64)
    plans: dict[str, tuple[str, ModelPlan]] = {
        "global_id_twice": ("global_ids", ModelPlan(COUNTS_50, global_ids=[5, 6, 5])),
        "global_id_of_vocab_size": ("global_ids", ModelPlan(COUNTS_50, global_ids=[300])),
        "class_id_twice": ("class_ids", ModelPlan(COUNTS_50, [ClassPlan([1, 1])])),
        "class_id_of_vocab_size": ("class_ids", ModelPlan(COUNTS_50, [ClassPlan([511])])),
    }
    buckets = {
        "too_large": [2, 1], "past_their_list": [2, 0], "of_25_bits": [25], "of_31_bits": [31],
        "too_few": [1], "none": [],
    }  # fmt: skip
    for name, widths in buckets.items():
        ids = [1, 2, 3, 4] if name == "past_their_list" else [1, 2, 3, 4, 5]
        if name == "too_large":
            ids = ids[:5]  # a last one of two entries for one
        plans[f"class_buckets_{name}"] = (
            "class_buckets", ModelPlan(COUNTS_50, [ClassPlan(ids, own_bits=widths)]))  # fmt: skip
        plans[f"global_buckets_{name}"] = (
            "global_buckets", ModelPlan(COUNTS_50, [ClassPlan(global_bits=widths)], ids),
        )  # fmt: skip
    many = list(range(256))
    plans["buckets_257"] = ("class_buckets", ModelPlan(COUNTS_50, [ClassPlan(many, [0] * 256)]))
    plans["buckets_257_of_both_lists"] = ("class_buckets", ModelPlan(
        COUNTS_50, [ClassPlan(many[:128], [0] * 128, [0] * 128)], many[:128]))  # fmt: skip
    plans |= {
        "codes_0": ("codes", family(COUNT_PAIR, 625, pair, number=0)),
        "codes_257": ("codes", family(COUNT_PAIR, 625, pair, number=257)),
        "code_map_out_of_range": ("code_map", family(
            COUNT_PAIR, 625, pair, map=[0] * 624 + [3], number=3)),
        "code_incomplete": ("code_lengths", family(COUNT_PAIR, 625, [*pair[:-1], 7])),
        "code_overfull": ("code_lengths", family(COUNT_PAIR, 625, [*pair[:-1], 5])),
        "code_of_no_symbols": ("code_lengths", family(COUNT_PAIR, 625, [0] * 64)),
        "code_of_one_symbol_and_2_bits": ("code_lengths", family(
            COUNT_PAIR, 625, [2] + [0] * 63)),
        "code_too_long": ("code_lengths", family(
            COUNT_PAIR, 625, [*range(1, 12), 11] + [0] * 52)),
        "code_of_more_symbols": ("code_lengths", family(
            GAP, 128, [1, 1] + [0] * 43)),
        "class_map_out_of_range": ("code_map", ModelPlan(
            COUNTS_50, [ClassPlan(), ClassPlan(), ClassPlan()],
            plans={CLASS: FamilyPlan([3, 0, 0, 0], [[1, 2, 2]] * 3)})),
        "entry_number_code_too_long": ("code_lengths", family(
            ENTRY_NUMBER, 1, [*range(1, 13), 12] + [0] * 22)),
        "count_code_too_long": ("code_lengths", family(
            COUNT, 625, [*range(1, 12), 11] + [0] * 23)),
    }  # fmt: skip
    for name, (field, plan) in plans.items():
        add(f"model_{name}", "Corruption", field, MODEL, model=encode_model(plan))


for section in (header_cases, block_cases, record_cases, model_cases):
    section()
