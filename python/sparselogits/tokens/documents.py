"""The common shape of all token sources: one long stream of ids, cut into documents."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from sparselogits import _core
from sparselogits.errors import InvalidArgumentError

#: Token ids end here, whatever the vocabulary: caches store them as uint32.
MOST_TOKENS = 1 << 32

_SAMPLED_BLOCKS = 64
_BLOCK_TOKENS = 1024


class TokenDocuments(ABC):
    """Documents of token ids, end to end in one stream that can be read anywhere.

    Opening one checks what costs nothing; ids are checked where they are read. Subclasses say where
    the documents start and how to read; they can be pickled, and a process that gets one opens its
    files again when it first reads.

    Args:
        name: What errors call the source: its file.
        label: What metadata calls it: kind and file, without the folder that it lies in.
        vocab_size: Ids must lie below it; None: below 2^32.

    Attributes:
        name: As given.
        label: As given.
        vocab_size: As given.

    Raises:
        InvalidArgumentError: `vocab_size` is not from 1 to 2^32.
    """

    def __init__(self, name: str, label: str, vocab_size: int | None) -> None:
        if vocab_size is not None and not 1 <= operator.index(vocab_size) <= MOST_TOKENS:
            raise InvalidArgumentError(f"vocab_size must be from 1 to 2^32, got {vocab_size}")
        self.name = name
        self.label = label
        self.vocab_size = vocab_size

    @property
    @abstractmethod
    def offsets(self) -> npt.NDArray[np.int64]:
        """Where documents start in the stream, (num_documents + 1,), the last one its end."""

    @abstractmethod
    def _slice(self, start: int, stop: int) -> npt.NDArray[Any]:
        """The stream's ids from start to stop, (stop - start,), of any integer dtype."""

    @property
    def num_documents(self) -> int:
        """How many documents there are, empty ones included."""
        return len(self.offsets) - 1

    @property
    def num_tokens(self) -> int:
        """How many tokens all documents have."""
        return int(self.offsets[-1])

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each document, (num_documents,)."""
        return np.diff(self.offsets)

    def document(self, index: int) -> npt.NDArray[Any]:
        """The ids of one document, 1-D, a view where the format allows.

        Raises:
            InvalidArgumentError: There is no such document, or an id is outside the vocabulary.
        """
        if not 0 <= operator.index(index) < self.num_documents:
            raise InvalidArgumentError(
                f"{self.name}: there is no document {index} among {self.num_documents}"
            )
        return self.read(int(self.offsets[index]), int(self.offsets[index + 1]))

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """A piece of the stream, whatever documents it lies in.

        Args:
            start: The first token, from 0.
            stop: One behind the last token, at most `num_tokens`.

        Returns:
            (stop - start,) ids of any integer dtype, a view where the format allows.

        Raises:
            InvalidArgumentError: Not a piece of the stream, or an id is outside the vocabulary.
        """
        if not 0 <= start <= stop <= self.num_tokens:
            raise InvalidArgumentError(
                f"{self.name}: tokens {start} to {stop} do not lie in [0, {self.num_tokens}]"
            )
        ids = self._slice(start, stop)
        limit = MOST_TOKENS if self.vocab_size is None else self.vocab_size
        if ids.size and not 0 <= ids.min() <= ids.max() < limit:
            where = int(((ids < 0) | (ids >= limit)).argmax())
            raise InvalidArgumentError(
                f"{self.name}: {self._place(start + where)} has id {ids[where]}, outside "
                f"[0, {limit})"
            )
        return ids

    def digest(self) -> str:
        """16 hex digits of the tokens: XXH64 of their number, that of the documents, and samples.

        Samples are 64 blocks of 1,024 tokens (as little-endian uint32) and up to 65,536 offsets,
        evenly spread. So the same corpus has the same digest in every file format.
        """
        total, offsets = self.num_tokens, self.offsets
        parts = [np.array([total, len(offsets) - 1], "<u8").tobytes()]
        for start in _spread(max(0, total - _BLOCK_TOKENS), _SAMPLED_BLOCKS):
            block = self.read(start, min(start + _BLOCK_TOKENS, total))
            parts.append(block.astype("<u4").tobytes())
        sampled = _spread(len(offsets) - 1, _SAMPLED_BLOCKS * _BLOCK_TOKENS)
        parts.append(offsets[sampled].astype("<u8").tobytes())
        return f"{_core.xxh64(b''.join(parts)):016x}"

    def _place(self, token: int) -> str:
        """A token of the stream, in words."""
        document = int(np.searchsorted(self.offsets, token, "right")) - 1
        return f"document {document}, token {token - int(self.offsets[document])},"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


def _spread(last: int, most: int) -> list[int]:
    """Up to `most` distinct integers from 0 to `last`, both included, evenly apart."""
    if last < most:
        return list(range(last + 1))
    return [index * last // (most - 1) for index in range(most)]
