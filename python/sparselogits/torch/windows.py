"""Windows: how the sequences of a cache become samples, the rows of batches.

A sample is one or several pieces, ranges of positions of one sequence each. Any sample is found at
once, so that an order over samples can be entered anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sparselogits.checks import boolean, integer
from sparselogits.errors import InvalidArgumentError
from sparselogits.torch.batch_plan import TO_THE_END

_MAX_WINDOW = 1 << 31

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Pieces:
    """The N pieces of k samples, end to end.

    Attributes:
        counts: (k,) pieces of each sample, at least 1.
        sequences, starts, stops: (N,), as in `BatchPlan`.
    """

    counts: Indices
    sequences: Indices
    starts: Indices
    stops: Indices


class Windows(Protocol):
    """The samples of one cache."""

    @property
    def num_samples(self) -> int: ...

    def pieces(self, samples: Indices) -> Pieces:
        """Of (k,) samples in [0, num_samples), in their order."""
        ...


class WholeSequences:
    """Sample i is the i-th selected sequence. Needs no table of the sequences.

    Args:
        num_sequences: Of the cache.
        selection: (n,) ascending indices of the selected sequences; None selects all.
    """

    def __init__(self, num_sequences: int, selection: Indices | None) -> None:
        self._selection = selection
        self.num_samples = num_sequences if selection is None else len(selection)

    def pieces(self, samples: Indices) -> Pieces:
        sequences = samples if self._selection is None else self._selection[samples]
        ones, starts = np.ones_like(samples), np.zeros_like(samples)
        return Pieces(ones, sequences, starts, np.full_like(samples, TO_THE_END))


class CutSequences:
    """Each selected sequence is cut every `window` positions; a sample is one of its parts.

    Args:
        lengths: (n,) positions of the selected sequences.
        selection: As in `WholeSequences`.
        window: Positions of a sample.
        drop_partial: Leave out the last part of a sequence where it is shorter. Otherwise it is a
            sample too. Sequences without positions give none.
    """

    def __init__(
        self, lengths: Indices, selection: Indices | None, window: int, drop_partial: bool
    ) -> None:
        self._selection = selection
        self._window = window
        parts = lengths // window if drop_partial else -(-lengths // window)
        self._lengths = lengths
        self._firsts = _sums(parts)  # the first sample of each sequence
        self.num_samples = int(self._firsts[-1])

    def pieces(self, samples: Indices) -> Pieces:
        places = np.searchsorted(self._firsts, samples, side="right") - 1
        starts = (samples - self._firsts[places]) * self._window
        stops = np.minimum(starts + self._window, self._lengths[places])
        sequences = places if self._selection is None else self._selection[places]
        return Pieces(np.ones_like(samples), sequences, starts, stops)


class JoinedSequences:
    """The selected sequences lie end to end and are cut every `window` positions, across them.

    Args:
        lengths, selection, window: As in `CutSequences`.
        drop_partial: Leave out the one last sample where it is shorter.
    """

    def __init__(
        self, lengths: Indices, selection: Indices | None, window: int, drop_partial: bool
    ) -> None:
        filled = np.flatnonzero(lengths > 0)  # those without positions are in no sample
        self._sequences = filled if selection is None else selection[filled]
        self._bounds = _sums(lengths[filled])
        self._window = window
        total = int(self._bounds[-1])
        self.num_samples = total // window if drop_partial else -(-total // window)

    def pieces(self, samples: Indices) -> Pieces:
        first = samples * self._window
        last = np.minimum(first + self._window, self._bounds[-1])
        opening = np.searchsorted(self._bounds, first, side="right") - 1
        closing = np.searchsorted(self._bounds, last, side="left") - 1
        counts = closing - opening + 1
        places = _runs(opening, counts)
        bounds = self._bounds[places]
        starts = np.maximum(np.repeat(first, counts), bounds) - bounds
        stops = np.minimum(np.repeat(last, counts), self._bounds[places + 1]) - bounds
        return Pieces(counts, self._sequences[places], starts, stops)


@dataclass(frozen=True)
class WindowRule:
    """How a dataset makes samples of sequences.

    Attributes:
        window: Positions of a sample; None: whole sequences.
        cross_documents: Whether a sample goes on into the next sequence.
        drop_partial_windows: Whether samples shorter than the window are left out.

    Raises:
        InvalidArgumentError: `window` is no length, or the others are given without it.
    """

    window: int | None
    cross_documents: bool
    drop_partial_windows: bool

    def __post_init__(self) -> None:
        if self.window is not None:
            object.__setattr__(self, "window", integer("window", self.window, 1, _MAX_WINDOW))
        for name in ("cross_documents", "drop_partial_windows"):
            if boolean(name, getattr(self, name)) and self.window is None:
                raise InvalidArgumentError(f"{name} needs a window, the positions of a sample")

    def apply(
        self, num_sequences: int, lengths: Indices | None, selection: Indices | None
    ) -> Windows:
        """The samples of a cache; `lengths` are those of its selected sequences, where needed."""
        if self.window is None:
            return WholeSequences(num_sequences, selection)
        assert lengths is not None
        kind = JoinedSequences if self.cross_documents else CutSequences
        return kind(lengths, selection, self.window, self.drop_partial_windows)

    def setting(self) -> dict[str, Any]:
        """What a training state has to agree with."""
        if self.window is None:
            return {"window": None}
        return {
            "window": self.window,
            "cross_documents": self.cross_documents,
            "drop_partial_windows": self.drop_partial_windows,
        }


def _sums(values: Indices) -> Indices:
    sums = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=sums[1:])
    return sums


def _runs(firsts: Indices, counts: Indices) -> Indices:
    """firsts[0], firsts[0] + 1, … (counts[0] of them), firsts[1], …"""
    skipped = np.repeat(firsts - _sums(counts)[:-1], counts)
    runs: Indices = np.arange(len(skipped)) + skipped
    return runs
