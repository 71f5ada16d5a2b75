"""BatchPlan: which positions of which sequences of which caches make a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sparselogits.errors import InvalidArgumentError

TO_THE_END = -1
"""As a stop: the end of the sequence, whatever its length."""

_DTYPES: dict[str, type[np.generic]] = {
    "caches": np.int32,
    "sequences": np.int64,
    "starts": np.int64,
    "stops": np.int64,
    "row_offsets": np.int64,
}


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """The N pieces of a batch of B rows.

    A piece is a range of positions of one sequence. Row b is the pieces `row_offsets[b]` to
    `row_offsets[b + 1]`, end to end; a document boundary is a piece boundary.

    Attributes:
        caches: (N,) int32, indices into the caches of the reader.
        sequences: (N,) int64, indices of the sequences in their caches.
        starts: (N,) int64, the first position within the sequence.
        stops: (N,) int64, the position after the last one; -1 is the end of the sequence.
        row_offsets: (B + 1,) int64, from 0 to N, ascending: every row has a piece.

    Raises:
        InvalidArgumentError: A shape or dtype is wrong, row_offsets does not cut the pieces into
            rows, or a piece has a negative place or ends before it starts.
    """

    caches: npt.NDArray[np.int32]
    sequences: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    stops: npt.NDArray[np.int64]
    row_offsets: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        for name, dtype in _DTYPES.items():
            _check_array(name, getattr(self, name), dtype)
        for name in ("sequences", "starts", "stops"):
            if len(getattr(self, name)) != self.num_pieces:
                raise InvalidArgumentError(
                    f"{name} has {len(getattr(self, name))} pieces and caches {self.num_pieces}"
                )
        _check_places(self)
        _check_row_offsets(self.row_offsets, self.num_pieces)

    @classmethod
    def of_sequences(cls, sequences: npt.NDArray[np.int64]) -> BatchPlan:
        """Row b is the whole sequence `sequences[b]` of cache 0."""
        count = len(sequences)
        return cls(
            np.zeros(count, np.int32),
            sequences,
            np.zeros(count, np.int64),
            np.full(count, TO_THE_END, np.int64),
            np.arange(count + 1, dtype=np.int64),
        )

    def rows(self, first: int, last: int) -> BatchPlan:
        """The plan of the rows `first` to `last` - 1. REQUIRES: 0 ≤ first ≤ last ≤ B."""
        offsets = self.row_offsets[first : last + 1]
        pieces = slice(int(offsets[0]), int(offsets[-1]))
        part = object.__new__(BatchPlan)  # what is checked is not checked again
        object.__setattr__(part, "row_offsets", offsets - offsets[0])
        for name in ("caches", "sequences", "starts", "stops"):
            object.__setattr__(part, name, getattr(self, name)[pieces])
        return part

    @property
    def columns(
        self,
    ) -> tuple[
        npt.NDArray[np.int32],
        npt.NDArray[np.int64],
        npt.NDArray[np.int64],
        npt.NDArray[np.int64],
        npt.NDArray[np.int64],
    ]:
        """The arrays in the order above, contiguous."""
        return (
            np.ascontiguousarray(self.caches),
            np.ascontiguousarray(self.sequences),
            np.ascontiguousarray(self.starts),
            np.ascontiguousarray(self.stops),
            np.ascontiguousarray(self.row_offsets),
        )

    @property
    def num_pieces(self) -> int:
        """N."""
        return len(self.caches)

    @property
    def num_rows(self) -> int:
        """B."""
        return len(self.row_offsets) - 1


def _check_array(name: str, array: Any, dtype: type[np.generic]) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        found = getattr(array, "dtype", type(array).__name__)
        raise InvalidArgumentError(f"{name} is {found}; it must be a {np.dtype(dtype)} array")
    if array.ndim != 1:
        raise InvalidArgumentError(f"{name} has {array.ndim} dimensions; it must have 1")


def _check_places(plan: BatchPlan) -> None:
    for name, least in (("caches", 0), ("sequences", 0), ("starts", 0), ("stops", TO_THE_END)):
        lowest = getattr(plan, name).min(initial=least)
        if lowest < least:
            raise InvalidArgumentError(f"{name} holds {lowest}; it must be at least {least}")
    backward = np.flatnonzero((plan.stops < plan.starts) & (plan.stops != TO_THE_END))
    if backward.size:
        piece = backward[0]
        raise InvalidArgumentError(
            f"piece {piece} starts at {plan.starts[piece]} and stops before, at {plan.stops[piece]}"
        )


def _check_row_offsets(row_offsets: npt.NDArray[np.int64], num_pieces: int) -> None:
    if len(row_offsets) == 0:
        raise InvalidArgumentError("row_offsets is empty; B rows need B + 1 offsets")
    if row_offsets[0] != 0 or row_offsets[-1] != num_pieces:
        raise InvalidArgumentError(
            f"row_offsets goes from {row_offsets[0]} to {row_offsets[-1]}; it must go from 0 to "
            f"{num_pieces}, the number of pieces"
        )
    empty = np.flatnonzero(row_offsets[1:] <= row_offsets[:-1])
    if empty.size:
        raise InvalidArgumentError(f"row_offsets gives row {empty[0]} no piece")
