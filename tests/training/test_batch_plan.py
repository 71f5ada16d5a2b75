"""A plan that makes no sense is refused when it is made, not where it is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sparselogits.errors import InvalidArgumentError
from sparselogits.torch.batch_plan import BatchPlan


def plan(**changes: Any) -> BatchPlan:
    """Two rows, of two pieces and of one."""
    arrays: dict[str, Any] = {
        "caches": np.array([0, 1, 0], np.int32),
        "sequences": np.array([4, 2, 4]),
        "starts": np.array([0, 3, 7]),
        "stops": np.array([5, -1, 7]),
        "row_offsets": np.array([0, 2, 3]),
    }
    return BatchPlan(**arrays | changes)


def test_a_plan_counts_its_rows_and_pieces() -> None:
    assert (plan().num_rows, plan().num_pieces) == (2, 3)


def test_whole_sequences_are_rows_of_one_piece() -> None:
    whole = BatchPlan.of_sequences(np.array([5, 3]))
    assert (whole.num_rows, whole.num_pieces) == (2, 2)
    assert whole.caches.tolist() == whole.starts.tolist() == [0, 0]
    assert whole.sequences.tolist() == [5, 3]
    assert whole.stops.tolist() == [-1, -1]


@pytest.mark.parametrize(("first", "last"), [(0, 2), (0, 1), (1, 2), (1, 1), (0, 0)])
def test_rows_of_a_plan_are_a_plan(first: int, last: int) -> None:
    whole = plan()
    part = whole.rows(first, last)
    pieces = slice(whole.row_offsets[first], whole.row_offsets[last])
    for name in ("caches", "sequences", "starts", "stops"):
        assert getattr(part, name).tolist() == getattr(whole, name)[pieces].tolist()
    assert np.diff(part.row_offsets).tolist() == [2, 1][first:last]
    assert part.num_rows == last - first
    BatchPlan(*part.columns)  # which checks it


def test_a_plan_may_have_no_rows() -> None:
    assert BatchPlan.of_sequences(np.empty(0, np.int64)).num_rows == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"caches": np.array([0, 1, 0])}, "caches is int64"),
        ({"starts": [0, 3, 7]}, "starts is list"),
        ({"stops": np.array([[5, -1, 7]])}, "stops has 2 dimensions"),
        ({"sequences": np.array([4, 2])}, "sequences has 2 pieces and caches 3"),
        ({"caches": np.array([0, -1, 0], np.int32)}, "caches holds -1"),
        ({"sequences": np.array([4, -2, 4])}, "sequences holds -2"),
        ({"starts": np.array([0, -3, 7])}, "starts holds -3"),
        ({"stops": np.array([5, -2, 7])}, "stops holds -2"),
        ({"stops": np.array([5, -1, 6])}, "piece 2 starts at 7 and stops before, at 6"),
        ({"row_offsets": np.array([], np.int64)}, "row_offsets is empty"),
        ({"row_offsets": np.array([1, 2, 3])}, "from 1 to 3; it must go from 0 to 3"),
        ({"row_offsets": np.array([0, 2])}, "from 0 to 2; it must go from 0 to 3"),
        ({"row_offsets": np.array([0, 2, 2, 3])}, "row 1 no piece"),
        ({"row_offsets": np.array([0, 3, 2, 3])}, "row 1 no piece"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        plan(**changes)
