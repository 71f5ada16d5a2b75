"""Rows of text or of token ids, as files and tables give them: a batch at a time, once through."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

#: Rows of a batch, at most; a reader ends a batch early after this much text.
BATCH_ROWS = 512
BATCH_BYTES = 4 << 20


@dataclass(frozen=True)
class RowBatch:
    """Some consecutive rows, each a document.

    Attributes:
        source: The file or table, for messages.
        places: What each row is called there: numbers of lines or rows.
        unit: What `places` count: "line" or "row"; "" where the source is one document.
        done: How far the reader is after this batch, in the unit of its `size`.
        texts: The rows' texts, or None.
        ids: The rows' token ids end to end, or None.
        lengths: With `ids`: how many each row has.
    """

    source: str
    places: Sequence[int]
    unit: str
    done: int
    texts: list[str] | None = None
    ids: npt.NDArray[Any] | None = None
    lengths: npt.NDArray[np.int64] | None = None

    def place(self, row: int) -> str:
        """A row of this batch, in words."""
        return f"{self.source}, {self.unit} {self.places[row]}" if self.unit else self.source


class RowReader(Protocol):
    """Something with documents that can only be read from the start. Picklable.

    Attributes:
        name: What errors call the source.
        label: What metadata calls it: kind, file and column, without the folder.
        size: The whole, in any unit, for progress.
        holds_text: Whether rows are text, which needs a tokenizer.
    """

    @property
    def name(self) -> str: ...

    @property
    def label(self) -> str: ...

    @property
    def size(self) -> int: ...

    @property
    def holds_text(self) -> bool: ...

    def batches(self) -> Iterator[RowBatch]:
        """All rows, in order."""
