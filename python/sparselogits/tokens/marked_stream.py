"""A stream with begin and end ids around its documents, without a copy of the stream."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sparselogits.tokens.documents import TokenDocuments


class MarkedStream:
    """The documents of a source, each between its marks.

    Args:
        documents: The source.
        begin: The id before each document, or None.
        end: The id behind each document, or None.
    """

    def __init__(self, documents: TokenDocuments, begin: int | None, end: int | None) -> None:
        self.documents = documents
        self._begin = begin
        self._end = end
        self._marks = (begin is not None) + (end is not None)
        self._offsets: npt.NDArray[np.int64] | None = None

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """Where documents with their marks start, (num_documents + 1,)."""
        if not self._marks:
            return self.documents.offsets
        if self._offsets is None:
            plain = self.documents.offsets
            self._offsets = plain + np.arange(len(plain)) * self._marks
        return self._offsets

    @property
    def num_tokens(self) -> int:
        """Tokens, marks included."""
        return int(self.offsets[-1]) if self._marks else self.documents.num_tokens

    def read(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """The ids from start to stop, (stop - start,)."""
        if not self._marks:
            return self.documents.read(start, stop).astype(np.int64)
        ids = np.empty(stop - start, np.int64)
        if start == stop:
            return ids
        marked, plain = self.offsets, self.documents.offsets
        first = int(np.searchsorted(marked, start, "right")) - 1
        last = int(np.searchsorted(marked, stop, "left"))
        is_text = np.ones(stop - start, np.bool_)
        for mark, places in (
            (self._begin, marked[first:last]),
            (self._end, marked[first + 1 : last + 1] - 1),
        ):
            if mark is not None:
                inside = places[(start <= places) & (places < stop)] - start
                ids[inside] = mark
                is_text[inside] = False
        # What is no mark lies end to end in the source, from here on.
        inside_first = max(0, start - int(marked[first]) - (self._begin is not None))
        begin = int(plain[first]) + inside_first
        ids[is_text] = self.documents.read(begin, begin + int(is_text.sum()))
        return ids

    def __getstate__(self) -> dict[str, object]:
        return dict(self.__dict__, _offsets=None)
