"""How far a capture has come, told to a terminal or to a callback."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

_REPORT_SECONDS = 0.5


@dataclass(frozen=True)
class CaptureProgress:
    """One report of progress.

    Attributes:
        positions: Positions done in this run, empty ones included.
        sequences: Windows done in this run.
        positions_per_second: Mean rate of this run.
        total_positions: Positions that this run will do, or None where that is not known.
        seconds_left: Estimate, or None where the total is not known.
    """

    positions: int
    sequences: int
    positions_per_second: float
    total_positions: int | None
    seconds_left: float | None

    def __str__(self) -> str:
        rate = f"{self.positions_per_second:,.0f} positions/s"
        if self.total_positions is None or self.seconds_left is None:
            return f"{self.positions:,} positions, {rate}"
        left = f"{self.seconds_left:,.0f} s left"
        return f"{self.positions:,} of {self.total_positions:,} positions, {rate}, {left}"


ProgressCallback = Callable[[CaptureProgress], None]


class ProgressMeter:
    """Counts positions and reports at most twice a second, and once at the end.

    Args:
        progress: True shows a line on stderr where that is a terminal, False is silent, a
            callable gets a `CaptureProgress`.
        total_positions: What will be done, where known.
    """

    def __init__(self, progress: bool | ProgressCallback, total_positions: int | None) -> None:
        self._on_terminal = progress is True and sys.stderr.isatty()
        self._callback = progress if callable(progress) else None
        self._total = total_positions
        self._positions = 0
        self._sequences = 0
        self._start = self._last_report = time.monotonic()

    def reach(self, positions: int, sequences: int) -> None:
        """Says how much work is done by now, in all."""
        if sequences == self._sequences:  # the first batch is still on its way to the sinks
            return
        self._positions, self._sequences = positions, sequences
        if time.monotonic() - self._last_report >= _REPORT_SECONDS:
            self._report()

    def skip(self, positions: int) -> None:
        """Takes work that an earlier run did out of the total."""
        if self._total is not None:
            self._total -= positions

    def close(self) -> None:
        """The last report; ends the terminal's line."""
        self._report()
        if self._on_terminal:
            print(file=sys.stderr)

    def _report(self) -> None:
        self._last_report = time.monotonic()
        rate = self._positions / max(self._last_report - self._start, 1e-9)
        left = None
        if self._total is not None and rate > 0:
            left = max(0.0, (self._total - self._positions) / rate)
        state = CaptureProgress(self._positions, self._sequences, rate, self._total, left)
        if self._callback is not None:
            self._callback(state)
        if self._on_terminal:
            print(f"\r\x1b[Kcapture: {state}", end="", file=sys.stderr, flush=True)
