"""Arrays, files and lists of windows, as a window set."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sized
from typing import Any

import numpy as np
import numpy.typing as npt

from sparselogits.capture.window import Window
from sparselogits.capture.window_input import (
    captured_of,
    check_count,
    load,
    sequence_ids_of,
    tokens_of,
)
from sparselogits.capture.window_set import WindowRange
from sparselogits.errors import InvalidArgumentError

#: What `windows=` and `targets_mask=` accept beside window sets: an (N, S) array, the path of a
#: `.npy` that holds one, or an iterable of 1-D arrays.
GivenSource = npt.NDArray[Any] | str | os.PathLike[str] | Iterable[Any]


class GivenWindows(WindowRange):
    """Windows that somebody else has cut, with their ids and masks.

    Picklable: what lies in a file is opened again by the process that uses it.

    Args:
        source: An (N, S) integer array, the path of a `.npy` that holds one, or a sequence of 1-D
            integer arrays or lists (lengths may differ, empty ones are legal).
        sequence_ids: One unsigned 64-bit id a window; default: the index of the window.
        targets_mask: The layout of `source`, bool: the positions to capture. None: all.

    Attributes:
        array: The windows where they are an (N, S) array; it may lie in a file.

    Raises:
        InvalidArgumentError: Shape, dtype or number of something is wrong, or it cannot be
            indexed. What is inside a window is checked when that window is made.
        CacheIOError: A `.npy` cannot be read.
    """

    def __init__(
        self,
        source: GivenSource,
        *,
        sequence_ids: Iterable[int] | None = None,
        targets_mask: GivenSource | None = None,
    ) -> None:
        self._given = {"windows": source, "targets_mask": targets_mask}
        self._open()
        for name, values in (("windows", self._rows), ("targets_mask", self._masks)):
            if values is not None and not is_indexable(values):
                raise InvalidArgumentError(
                    f"{name} must have a length and random access here, got a "
                    f"{type(values).__name__}: make a list of it"
                )
        super().__init__(len(self._rows))
        self._ids = None if sequence_ids is None else sequence_ids_of(sequence_ids)
        for name, values in (("sequence_ids", self._ids), ("targets_mask", self._masks)):
            if values is not None:
                check_count(name, len(values), len(self))

    @property
    def description(self) -> dict[str, str]:
        """That there are masks; of all else only the caller knows more, in `metadata`."""
        return {} if self._masks is None else {"targets_mask": "given"}

    @property
    def array(self) -> npt.NDArray[Any] | None:
        """(N, S) of any integer dtype, or None."""
        return self._rows if isinstance(self._rows, np.ndarray) else None

    @property
    def num_positions(self) -> int | None:
        """Positions of all windows, where that is known without a pass."""
        return None if self.array is None else len(self) * self.array.shape[1]

    def _window(self, place: int) -> Window:
        tokens = tokens_of(self._rows[place], place)
        captured = np.ones(len(tokens), np.bool_)
        if self._masks is not None:
            captured = captured_of(self._masks[place], len(tokens), place)
        sequence_id = place if self._ids is None else int(self._ids[place])
        return Window(place, sequence_id, tokens, captured)

    def _open(self) -> None:
        source, mask = self._given["windows"], self._given["targets_mask"]
        self._rows: Any = load(source, "windows")
        self._masks: Any = None if mask is None else load(mask, "targets_mask")

    def __getstate__(self) -> dict[str, Any]:
        # An open .npy would be pickled with all its tokens.
        state = dict(self.__dict__)
        del state["_rows"], state["_masks"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()


def is_indexable(source: Any) -> bool:
    """Whether any item of it can be had, and how many there are."""
    return isinstance(source, Sized) and hasattr(source, "__getitem__")
