"""IdSet against Python's set."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sparselogits import id_set
from sparselogits.id_set import IdSet

IDS = st.integers(0, 60) | st.integers(2**64 - 30, 2**64 - 1)


def ids(*values: int) -> np.ndarray:
    return np.array(values, np.uint64)


@given(batches=st.lists(st.lists(IDS, max_size=10), max_size=12), merge_at=st.integers(1, 9))
def test_behaves_like_a_set(batches: list[list[int]], merge_at: int) -> None:
    old, id_set._MERGE_AT = id_set._MERGE_AT, merge_at
    try:
        ours, plain = IdSet(), set()
        for batch in batches:
            held = ours.first_held(ids(*batch))
            repeats = {value for value in batch if batch.count(value) > 1} | (plain & set(batch))
            assert (held in repeats) if repeats else held is None
            if held is None:
                ours.add(ids(*batch))
                plain.update(batch)
        for value in [*range(62), *range(2**64 - 32, 2**64)]:
            assert (value in ours) == (value in plain)
        runs = sum(value - 1 not in plain for value in plain)
        assert ours.num_runs == runs
    finally:
        id_set._MERGE_AT = old


def test_consecutive_ids_take_no_memory() -> None:
    held = IdSet()
    for start in range(0, 1_000_000, 10_000):
        held.add(np.arange(start, start + 10_000, dtype=np.uint64))
    assert held.num_runs == 1
    assert 999_999 in held
    assert 1_000_000 not in held


def test_ids_without_order() -> None:
    values = np.unique(np.random.default_rng(0).integers(0, 2**64, 50_000, np.uint64))
    np.random.default_rng(1).shuffle(values)
    held = IdSet()
    for part in np.array_split(values, 100):
        assert held.first_held(part) is None
        held.add(part)
    assert held.num_runs == len(values)
    assert held.first_held(values[777:778]) == values[777]


def test_what_is_no_id_is_not_in_it() -> None:
    held = IdSet()
    held.add(ids(0, 1))
    assert np.int64(1) in held
    for value in (True, 1.0, "1", None, -1, 2**64):
        assert value not in held
