"""The valid golden shards with compact blocks, and models made by hand: see golden_valid.py."""

from __future__ import annotations

from collections.abc import Callable

from compact_shards import COUNTS_50, Made, by_turns, compact_shard, mixed, mixed_plan, sequence
from golden_valid import Numbers, Rows
from reference_codes import CLASS, ENTRY_NUMBER, TOKEN_RANK, WEIGHT, BlockFormat
from reference_encoder import Record
from reference_model_encoder import (
    ClassPlan,
    FamilyPlan,
    ModelPlan,
    flat_lengths,
    skewed_lengths,
    steep_lengths,
)

CASES: dict[str, Callable[[], Made]] = {}


def case(function: Callable[[], Made]) -> Callable[[], object]:
    """Registers a golden shard under the name of its function."""
    CASES[function.__name__] = function
    return function


@case
def compact_counts() -> Made:
    return mixed(COUNTS_50, 51)


@case
def compact_counts_without_tokens() -> Made:
    return mixed(BlockFormat(300, 50, 0, 0, False), 52)


@case
def compact_model_with_unused_token_codes() -> Made:
    """A model with codes for tokens serves shards without tokens too."""
    return mixed(COUNTS_50, 53, store_tokens=0)


@case
def compact_and_packed_blocks() -> Made:
    return mixed(COUNTS_50, 54, most=4, length=64 * 3 + 17, packed=[1])


@case
def codec_model_without_compact_blocks() -> Made:
    return mixed(COUNTS_50, 55, length=9, packed=[0])


@case
def compact_lz4_frames() -> Made:
    plan = ModelPlan(BlockFormat(20, 2, 0, 0, True))
    records: list[Record] = [[(7, 1), (9, 1)]] * 60
    return compact_shard([(1, [9] * 60, records)], plan, wrap=True)


@case
def compact_one_class() -> Made:
    """No list at all: every id is raw. 17 positions: the last stretch has one."""
    numbers, plan = Numbers(56), ModelPlan(COUNTS_50)
    records = [numbers.record(300, 50) for _ in range(17)]
    return compact_shard(sequence(numbers, records, 300), plan)


@case
def compact_one_position() -> Made:
    return compact_shard([(1, [299], [[(299, 50)]])], ModelPlan(COUNTS_50))


@case
def compact_only_empty_records() -> Made:
    rows: Rows = [(1, list(range(40)), [[] for _ in range(40)])]
    return compact_shard(rows, mixed_plan(COUNTS_50), classes=by_turns)


@case
def compact_256_classes() -> Made:
    numbers = Numbers(57)
    plan = ModelPlan(COUNTS_50, [ClassPlan([i]) for i in range(256)])
    records = [numbers.record(256, 50, 3) for _ in range(20)]
    rows = sequence(numbers, records, 300)
    return compact_shard(rows, plan, classes=lambda position: 255 - 12 * position)


@case
def compact_256_buckets() -> Made:
    """255 ids of a bucket each and the raw one: the longest gap is 255."""
    ids = [(i * 7) % 300 for i in range(255)]
    plan = ModelPlan(COUNTS_50, [ClassPlan(ids, own_bits=[0] * 255)])
    last = next(i for i in range(300) if i not in ids)
    records: list[Record] = [
        sorted([(ids[0], 20), (ids[254], 30)]), [(last, 50)], sorted([(ids[0], 1), (last, 49)]),
    ]  # fmt: skip
    return compact_shard([(1, [last, ids[254], ids[0]], records)], plan)


@case
def compact_lone_symbols() -> Made:
    """Codes of one symbol: their bit means nothing, and is here 0 or 1."""
    plans = {
        CLASS: FamilyPlan([0, 0, 1], [steep_lengths(2, [0]), steep_lengths(2, [1])]),
        ENTRY_NUMBER: FamilyPlan([0, 0], [steep_lengths(35, [1])]),
        TOKEN_RANK: FamilyPlan([0] * 16, [steep_lengths(35, [1])]),
    }
    plan = ModelPlan(COUNTS_50, [ClassPlan(), ClassPlan()], plans=plans)
    records: list[Record] = [[(i, 50)] for i in range(20)]
    ones = {(i, "lone_bit"): 1 for i in range(0, 20, 3)}
    rows: Rows = [(1, [299, *range(19)], records)]
    return compact_shard(rows, plan, classes=lambda i: int(i % 16 == 0), edits=ones)


@case
def compact_vocabulary_of_1() -> Made:
    rows: Rows = [(1, [0, 0, 0], [[(0, 50)], [], [(0, 50)]])]
    return compact_shard(rows, ModelPlan(BlockFormat(1, 50, 0, 0, True)))


@case
def compact_vocabulary_of_2() -> Made:
    plan = ModelPlan(BlockFormat(2, 50, 0, 0, True), global_ids=[1])
    records: list[Record] = [[(0, 50)], [(1, 50)], [(0, 13), (1, 37)], []]
    return compact_shard([(1, [0, 1, 1, 0], records)], plan)


@case
def compact_vocabulary_of_2_24() -> Made:
    top = 2**24 - 1
    plan = ModelPlan(BlockFormat(2**24, 50, 0, 0, True), [ClassPlan([top])], [0, top - 1])
    records: list[Record] = [
        [(0, 1), (top, 49)], [(top, 50)], [(top - 2, 25), (top - 1, 25)], [(2**23, 50)],
    ]  # fmt: skip
    return compact_shard([(1, [top, 0, top - 2, 1], records)], plan)


@case
def compact_rounds_of_1() -> Made:
    numbers, form = Numbers(58), BlockFormat(300, 1, 0, 0, True)
    records = [numbers.record(300, 1) for _ in range(33)]
    return compact_shard(sequence(numbers, records, 300), mixed_plan(form), classes=by_turns)


@case
def compact_rounds_of_2() -> Made:
    """No pairs of counts in the model."""
    numbers, form = Numbers(59), BlockFormat(300, 2, 0, 0, True)
    records = [numbers.record(300, 2) for _ in range(33)]
    return compact_shard(sequence(numbers, records, 300), mixed_plan(form), classes=by_turns)


@case
def compact_rounds_of_65535() -> Made:
    """Values with extra bits, up to the largest."""
    form = BlockFormat(300, 65535, 0, 0, True)
    records: list[Record] = [
        [(17, 65535)], [(0, 1), (299, 65534)], [(0, 65534), (299, 1)], [(3, 32767), (4, 32768)],
        [(1, 65533), (2, 1), (3, 1)], [(1, 1), (2, 65533), (3, 1)], [(1, 1), (2, 1), (3, 65533)],
        [(i, 1 + (65535 - 300) * (i == 150)) for i in range(300)],
        [(i, 218 + (135 if i == 299 else 0)) for i in range(300)],
    ]  # fmt: skip
    return compact_shard([(1, list(range(9)), records)], mixed_plan(form), classes=by_turns)


@case
def compact_many_entries() -> Made:
    """Records of more than 64 entries; all counts are 1, so that no pair is needed."""
    numbers, form = Numbers(60), BlockFormat(1000, 100, 0, 0, True)
    records: list[Record] = [[(i, 1) for i in numbers.ids(1000, 100)] for _ in range(6)]
    records += [numbers.record(1000, 100, 99) for _ in range(6)]
    return compact_shard(sequence(numbers, records, 1000), mixed_plan(form), classes=by_turns)


@case
def compact_escaped_counts() -> Made:
    """Counts above 7 in pairs: first, second, both; the excess used up exactly, or by the first."""
    parts = [
        [8, 1, 41], [1, 8, 41], [8, 8, 34], [40, 9, 1], [9, 40, 1], [48, 1, 1], [1, 48, 1],
        [7, 7, 36], [6, 7, 8, 9, 10, 10], [47, 1, 1, 1], [1, 1, 47, 1], [1, 1, 1, 47],
        [20, 8, 7, 15],
    ]  # fmt: skip
    records: list[Record] = [
        [(20 * i, count) for i, count in enumerate(counts)] for counts in parts
    ]
    tokens = [20 * (i % 3) for i in range(len(parts))]
    return compact_shard([(1, tokens, records)], ModelPlan(COUNTS_50))


@case
def compact_ranks() -> Made:
    """Tokens by rank: by count, of equal ones by bucket, not by id."""
    plan = ModelPlan(COUNTS_50, [ClassPlan([40, 10, 30])], [20, 10])
    record: Record = [(10, 10), (20, 10), (30, 20), (40, 10)]
    tokens = [10, 20, 30, 40, 50, 10]
    return compact_shard([(1, tokens, [record] * 6)], plan)


@case
def compact_same_id_in_three_zones() -> Made:
    """An id may be coded from any list that has it, or raw."""
    plan = ModelPlan(COUNTS_50, [ClassPlan([5, 6]), ClassPlan([])], [6, 5])
    records: list[Record] = [[(5, 25), (6, 25)]] * 4
    edits = {(1, "raw"): 1, (1, "raw_token"): 1, (3, "raw"): 1}
    return compact_shard([(1, [7, 5, 8, 6], records)], plan, classes=lambda i: i // 2, edits=edits)


@case
def compact_wide_directory() -> Made:
    """The widest fields, a step of 0, a bias of 2^31."""
    return mixed(COUNTS_50, 61, directory=(32, 0, 2**31))


def _weights(dtype: int, weights: list[float]) -> Made:
    numbers, form = Numbers(70 + dtype), BlockFormat(300, 50, 1, dtype, True)
    records: list[Record] = [
        list(zip(numbers.ids(300, len(part)), part, strict=True))
        for part in (weights, weights[:1], [], weights[2:5], [0.5] * 70)
    ]
    ids = list(range(0, 300, 2))
    plans = {
        WEIGHT: FamilyPlan([i % 2 for i in range(8)], [flat_lengths(256), skewed_lengths(256)])
    }
    plan = ModelPlan(form, [ClassPlan(ids, own_bits=[0] * 150)], plans=plans)
    return compact_shard(sequence(numbers, records, 300), plan)


@case
def compact_weights_float32() -> Made:
    return _weights(1, [0.25, 0.0, 2.0**-149, 2.0**-126, (2 - 2.0**-23) * 2.0**127, 1 + 2.0**-23])


@case
def compact_weights_float16() -> Made:
    return _weights(2, [0.25, 0.0, 2.0**-24, 2.0**-14, 65504.0, 1 + 2.0**-10])


@case
def compact_weights_bfloat16() -> Made:
    return _weights(3, [0.25, 0.0, 2.0**-133, 2.0**-126, (2 - 2.0**-7) * 2.0**127, 1 + 2.0**-7])
