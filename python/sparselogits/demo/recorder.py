"""A sink that keeps the teacher's dense rows of a few windows, to measure against."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sparselogits.capture.teacher_rows import TeacherRows
from sparselogits.capture.windows import Window


class RowRecorder:
    """Keeps the logits of the windows with sequence_id below `num_windows`, in float32.

    It says that it has no need of the others, so a pass with this sink alone ends early.
    """

    num_positions = 0

    def __init__(self, num_windows: int) -> None:
        self._num_windows = num_windows
        self._chunks: list[torch.Tensor] = []

    def holds(self, window: Window) -> bool:
        return window.sequence_id >= self._num_windows

    def add(self, rows: TeacherRows) -> None:
        keep = torch.from_numpy(rows.sequence_ids < self._num_windows)
        if keep.any():
            self._chunks.append(rows.logits[keep].cpu())

    def finish(self, windows: Sequence[Window]) -> None:
        pass

    def flush(self) -> None:
        pass

    def logits(self) -> torch.Tensor:
        """(num_windows · S, V) float32, window by window."""
        with torch.inference_mode(False):  # a copy made here may be used under autograd
            return torch.cat([chunk.clone() for chunk in self._chunks])
