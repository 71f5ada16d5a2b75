"""Megatron-LM's indexed datasets as a token source."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from sparselogits.durable import io_error
from sparselogits.tokens.documents import TokenDocuments
from sparselogits.tokens.megatron_index import MegatronIndex
from sparselogits.tokens.megatron_layout import pair_of


class MegatronTokens(TokenDocuments):
    """A `.bin` and `.idx` pair, memory-mapped. A document may have several sequences.

    Args:
        path: The common prefix, or either file.
        vocab_size: Ids must lie below it.

    Attributes:
        dtype: Of the tokens in the `.bin`.

    Raises:
        TruncatedError, CorruptionError, UnsupportedError: The header is wrong, now; an entry of
            the tables is, when the offsets are first used. File, byte, field and value are named.
        CacheIOError: A file cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str], *, vocab_size: int | None = None) -> None:
        self._bin, idx = pair_of(os.fspath(path))
        super().__init__(str(self._bin), f"Megatron-LM {self._bin.stem}", vocab_size)
        self._idx = idx
        self._index: MegatronIndex | None = MegatronIndex.read(idx)
        self.dtype = self._index.dtype
        self._offsets: npt.NDArray[np.int64] | None = None
        self._bin_size()

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """See `TokenDocuments`; the first use checks the whole index."""
        if self._offsets is None:
            self._open()
        assert self._offsets is not None
        return self._offsets

    @property
    def nbytes(self) -> int:
        """Bytes of both files."""
        return self._bin_size() + self._idx.stat().st_size

    def _slice(self, start: int, stop: int) -> npt.NDArray[Any]:
        if self._sequences is None:
            return self._tokens[self._base + start : self._base + stop]
        # Sequences that lie anywhere in the .bin: piece by piece.
        itemsize = self._tokens.dtype.itemsize
        first = int(np.searchsorted(self._sequences, start, "right")) - 1
        pieces = [np.empty(0, self._tokens.dtype)]
        while start < stop:
            end = min(stop, int(self._sequences[first + 1]))
            inside = start - int(self._sequences[first])
            base = int(self._pointers[first]) // itemsize + inside
            pieces.append(self._tokens[base : base + end - start])
            start, first = end, first + 1
        return np.concatenate(pieces)

    def _open(self) -> None:
        index = MegatronIndex.read(self._idx) if self._index is None else self._index
        size = self._bin_size()
        contiguous = index.check(self._bin, size)
        whole = size // index.dtype.itemsize
        self._tokens: npt.NDArray[Any] = (
            np.memmap(self._bin, index.dtype, "r", shape=(whole,))
            if whole
            else np.empty(0, index.dtype)
        )
        sequences = np.zeros(len(index.lengths) + 1, np.int64)
        np.cumsum(index.lengths, dtype=np.int64, out=sequences[1:])
        self._sequences = None if contiguous else sequences
        self._pointers = index.pointers
        self._base = int(index.pointers[0]) // index.dtype.itemsize if len(index.pointers) else 0
        self._offsets = sequences[index.documents]
        self._index = None

    def _bin_size(self) -> int:
        try:
            return self._bin.stat().st_size
        except OSError as error:
            raise io_error(error, "cannot read", self._bin) from error

    def __getstate__(self) -> dict[str, Any]:
        # Maps would be pickled with all they show.
        names = ("name", "label", "vocab_size", "dtype", "_bin", "_idx")
        return dict({name: self.__dict__[name] for name in names}, _index=None, _offsets=None)
