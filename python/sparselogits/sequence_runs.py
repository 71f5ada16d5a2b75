"""Sequences that are read and written together: runs of them that take a bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

#: What a run that is read and written at once may take, where nothing else is asked for.
BATCH_BYTES = 32 << 20

# What they take in memory on their way: as read, as appended, and in the core.
_BYTES_PER_POSITION = 32
_BYTES_PER_ENTRY = 40


def memory_of(
    lengths: npt.NDArray[np.int64], entries_per_position: npt.NDArray[Any] | float
) -> npt.NDArray[Any]:
    """(n,) bytes that sequences of (n,) positions take, about."""
    sizes: npt.NDArray[Any] = _BYTES_PER_POSITION + _BYTES_PER_ENTRY * np.asarray(
        entries_per_position
    )
    total: npt.NDArray[Any] = 1.0 + lengths * sizes
    return total


def sequence_runs(sizes: npt.NDArray[Any], limit: int) -> Iterator[tuple[int, int]]:
    """Consecutive runs start … stop of items that take about `limit`; at least one item each."""
    ends = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        before = ends[start - 1] if start else 0.0
        stop = max(start + 1, int(np.searchsorted(ends, before + limit, side="right")))
        yield start, stop
        start = stop
