"""Token windows in every shape that users have, as one stream of checked windows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from sparselogits.capture.given_windows import GivenSource, GivenWindows, is_indexable
from sparselogits.capture.window import Window
from sparselogits.capture.window_input import (
    captured_of,
    check_count,
    load,
    sequence_ids_of,
    tokens_of,
)
from sparselogits.capture.window_set import WindowSet, check_starts, is_window_set
from sparselogits.errors import InvalidArgumentError

__all__ = ["Window", "WindowSource", "WindowStream"]

#: What `windows=` accepts: a window set, or windows that are cut already.
WindowSource = WindowSet | GivenSource


class WindowStream:
    """Checked windows in source order; what lies in a file stays there until it is used.

    Args:
        source: A `WindowSet` (`sl.tokens.pack` makes them), an (N, S) integer array, the path of a
            `.npy` that holds one, or an iterable of 1-D integer arrays or lists (lengths may
            differ, empty ones are legal).
        vocab_size: Ids must lie in [0, vocab_size).
        max_length: The longest window that the model can see, or None.
        sequence_ids: One unsigned 64-bit id a window; default: the ids of the window set, or the
            index of the window.
        targets_mask: The layout of the windows, bool. True at t: the distribution of token t+1 is
            captured. None captures every position (of a window set: those that it names).

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
        self._windows: Any = source if is_window_set(source) else _given(source)
        self._mask: Any = None if targets_mask is None else load(targets_mask, "targets_mask")
        self._ids = None if sequence_ids is None else sequence_ids_of(sequence_ids)
        self._vocab_size = vocab_size
        self._max_length = max_length
        self.num_windows = len(self._windows) if is_window_set(self._windows) else None
        self.num_positions: int | None = getattr(self._windows, "num_positions", None)
        if isinstance(self._windows, GivenWindows) and self._windows.array is not None:
            self._check_array(self._windows.array)
        for name, other in (("sequence_ids", self._ids), ("targets_mask", self._mask)):
            if self.num_windows is not None and isinstance(other, Sized):
                check_count(name, len(other), self.num_windows)

    def __iter__(self) -> Iterator[Window]:
        masks = None if self._mask is None else iter(self._mask)
        for place, window in enumerate(self._made()):
            self._check_length(len(window.tokens), window.index)
            self._check_ids(window.tokens, window.index)
            check_starts(window)
            sequence_id, captured = window.sequence_id, window.captured
            if self._ids is not None:
                if place >= len(self._ids):
                    raise InvalidArgumentError(
                        f"sequence_ids has {len(self._ids)} items, but there are more windows"
                    )
                sequence_id = int(self._ids[place])
            if masks is not None:
                mask = next(masks, None)
                if mask is None:
                    raise InvalidArgumentError(f"targets_mask ends before window {window.index}")
                captured = captured_of(mask, len(window.tokens), window.index)
            yield Window(window.index, sequence_id, window.tokens, captured, window.document_starts)

    def batches(
        self, batch_size: int, skip: Callable[[Window], bool] = lambda _: False
    ) -> Iterator[list[Window]]:
        """Lists of at most `batch_size` windows, without those for which `skip` is true."""
        todo = (window for window in self if not skip(window))
        while batch := list(islice(todo, batch_size)):
            yield batch

    def _made(self) -> Iterator[Window]:
        if is_window_set(self._windows):
            yield from (self._windows[index] for index in range(len(self._windows)))
            return
        for index, raw in enumerate(self._windows):
            tokens = tokens_of(raw, index)
            yield Window(index, index, tokens, np.ones(len(tokens), np.bool_))

    def _check_array(self, array: npt.NDArray[Any]) -> None:
        if not len(array):
            return
        self._check_length(array.shape[1], 0)
        # An array in memory is checked before anything is written; a file row by row.
        in_memory = array.size > 0 and not isinstance(array, np.memmap)
        if in_memory and not 0 <= array.min() <= array.max() < self._vocab_size:
            for index, tokens in enumerate(array):
                self._check_ids(tokens, index)

    def _check_length(self, length: int, index: int) -> None:
        if self._max_length is not None and length > self._max_length:
            raise InvalidArgumentError(
                f"window {index} has {length} tokens, more than the model's context of "
                f"{self._max_length}"
            )

    def _check_ids(self, tokens: npt.NDArray[Any], index: int) -> None:
        outside = (tokens < 0) | (tokens >= self._vocab_size)
        if outside.any():
            where = int(outside.argmax())
            raise InvalidArgumentError(
                f"window {index} has token id {tokens[where]} at position {where}, outside "
                f"[0, {self._vocab_size})"
            )


def _given(source: Any) -> Any:
    """A window set where any window can be had, else the iterable."""
    loaded = load(source, "windows")
    return GivenWindows(loaded) if is_indexable(loaded) else loaded
