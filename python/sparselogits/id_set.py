"""Sets of 64-bit ids as runs: two hundred million consecutive ids are one pair of numbers."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
import numpy.typing as npt

_MERGE_AT = 4096

Ids = npt.NDArray[np.uint64]


class IdSet:
    """Ids from 0 to 2^64 - 1, kept as disjoint runs `[first, last]` in ascending order.

    New runs go to short lists, where inserting is cheap, and from there to sorted arrays, 16 bytes
    a run: ids without any order stay affordable too.
    """

    def __init__(self) -> None:
        self._old_firsts: Ids = np.empty(0, np.uint64)
        self._old_lasts: Ids = np.empty(0, np.uint64)
        self._firsts: list[int] = []
        self._lasts: list[int] = []

    @property
    def num_runs(self) -> int:
        self._merge()
        return len(self._old_firsts)

    def __contains__(self, value: object) -> bool:
        if isinstance(value, np.integer):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 64:
            return False
        return self._held_in(value, value) is not None

    def first_held(self, ids: Ids) -> int | None:
        """One of the given ids that is already held or given twice, or None."""
        ordered = np.sort(ids)
        repeated = first_repeated(ordered)
        if repeated is not None:
            return repeated
        held = (self._held_in(first, last) for first, last in _runs(ordered))
        return next((value for value in held if value is not None), None)

    def add(self, ids: Ids) -> None:
        """Adds ids. REQUIRES: `first_held(ids)` is None."""
        for first, last in _runs(np.sort(ids)):
            self._add_run(first, last)
        if len(self._firsts) >= max(_MERGE_AT, len(self._old_firsts) // 16):
            self._merge()

    def _held_in(self, first: int, last: int) -> int | None:
        """The smallest id from first to last that one of the two stores holds, or None."""
        run = bisect_right(self._firsts, last) - 1
        if run >= 0 and self._lasts[run] >= first:
            return max(first, self._firsts[run])
        run = int(np.searchsorted(self._old_firsts, np.uint64(last), side="right")) - 1
        if run >= 0 and self._old_lasts[run] >= first:
            return max(first, int(self._old_firsts[run]))
        return None

    def _add_run(self, first: int, last: int) -> None:
        run = bisect_right(self._firsts, first)
        joins_left = run > 0 and self._lasts[run - 1] + 1 == first
        joins_right = run < len(self._firsts) and last + 1 == self._firsts[run]
        if joins_left and joins_right:
            self._lasts[run - 1] = self._lasts[run]
            del self._firsts[run], self._lasts[run]
        elif joins_left:
            self._lasts[run - 1] = last
        elif joins_right:
            self._firsts[run] = first
        else:
            self._firsts.insert(run, first)
            self._lasts.insert(run, last)

    def _merge(self) -> None:
        if not self._firsts:
            return
        firsts = np.concatenate([self._old_firsts, np.array(self._firsts, np.uint64)])
        lasts = np.concatenate([self._old_lasts, np.array(self._lasts, np.uint64)])
        # Runs are disjoint, so their ends ascend as their starts do.
        firsts.sort(kind="stable")
        lasts.sort(kind="stable")
        apart = firsts[1:] != lasts[:-1] + np.uint64(1)
        self._old_firsts = firsts[np.concatenate([np.ones(1, np.bool_), apart])]
        self._old_lasts = lasts[np.concatenate([apart, np.ones(1, np.bool_)])]
        self._firsts, self._lasts = [], []


def first_repeated(ordered: Ids) -> int | None:
    """The smallest id that is there twice, or None. REQUIRES: `ordered` ascends."""
    repeated = np.flatnonzero(ordered[1:] == ordered[:-1])
    return int(ordered[repeated[0]]) if len(repeated) else None


def _runs(ordered: Ids) -> list[tuple[int, int]]:
    """Ascending runs of consecutive ids. REQUIRES: `ordered` ascends strictly."""
    if not len(ordered):
        return []
    breaks = np.flatnonzero(np.diff(ordered) != 1) + 1
    firsts = ordered[np.concatenate([np.zeros(1, np.int64), breaks])]
    lasts = ordered[np.concatenate([breaks - 1, np.full(1, len(ordered) - 1)])]
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))
