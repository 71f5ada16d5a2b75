"""`append_windows`: the draws of some windows become sequences of a cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sparselogits.capture.window import Window
from sparselogits.writer import CacheWriter

Parts = Sequence[npt.NDArray[Any]]


def append_windows(
    writer: CacheWriter, windows: Sequence[Window], lengths: Parts, token_ids: Parts, values: Parts
) -> None:
    """Appends windows, one at least, each as a sequence.

    Args:
        writer: An open writer; its config says whether values are counts or weights.
        windows: In the order of their draws.
        lengths: Entries of each captured position of all windows, in any number of arrays.
        token_ids: Of the entries, likewise.
        values: Counts or weights of the entries, likewise.

    Raises:
        What `CacheWriter.append_many` raises.
    """
    captured = np.concatenate([window.captured for window in windows])
    # Draws come in window order, so their lengths fall into the captured places in turn; a place
    # that is not captured stays an empty position.
    of_positions = np.zeros(len(captured), np.int64)
    of_positions[captured] = _joined(lengths, np.int64)
    weighted = writer.config.value_kind == "weights"
    writer.append_many(
        np.concatenate([window.tokens for window in windows]).astype(np.int32),
        _offsets([len(window.tokens) for window in windows]),
        _offsets(of_positions),
        _joined(token_ids, np.int32),
        None if weighted else _joined(values, np.uint16),
        np.array([window.sequence_id for window in windows], np.uint64),
        weights=_joined(values, np.float32) if weighted else None,
    )


def _joined(parts: Parts, dtype: type) -> npt.NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0, dtype)


def _offsets(lengths: npt.ArrayLike) -> npt.NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
