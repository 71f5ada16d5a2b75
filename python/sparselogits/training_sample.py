"""What a model of the `compact` codec is trained on: positions spread over what there is."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sparselogits import _core
from sparselogits.config import CacheConfig

TRAINING_POSITIONS = 250_000
# Bounds the memory where positions have many entries.
TRAINING_ENTRIES = 1 << 23
# Positions of a block: what blocks are like is learnt from whole ones.
_STRETCH = 1 << 10


def spread_positions(
    num_positions: int, num_entries: int, max_positions: int
) -> npt.NDArray[np.int64]:
    """(n,) ascending positions in stretches that are spread evenly; all of them where they fit.

    Args:
        num_positions, num_entries: What there is.
        max_positions: The most to take; fewer where they would have too many entries.
    """
    most = max(1, min(max_positions, TRAINING_ENTRIES * num_positions // max(1, num_entries)))
    if num_positions <= most:
        return np.arange(num_positions, dtype=np.int64)
    length = min(_STRETCH, most)
    starts = np.linspace(0, num_positions - length, most // length).astype(np.int64)
    positions: npt.NDArray[np.int64] = (starts[:, None] + np.arange(length)).ravel()
    return positions


def train_on(
    config: CacheConfig,
    offsets: npt.NDArray[Any],
    token_ids: npt.NDArray[Any],
    counts: npt.NDArray[Any] | None,
    weights: npt.NDArray[np.float32] | None,
    input_ids: npt.NDArray[Any] | None,
    num_classes: int = 0,
    expected_positions: int = 0,
) -> _core.CodecModel | None:
    """A model of P positions with E entries; None where there is nothing to learn from.

    Args:
        config: Of the records that it is to code.
        offsets, token_ids, counts, weights: (P + 1,), (E,): the records; counts or weights.
        input_ids: (P,) tokens; only where the configuration stores them.
        num_classes: Of positions; 0 for as many as pay off.
        expected_positions: Of all that will be coded with it: what a larger model must pay for. 0
            where that is not known, and taken to be much.
    """
    if len(token_ids) == 0:
        return None
    holds_counts = config.value_kind == "counts"
    assert input_ids is not None or not config.store_tokens
    tokens = np.zeros(len(offsets) - 1) if input_ids is None else input_ids
    return _core.train_model(
        config.to_core(),
        tokens.astype(np.int64),
        offsets.astype(np.int64, copy=False),
        token_ids.astype(np.int64),
        counts.astype(np.int64) if holds_counts and counts is not None else None,
        None if holds_counts else weights,
        num_classes,
        expected_positions,
    )
