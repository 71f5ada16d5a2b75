"""Where windows begin and end in a stream of tokens: two ways to cut it, both O(log n) a window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt


class Cuts(Protocol):
    """Windows as pieces of a stream."""

    def __len__(self) -> int: ...

    def span(self, place: int) -> tuple[int, int]:
        """Start and stop of one window in the stream."""

    def num_tokens(self, places: range) -> int:
        """Tokens of contiguous windows."""


@dataclass(frozen=True)
class EvenCuts:
    """Windows of `length` tokens, one after the other.

    Attributes:
        total: Tokens of the stream.
        length: Of a window.
        keep_short: Whether what is left at the end is a window too.
    """

    total: int
    length: int
    keep_short: bool

    @property
    def left(self) -> int:
        """Tokens behind the last whole window."""
        return self.total % self.length

    def __len__(self) -> int:
        return self.total // self.length + (self.keep_short and self.left > 0)

    def span(self, place: int) -> tuple[int, int]:
        """See `Cuts`."""
        start = place * self.length
        return start, min(start + self.length, self.total)

    def num_tokens(self, places: range) -> int:
        """See `Cuts`."""
        return min(places.stop * self.length, self.total) - places.start * self.length


class DocumentCuts:
    """Windows that never hold more than one document; an empty document gives none.

    Args:
        offsets: Where documents start in the stream, (num_documents + 1,).
        length: Most tokens of a window.
        truncate: Leave out what a document has beyond `length`; else cut it into pieces.
    """

    def __init__(self, offsets: npt.NDArray[np.int64], length: int, truncate: bool) -> None:
        self._offsets = offsets
        self._length = length
        self._truncate = truncate
        pieces = -(-np.diff(offsets) // length)
        if truncate:
            pieces = np.minimum(pieces, 1)
        self._first = np.zeros(len(offsets), np.int64)  # window of each document
        np.cumsum(pieces, out=self._first[1:])

    def __len__(self) -> int:
        return int(self._first[-1])

    def span(self, place: int) -> tuple[int, int]:
        """See `Cuts`."""
        document = int(np.searchsorted(self._first, place, "right")) - 1
        start = int(self._offsets[document]) + self._length * (place - int(self._first[document]))
        return start, min(start + self._length, int(self._offsets[document + 1]))

    def num_tokens(self, places: range) -> int:
        """See `Cuts`."""
        if not len(places):
            return 0
        if not self._truncate:
            return self.span(places[-1])[1] - self.span(places[0])[0]
        # Windows and documents with tokens are the same then.
        lengths = np.diff(self._offsets)
        kept = lengths[lengths > 0][places.start : places.stop]
        return int(np.minimum(kept, self._length).sum())
