"""Windows that can be had in any order: what work is divided over, and how they were made."""

from __future__ import annotations

import copy
import operator
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeGuard

import numpy as np

from sparselogits import _core
from sparselogits.capture.window import Window
from sparselogits.errors import InvalidArgumentError, SequenceNotFoundError

_SAMPLED_WINDOWS = 64


class WindowSet(Protocol):
    """Windows with random access: the same index gives the same window, in every process."""

    @property
    def description(self) -> Mapping[str, str]:
        """How the windows were made, for the cache's metadata.

        Keys, where the set knows them: "token_source", "window_packing", "document_mask",
        "position_ids", "bos_rule". A part that `select` gave tells of the whole, so that caches of
        parts can be merged.
        """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Window: ...

    def select(self, windows: range, /) -> WindowSet:
        """A contiguous part; its windows keep the sequence ids and indices of the whole."""

    def content_digest(self) -> str:
        """16 hex digits that tell one set of windows from another, at little cost."""


def is_window_set(source: Any) -> TypeGuard[WindowSet]:
    """Whether `source` has the methods of a `WindowSet`.

    Asked of the class: its `description` may have to read a corpus.
    """
    names = ("select", "content_digest", "description", "__len__", "__getitem__")
    return all(hasattr(type(source), name) for name in names)


def window_facts(source: Any) -> dict[str, str]:
    """The description of a window set; of anything else, which can say nothing, no facts."""
    return dict(source.description) if is_window_set(source) else {}


class WindowRange(ABC):
    """Windows [start, stop) of something that can make each of them: the base of window sets.

    Args:
        num_windows: How many windows the whole has.
    """

    def __init__(self, num_windows: int) -> None:
        self._places = range(num_windows)

    @property
    @abstractmethod
    def description(self) -> dict[str, str]:
        """See `WindowSet`."""

    @abstractmethod
    def _window(self, place: int) -> Window:
        """Makes one window of the whole."""

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int, /) -> Window:
        """The window at `index`; negative ones count from the end.

        Raises:
            SequenceNotFoundError: There is none (it is an IndexError too).
        """
        try:
            place = self._places[operator.index(index)]
        except IndexError:
            raise SequenceNotFoundError(f"no window {index}: there are {len(self)}") from None
        return self._window(place)

    def __iter__(self) -> Iterator[Window]:
        return (self._window(place) for place in self._places)

    def select(self, windows: range, /) -> WindowRange:
        """A contiguous part; see `WindowSet`.

        Raises:
            InvalidArgumentError: `windows` has a step, or does not lie in [0, len).
        """
        if windows.step != 1 or not 0 <= windows.start <= windows.stop <= len(self):
            raise InvalidArgumentError(
                f"windows must be a range of step 1 inside [0, {len(self)}), got {windows}"
            )
        part = copy.copy(self)
        part._places = self._places[windows.start : windows.stop]
        return part

    def content_digest(self) -> str:
        """XXH64 of the number of windows and of up to 64 of them, evenly spread."""
        count = min(len(self), _SAMPLED_WINDOWS)
        indices = np.linspace(0, len(self) - 1, count).astype(np.int64).tolist() if count else []
        return f"{_core.xxh64(b''.join([_bytes_of(len(self)), *map(self._bytes, indices)])):016x}"

    def _bytes(self, index: int) -> bytes:
        window = self[index]
        starts = np.zeros(1) if window.document_starts is None else window.document_starts
        identity = np.array([window.sequence_id], "<u8").tobytes()
        arrays = (window.tokens.astype("<i8"), window.captured, starts.astype("<i8"))
        return identity + b"".join(_bytes_of(array.size) + array.tobytes() for array in arrays)


def check_starts(window: Window) -> None:
    """Refuses `document_starts` that are no ascending positions of the window from 0.

    Raises:
        InvalidArgumentError: The message names the window and the value.
    """
    starts = window.document_starts
    if starts is None:
        return
    name = f"document_starts of window {window.index}"
    if starts.ndim != 1 or starts.dtype.kind not in "iu":
        raise InvalidArgumentError(
            f"{name} must be 1-D integers, got shape {starts.shape}, dtype {starts.dtype}"
        )
    if not len(window.tokens) and not len(starts):
        return
    if not len(starts) or starts[0] != 0:
        raise InvalidArgumentError(f"{name} must begin with 0, got {starts[:3].tolist()}")
    if (np.diff(starts.astype(np.int64)) <= 0).any() or starts[-1] >= len(window.tokens):
        raise InvalidArgumentError(
            f"{name} must ascend and lie in [0, {len(window.tokens)}), got {starts.tolist()}"
        )


def _bytes_of(number: int) -> bytes:
    return number.to_bytes(8, "little")
