"""Statistics of records, gathered batch by batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sparselogits.sparse import SparseLogits

_PERCENTILES = (1, 5, 25, 50, 75, 95, 99)


class RecordStats:
    """Adds up what is needed of each batch; memory does not grow with the cache."""

    def __init__(self) -> None:
        self._positions_of_size = np.zeros(1, np.int64)  # index: number of entries
        self._entries_of_count = np.zeros(1, np.int64)  # index: count
        self._has_counts = False
        self._entropy = _Range()
        self._sums = _Range()

    def add(self, batch: SparseLogits) -> None:
        """Takes the positions of a batch."""
        sizes = np.diff(batch.offsets)
        self._positions_of_size = _added(self._positions_of_size, np.bincount(sizes))
        if batch.counts is not None:
            self._has_counts = True
            self._entries_of_count = _added(self._entries_of_count, np.bincount(batch.counts))
        starts = batch.offsets[:-1][sizes > 0]
        if len(starts):
            weights = batch.weights.astype(np.float64)
            sums = np.add.reduceat(weights, starts)
            logs = np.log(weights, out=np.zeros_like(weights), where=weights > 0)
            positive = sums > 0
            # H = log W - Σ w log w / W for weights w that sum to W.
            products = np.add.reduceat(weights * logs, starts)[positive]
            self._sums.add(sums)
            self._entropy.add(np.log(sums[positive]) - products / sums[positive])

    def summary(self) -> dict[str, Any]:
        """See `stats_cache`."""
        counts = None
        if self._has_counts:
            counts = {
                "mean": _mean_index(self._entries_of_count),
                "histogram": _histogram(self._entries_of_count),
            }
        sizes = self._positions_of_size.copy()
        empty, sizes[0] = int(sizes[0]), 0
        return {
            "empty_positions": empty,
            "unique_ids": {
                "mean": _mean_index(sizes),
                "min": _first_index(sizes),
                "max": len(np.trim_zeros(sizes, "b")) - 1 if sizes.any() else None,
                "percentiles": _percentiles(sizes),
                "histogram": _histogram(sizes),
            },
            "counts": counts,
            "weight_sums": self._sums.summary(),
            "entropy_nats": self._entropy.summary(),
        }


class _Range:
    """Mean, smallest and largest of numbers."""

    def __init__(self) -> None:
        self._number, self._sum = 0, 0.0
        self._low, self._high = np.inf, -np.inf

    def add(self, values: npt.NDArray[np.float64]) -> None:
        if len(values):
            self._number += len(values)
            self._sum += float(values.sum())
            self._low = min(self._low, float(values.min()))
            self._high = max(self._high, float(values.max()))

    def summary(self) -> dict[str, float] | None:
        if not self._number:
            return None
        return {"mean": self._sum / self._number, "min": self._low, "max": self._high}


def _added(total: npt.NDArray[np.int64], more: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    longer, shorter = (total, more) if len(total) >= len(more) else (more, total)
    result = longer.astype(np.int64)
    result[: len(shorter)] += shorter
    return result


def _mean_index(numbers: npt.NDArray[np.int64]) -> float | None:
    total = int(numbers.sum())
    return float(np.arange(len(numbers)) @ numbers) / total if total else None


def _first_index(numbers: npt.NDArray[np.int64]) -> int | None:
    held = np.flatnonzero(numbers)
    return int(held[0]) if len(held) else None


def _percentiles(numbers: npt.NDArray[np.int64]) -> dict[str, int]:
    """The smallest index that at least p percent do not exceed."""
    if not numbers.any():
        return {}
    cumulative = np.cumsum(numbers)
    return {
        f"p{p}": int(np.searchsorted(cumulative, cumulative[-1] * p / 100)) for p in _PERCENTILES
    }


def _histogram(numbers: npt.NDArray[np.int64]) -> dict[str, int]:
    return {str(index): int(numbers[index]) for index in np.flatnonzero(numbers)}
