"""Names, places and fingerprints of a cache's sequences."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class SequenceTable:
    """The sequences in the order of the cache, and a lookup by id.

    Args:
        ids: (n,) uint64, unique.
        starts: (n + 1,) int64 global positions.
        fingerprints: (n,) uint64.
    """

    def __init__(
        self,
        ids: npt.NDArray[np.uint64],
        starts: npt.NDArray[np.int64],
        fingerprints: npt.NDArray[np.uint64],
    ) -> None:
        self.ids = ids
        self.starts = starts
        self.fingerprints = fingerprints
        for array in (ids, starts, fingerprints):
            array.flags.writeable = False  # shared by all who ask
        self._order: npt.NDArray[np.intp] | None = None  # of the ids, sorted when first needed

    def find(self, sequence_id: object) -> int | None:
        """The index of a sequence, or None."""
        if isinstance(sequence_id, np.integer):
            sequence_id = int(sequence_id)
        if isinstance(sequence_id, bool) or not isinstance(sequence_id, int):
            return None
        if not 0 <= sequence_id < 1 << 64:
            return None
        index = int(self.find_all(np.array([sequence_id], np.uint64))[0])
        return index if index >= 0 else None

    def find_all(self, sequence_ids: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """The indices of (n,) sequences; -1 where there is none."""
        order = self._order
        if order is None:  # two threads may both sort: a lock could be held while a fork copies it
            self._order = order = np.argsort(self.ids, kind="stable")
        places = np.searchsorted(self.ids, sequence_ids, sorter=order)
        indices = np.full(len(sequence_ids), -1, np.int64)
        inside = np.flatnonzero(places < len(self.ids))
        candidates = order[places[inside]]
        held = self.ids[candidates] == sequence_ids[inside]
        indices[inside[held]] = candidates[held]
        return indices


class SequencePlaces(NamedTuple):
    """What is known of n sequences.

    Attributes:
        ids, fingerprints: (n,) uint64.
        starts: (n,) int64: the global position at which each starts.
        lengths: (n,) int64, in positions.
    """

    ids: npt.NDArray[np.uint64]
    fingerprints: npt.NDArray[np.uint64]
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
