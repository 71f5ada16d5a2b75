"""Samples: everything that may become a row of a batch, from all caches of a dataset."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sparselogits.reader import Cache
from sparselogits.torch.batch_plan import BatchPlan
from sparselogits.torch.selection import Selection
from sparselogits.torch.windows import WindowRule, Windows


class Samples:
    """The samples of one or several caches, each found at once.

    Args:
        windows: The samples of each cache.
    """

    def __init__(self, windows: Sequence[Windows]) -> None:
        self._windows = tuple(windows)
        self.sizes = tuple(source.num_samples for source in windows)

    @classmethod
    def of_caches(
        cls, caches: Sequence[Cache], selections: Sequence[Selection], rule: WindowRule
    ) -> Samples:
        """What a rule makes of the selected sequences."""
        windows = []
        for cache, selection in zip(caches, selections, strict=True):
            lengths = None if rule.window is None else cache.sequence_lengths
            if lengths is not None and selection is not None:
                lengths = lengths[selection]
            windows.append(rule.apply(len(cache), lengths, selection))
        return cls(windows)

    def plan(self, caches: npt.NDArray[np.int32], samples: npt.NDArray[np.int64]) -> BatchPlan:
        """A batch whose row b is sample `samples[b]` of cache `caches[b]`."""
        places = [np.flatnonzero(caches == index) for index in range(len(self._windows))]
        parts = [
            source.pieces(samples[rows]) for source, rows in zip(self._windows, places, strict=True)
        ]
        counts = np.empty(len(samples), np.int64)
        for part, rows in zip(parts, places, strict=True):
            counts[rows] = part.counts
        row_offsets = np.zeros(len(samples) + 1, np.int64)
        np.cumsum(counts, out=row_offsets[1:])
        columns = np.empty((3, row_offsets[-1]), np.int64)
        owners = np.repeat(caches, counts)
        for index, part in enumerate(parts):  # the pieces of a cache keep their order
            columns[:, owners == index] = part.sequences, part.starts, part.stops
        return BatchPlan(owners, columns[0], columns[1], columns[2], row_offsets)
