"""One pass over a teacher: from batches of windows to chunks of logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from sparselogits.capture.documents import DocumentRuns, several_documents
from sparselogits.capture.replay import SplitModel
from sparselogits.capture.windows import Window
from sparselogits.errors import InvalidArgumentError


@dataclass(frozen=True)
class TeacherRows:
    """Logits of some positions: what every consumer of a teacher pass sees.

    Rows are ordered by window, then by position. Row r holds the teacher's logits of token
    `positions[r] + 1` of its sequence, given the tokens up to `positions[r]`.

    Attributes:
        sequence_ids: (R,) uint64.
        positions: (R,) int64.
        logits: (R, V) float32 on the model's device, padded columns cut off. A sink of
            `capture_many` gets none that are NaN or +inf.
    """

    sequence_ids: npt.NDArray[np.uint64]
    positions: npt.NDArray[np.int64]
    logits: torch.Tensor


def teacher_rows(
    model: SplitModel, documents: DocumentRuns, windows: Sequence[Window], chunk_rows: int
) -> Iterator[TeacherRows]:
    """Runs the body once over a batch of windows and yields the captured rows in chunks.

    Windows of equal length run without an attention mask; others are padded on the right with
    one. Where a window has several documents, `documents` keeps them apart. Neither padding nor
    masked positions reach the head. Logits are not looked at: see `check_rows`.

    Raises:
        InvalidArgumentError: The model cannot keep documents apart.
    """
    windows = [window for window in windows if len(window.tokens)]
    if not windows:
        return
    lengths = np.array([len(window.tokens) for window in windows])
    width = int(lengths.max())
    tokens = np.zeros((len(windows), width), np.int64)
    captured = np.zeros((len(windows), width), np.bool_)
    for row, window in enumerate(windows):
        tokens[row, : lengths[row]] = window.tokens
        captured[row, : lengths[row]] = window.captured
    row_of, position = np.nonzero(captured)
    if not len(row_of):
        return
    ids = torch.from_numpy(tokens)
    if any(several_documents(window) for window in windows):
        hidden = documents.hidden(ids, windows).flatten(0, 1)
    else:
        mask = None
        if (lengths != width).any():
            mask = torch.from_numpy((np.arange(width) < lengths[:, None]).astype(np.int64))
        hidden = model.hidden(ids, mask).flatten(0, 1)
    flat_ids = ids.flatten()
    sequence_ids = np.array([window.sequence_id for window in windows], np.uint64)[row_of]
    flat_rows = torch.from_numpy(row_of * width + position)
    for start in range(0, len(flat_rows), chunk_rows):
        chunk = slice(start, start + chunk_rows)
        rows = flat_rows[chunk]
        # No name for the logits: this frame would keep them while the next ones are computed.
        yield TeacherRows(
            sequence_ids[chunk],
            position[chunk].astype(np.int64),
            model.logits(hidden[rows.to(hidden.device)], flat_ids[rows]),
        )


def check_rows(rows: TeacherRows) -> None:
    """Refuses rows that are no distribution. Waits for the device that computes them.

    Raises:
        InvalidArgumentError: A logit is NaN or +inf; the message names sequence and position.
    """
    # The maximum of a row is NaN, +inf or -inf exactly where the row has no distribution. NumPy
    # takes it in CPU memory: torch would start a second team of threads beside the teacher's.
    if rows.logits.device.type == "cpu":
        largest = rows.logits.numpy().max(axis=-1)
    else:
        largest = rows.logits.amax(dim=-1).cpu().numpy()
    usable = np.isfinite(largest)
    if not usable.all():
        bad = int(usable.argmin())
        raise InvalidArgumentError(
            f"the teacher's logits of sequence {rows.sequence_ids[bad]}, position "
            f"{rows.positions[bad]} hold NaN or +inf, or are all -inf"
        )
