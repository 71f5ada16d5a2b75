"""Arrays of tokens: `.npy`, raw `.bin` as nanoGPT writes it, and arrays in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparselogits.arrays import integer_array
from sparselogits.durable import io_error
from sparselogits.errors import InvalidArgumentError
from sparselogits.tokens.documents import TokenDocuments

_RAW_DTYPES = ("uint16", "uint32")
_SCANNED_TOKENS = 1 << 22


class FlatTokens(TokenDocuments):
    """An array of tokens: a 1-D stream, or (N, S) rows that are documents.

    Args:
        array: The tokens, any integer dtype; None: they lie in `file`.
        file: A `.npy`, or with `dtype` a headerless file; mapped when first read.
        dtype: "uint16" or "uint32", little-endian, of a headerless file.
        document_end: The id that ends each document of a 1-D stream and belongs to it. None: the
            stream is one document.
        vocab_size: Ids must lie below it.

    Raises:
        InvalidArgumentError: Shape, dtype or size of the array or file is wrong.
        CacheIOError: The file cannot be read.
    """

    def __init__(
        self,
        array: npt.NDArray[Any] | None = None,
        *,
        file: str | os.PathLike[str] | None = None,
        dtype: npt.DTypeLike | None = None,
        document_end: int | None = None,
        vocab_size: int | None = None,
    ) -> None:
        self._file = None if file is None else Path(file)
        name = "an array" if self._file is None else str(self._file)
        self._dtype = None if dtype is None else _raw_dtype(name, dtype)
        label = name if self._file is None else f"file {self._file.name}"
        if document_end is not None:
            label += f", documents end with {document_end}"
        super().__init__(name, label, vocab_size)
        self._document_end = document_end
        self._array = array
        self._offsets: npt.NDArray[np.int64] | None = None
        tokens = self._tokens
        if tokens.ndim not in (1, 2) or tokens.dtype.kind not in "iu":
            raise InvalidArgumentError(
                f"{self.name}: must be a 1-D stream or (N, S) windows of integers, got shape "
                f"{tokens.shape}, dtype {tokens.dtype}"
            )
        if document_end is not None and tokens.ndim == 2:
            raise InvalidArgumentError(
                f"{self.name}: document_end {document_end} has no effect: each of the "
                f"{len(tokens)} rows is a document"
            )

    @property
    def holds_rows(self) -> bool:
        """Whether it is an (N, S) array, whose rows are documents."""
        return self._tokens.ndim == 2

    @property
    def num_tokens(self) -> int:
        """How many tokens there are; needs no pass."""
        return self._tokens.size

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """See `TokenDocuments`; with `document_end` the first use reads the whole stream."""
        if self._offsets is None:
            self._offsets = self._find_offsets()
        return self._offsets

    def _slice(self, start: int, stop: int) -> npt.NDArray[Any]:
        tokens = self._tokens
        if tokens.ndim == 1:
            return tokens[start:stop]
        width = max(1, tokens.shape[1])  # rows of no tokens: start and stop are 0
        first, last = start // width, -(-stop // width)
        return tokens[first:last].reshape(-1)[start - first * width : stop - first * width]

    @property
    def _tokens(self) -> npt.NDArray[Any]:
        if self._array is None:
            assert self._file is not None
            dtype = self._dtype
            self._array = _map_npy(self._file) if dtype is None else _map_raw(self._file, dtype)
        return self._array

    def _find_offsets(self) -> npt.NDArray[np.int64]:
        tokens = self._tokens
        if tokens.ndim == 2:
            starts: npt.NDArray[np.int64] = np.arange(len(tokens) + 1) * tokens.shape[1]
            return starts
        if self._document_end is None:
            return np.array([0, len(tokens)], np.int64)
        ends: list[npt.NDArray[np.int64]] = [np.zeros(1, np.int64)]
        for start in range(0, len(tokens), _SCANNED_TOKENS):
            piece = tokens[start : start + _SCANNED_TOKENS]
            ends.append(np.flatnonzero(piece == self._document_end) + (start + 1))
        offsets: npt.NDArray[np.int64] = np.concatenate(ends)
        if offsets[-1] != len(tokens):  # the last document may lack its end
            offsets = np.append(offsets, len(tokens))
        return offsets

    def __getstate__(self) -> dict[str, Any]:
        # A mapped file would be pickled with all its tokens.
        state = dict(self.__dict__, _offsets=None)
        if self._file is not None:
            state["_array"] = None
        return state


class ListedTokens(TokenDocuments):
    """Documents in memory, each a 1-D array or list of ids.

    Raises:
        InvalidArgumentError: One of them is no such array; the message names it.
    """

    def __init__(self, documents: Sequence[Any], *, vocab_size: int | None = None) -> None:
        super().__init__("a list of documents", "a list of documents", vocab_size)
        arrays = [integer_array(f"document {i}", item) for i, item in enumerate(documents)]
        lengths = np.array([len(array) for array in arrays], np.int64)
        self._offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
        self._tokens = np.concatenate(arrays) if arrays else np.empty(0, np.int64)

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """See `TokenDocuments`."""
        return self._offsets

    def _slice(self, start: int, stop: int) -> npt.NDArray[Any]:
        return self._tokens[start:stop]


def _raw_dtype(name: str, dtype: npt.DTypeLike) -> np.dtype[Any]:
    """The little-endian dtype of a headerless file."""
    try:
        known: np.dtype[Any] = np.dtype(dtype)
        if known.name in _RAW_DTYPES:
            little: np.dtype[Any] = known.newbyteorder("<")
            return little
    except TypeError:
        pass
    raise InvalidArgumentError(
        f"{name}: dtype must be one of {', '.join(_RAW_DTYPES)}, got {dtype!r}"
    )


def _map_npy(path: Path) -> npt.NDArray[Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise io_error(error, "cannot read", path) from error
    except (ValueError, EOFError) as error:
        raise InvalidArgumentError(f"{path}: is not a whole .npy array: {error}") from error
    if not isinstance(array, np.ndarray):
        raise InvalidArgumentError(f"{path}: is an archive, not one .npy array")
    return array


def _map_raw(path: Path, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    try:
        size = path.stat().st_size
        if size % dtype.itemsize:
            raise InvalidArgumentError(
                f"{path}: has {size} bytes, which is no multiple of {dtype.itemsize}, the bytes of "
                f"dtype {dtype.name}"
            )
        if not size:  # there is nothing to map
            return np.empty(0, dtype)
        return np.memmap(path, dtype, "r")
    except OSError as error:
        raise io_error(error, "cannot read", path) from error
