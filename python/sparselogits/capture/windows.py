"""Token windows in every shape that users have, as one stream of checked windows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparselogits.errors import CacheIOError, InvalidArgumentError

#: What `windows=` and `targets_mask=` accept: an (N, S) array, the path of a `.npy` that holds
#: one, or an iterable of 1-D arrays.
WindowSource = npt.NDArray[Any] | str | os.PathLike[str] | Iterable[Any]


@dataclass(frozen=True)
class Window:
    """One token window, checked.

    Attributes:
        index: Its place in the source, for error messages.
        sequence_id: Its stable identity in the cache and in the keys of the draws.
        tokens: The input ids, (S,) int64.
        captured: The positions to capture, (S,) bool.
        document_starts: The positions at which a document starts, ascending, the first one 0: the
            teacher does not attend across them, and position ids restart. None: one document.
    """

    index: int
    sequence_id: int
    tokens: npt.NDArray[np.int64]
    captured: npt.NDArray[np.bool_]
    document_starts: npt.NDArray[np.int64] | None = None


class WindowStream:
    """Checked windows in source order; a `.npy` stays on disk until its rows are used.

    Args:
        source: An (N, S) integer array, the path of a `.npy` that holds one, or an iterable of
            1-D integer arrays or lists (lengths may differ, empty ones are legal).
        vocab_size: Ids must lie in [0, vocab_size).
        max_length: The longest window that the model can see, or None.
        sequence_ids: One unsigned 64-bit id a window; default: the index of the window.
        targets_mask: The layout of `source`, bool. True at t: the distribution of token t+1 is
            captured. None captures every position.

    Attributes:
        num_windows: How many windows there are, or None for an iterable without a length.
        num_positions: How many positions they have, where that is known without a pass.

    Raises:
        InvalidArgumentError: A window, an id or the mask is wrong; the message names the window
            and the value. What costs nothing is checked at once, a window's ids in its turn.
        CacheIOError: The `.npy` cannot be read.
    """

    def __init__(
        self,
        source: WindowSource,
        *,
        vocab_size: int,
        max_length: int | None = None,
        sequence_ids: Iterable[int] | None = None,
        targets_mask: WindowSource | None = None,
    ) -> None:
        self._source = _load(source, "windows")
        self._mask = None if targets_mask is None else _load(targets_mask, "targets_mask")
        self._ids = None if sequence_ids is None else _sequence_ids(sequence_ids)
        self._vocab_size = vocab_size
        self._max_length = max_length
        self.num_windows = len(self._source) if isinstance(self._source, Sized) else None
        self.num_positions = self._source.size if isinstance(self._source, np.ndarray) else None
        if isinstance(self._source, np.ndarray) and len(self._source):
            self._check_length(self._source.shape[1], 0)
            # An array in memory is checked before anything is written; a file row by row.
            in_memory = self._source.size > 0 and not isinstance(self._source, np.memmap)
            if in_memory and not 0 <= self._source.min() <= self._source.max() < vocab_size:
                for index, tokens in enumerate(self._source):
                    self._check_ids(tokens, index)
        for name, other in (("sequence_ids", self._ids), ("targets_mask", self._mask)):
            if self.num_windows is not None and isinstance(other, Sized):
                _check_count(name, len(other), self.num_windows)

    def __iter__(self) -> Iterator[Window]:
        masks = None if self._mask is None else iter(self._mask)
        for index, raw in enumerate(self._source):
            tokens = _tokens(raw, index)
            self._check_length(len(tokens), index)
            self._check_ids(tokens, index)
            if self._ids is not None and index >= len(self._ids):
                raise InvalidArgumentError(
                    f"sequence_ids has {len(self._ids)} items, but there are more windows"
                )
            captured = np.ones(len(tokens), np.bool_)
            if masks is not None:
                captured = _captured(next(masks, None), len(tokens), index)
            sequence_id = index if self._ids is None else int(self._ids[index])
            yield Window(index, sequence_id, tokens, captured)

    def batches(
        self, batch_size: int, skip: Callable[[Window], bool] = lambda _: False
    ) -> Iterator[list[Window]]:
        """Lists of at most `batch_size` windows, without those for which `skip` is true."""
        todo = (window for window in self if not skip(window))
        while batch := list(islice(todo, batch_size)):
            yield batch

    def _check_length(self, length: int, index: int) -> None:
        if self._max_length is not None and length > self._max_length:
            raise InvalidArgumentError(
                f"window {index} has {length} tokens, more than the model's context of "
                f"{self._max_length}"
            )

    def _check_ids(self, tokens: npt.NDArray[np.int64], index: int) -> None:
        outside = (tokens < 0) | (tokens >= self._vocab_size)
        if outside.any():
            where = int(outside.argmax())
            raise InvalidArgumentError(
                f"window {index} has token id {tokens[where]} at position {where}, outside "
                f"[0, {self._vocab_size})"
            )


def _load(source: WindowSource, name: str) -> Any:
    """Opens a path, takes tensors as arrays, and checks the shape of what is an array."""
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        try:
            source = np.load(path, mmap_mode="r", allow_pickle=False)
        except OSError as error:
            raise CacheIOError(f"{name}: cannot read {path}: {error}") from error
        except ValueError as error:
            raise InvalidArgumentError(f"{name}: {path} is not a .npy array: {error}") from error
        if not isinstance(source, np.ndarray):
            raise InvalidArgumentError(f"{name}: {path} is an archive, not one .npy array")
    elif hasattr(source, "__array__"):
        source = np.asarray(source)
    if isinstance(source, np.ndarray):
        if source.ndim != 2:
            raise InvalidArgumentError(
                f"{name} must be an (N, S) array, got shape {source.shape}; a flat stream of "
                "tokens has to be cut into windows first"
            )
        kinds = "b" if name == "targets_mask" else "iu"
        if source.dtype.kind not in kinds:
            wanted = "bool" if name == "targets_mask" else "integers"
            raise InvalidArgumentError(f"{name} must hold {wanted}, got dtype {source.dtype}")
    elif not isinstance(source, Iterable):
        raise InvalidArgumentError(f"{name} must be an array, a path or an iterable of 1-D arrays")
    return source


def _tokens(raw: Any, index: int) -> npt.NDArray[np.int64]:
    tokens = np.asarray(raw)
    if tokens.ndim != 1:
        raise InvalidArgumentError(f"window {index} must be 1-D, got shape {tokens.shape}")
    if tokens.size == 0:  # an empty Python list has no integer dtype to show
        return np.empty(0, np.int64)
    if tokens.dtype.kind not in "iu":
        raise InvalidArgumentError(f"window {index} must hold integers, got dtype {tokens.dtype}")
    if tokens.dtype == np.uint64 and int(tokens.max()) > np.iinfo(np.int64).max:
        raise InvalidArgumentError(f"window {index} has token id {tokens.max()}")
    return tokens.astype(np.int64)


def _captured(raw: Any, length: int, index: int) -> npt.NDArray[np.bool_]:
    if raw is None:
        raise InvalidArgumentError(f"targets_mask ends before window {index}")
    mask = np.asarray(raw)
    if mask.shape != (length,):
        raise InvalidArgumentError(
            f"targets_mask of window {index} has shape {mask.shape}, the window has {length} tokens"
        )
    if mask.size and mask.dtype != np.bool_:
        raise InvalidArgumentError(
            f"targets_mask of window {index} must be bool, got dtype {mask.dtype}"
        )
    return mask.astype(np.bool_)


def _sequence_ids(raw: Iterable[int]) -> npt.NDArray[np.uint64]:
    values = [int(value) for value in _checked_integers(raw)]
    for value in values:
        if not 0 <= value < 2**64:
            raise InvalidArgumentError(f"sequence_id {value} is outside [0, 2^64)")
    ids = np.array(values, np.uint64)
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) != len(ids):
        raise InvalidArgumentError(f"sequence_id {unique[counts.argmax()]} occurs more than once")
    return ids


def _checked_integers(raw: Iterable[int]) -> Iterator[int]:
    for value in raw:
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
            raise InvalidArgumentError(f"sequence_ids must be integers, got {value!r}")
        yield int(value)


def _check_count(name: str, count: int, num_windows: int) -> None:
    if count != num_windows:
        raise InvalidArgumentError(f"{name} has {count} items for {num_windows} windows")
