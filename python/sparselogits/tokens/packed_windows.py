"""`pack`: windows over a corpus, any of which can be had at once."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from sparselogits.capture.window import Window
from sparselogits.capture.window_set import WindowRange
from sparselogits.errors import FingerprintMismatchError, InvalidArgumentError
from sparselogits.tokens.cuts import Cuts
from sparselogits.tokens.documents import TokenDocuments
from sparselogits.tokens.opening import open_tokens
from sparselogits.tokens.packing import Packing


def pack(
    documents: Any,
    length: int,
    packing: str = "concat",
    *,
    bos: int | None = None,
    eos: int | None = None,
    bos_at: str | None = None,
    keep_short: bool | None = None,
    long_documents: str | None = None,
    first_sequence_id: int = 0,
) -> PackedWindows:
    """Cuts a corpus into windows for a teacher.

    Args:
        documents: What `open_tokens` returns, or what it takes without options.
        length: Most tokens of a window, S.
        packing: "concat": documents end to end, cut every S tokens, as if they were one.
            "concat-documents": cut the same way, but each window says where its documents start,
            so that the teacher does not attend across them and positions restart.
            "documents": each window holds one document, or a piece of one; lengths differ.
        bos: An id to put before each document, or each window.
        eos: An id to put behind each document.
        bos_at: "document" (default) or "window": S then counts it, and no document gets one.
        keep_short: Of "concat" and "concat-documents": whether what is left at the end, shorter
            than S, is a window. Default: no.
        long_documents: Of "documents": "split" (default) into pieces of at most S tokens, or
            "truncate" to the first S.
        first_sequence_id: Window i gets the sequence id `first_sequence_id` + i. Give each corpus
            its own range if their caches are to be merged.

    Returns:
        The windows, for `sl.capture`.

    Raises:
        InvalidArgumentError: A value is unknown, an option has no effect, an id is outside the
            vocabulary, or there would be no window.
        FormatError, CacheIOError: As the source.
    """
    if not isinstance(documents, TokenDocuments):
        documents = open_tokens(documents)
    rule = Packing(length, packing, bos, eos, bos_at, keep_short, long_documents)
    return PackedWindows(documents, rule, first_sequence_id=first_sequence_id)


class PackedWindows(WindowRange):
    """Windows over token documents. A `WindowSet`; `pack` makes them.

    Picklable: a process that gets one opens the corpus again when it makes its first window, and
    refuses if it is another corpus by then.

    Args:
        documents: The corpus.
        packing: How it is cut.
        first_sequence_id: Of the first window.

    Attributes:
        documents: As given.
        packing: As given.

    Raises:
        InvalidArgumentError: See `pack`.
    """

    def __init__(
        self, documents: TokenDocuments, packing: Packing, *, first_sequence_id: int = 0
    ) -> None:
        self.documents = documents
        self.packing = packing
        self._first_id = operator.index(first_sequence_id)
        self._stream = packing.stream(documents)
        self._cuts: Cuts | None = packing.cuts(self._stream)
        self._digest = documents.digest()
        super().__init__(len(self._cuts))
        if not 0 <= self._first_id <= 2**64 - len(self):
            raise InvalidArgumentError(
                f"first_sequence_id must be from 0 to 2^64 - {len(self)}, the number of windows, "
                f"got {first_sequence_id}"
            )

    @property
    def description(self) -> dict[str, str]:
        """How the windows were made, of the whole also in a part; see `WindowSet`."""
        return self.packing.description(self._stream, self._opened(), self._digest)

    @property
    def num_positions(self) -> int:
        """Tokens of all windows, added ones included."""
        added = len(self) * (self.packing.window_bos is not None)
        return self._opened().num_tokens(self._places) + added

    def _window(self, place: int) -> Window:
        start, stop = self._opened().span(place)
        tokens = self._stream.read(start, stop)
        if self.packing.window_bos is not None:
            tokens = np.concatenate([np.array([self.packing.window_bos], np.int64), tokens])
        starts = None
        if self.packing.packing == "concat-documents":
            offsets = self._stream.offsets
            first, last = np.searchsorted(offsets, (start, stop), ("right"))
            inside = np.unique(offsets[first:last])  # empty documents start where the next one does
            starts = np.concatenate([np.zeros(1, np.int64), inside[inside < stop] - start])
        captured = np.ones(len(tokens), np.bool_)
        return Window(place, self._first_id + place, tokens, captured, starts)

    def _opened(self) -> Cuts:
        if self._cuts is None:
            digest = self.documents.digest()
            if digest != self._digest:
                raise FingerprintMismatchError(
                    f"{self.documents.name}: has digest {digest}, but had {self._digest} when its "
                    "windows were cut"
                )
            self._cuts = self.packing.cuts(self._stream)
        return self._cuts

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__, _cuts=None)
