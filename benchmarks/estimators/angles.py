"""Gradient angles of all estimators of a regime, at 64 and at 1,024 positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from estimators.biased import TopK
from estimators.blocks import Block
from estimators.gradients import Batch
from estimators.table import Row
from estimators.teacher_rows import Regime
from sparselogits.torch.meters import GradientAngleMeter, MeanGradientAngle

Log = Callable[[str], None]


def mean_angles(
    rows: Sequence[Row],
    regime: Regime,
    student: Any,
    input_ids: torch.Tensor,
    windows: Sequence[Sequence[int]],
    length: int,
    log: Log,
) -> list[MeanGradientAngle]:
    """One for each row.

    Args:
        input_ids: (N, S): window n has the rows n·S to (n + 1)·S of the regime.
        windows: The windows of each batch.
        length: How many positions of each window, from its start.
    """
    meters = [GradientAngleMeter() for _ in rows]
    for number, members in enumerate(windows):
        block = _block(regime, members, input_ids.shape[1], length)
        p = torch.from_numpy(dense(block, student.get_output_embeddings().weight.shape[0]))
        batch = Batch(student, input_ids[list(members), :length], p, regime.temperature)
        del p
        for row, meter in zip(rows, meters, strict=True):
            target = row.estimator.draw(block, row.size, 1000 + number)
            is_ghost = isinstance(row.estimator, TopK) and row.estimator.rest == "ghost"
            gradient = batch.ghost_gradient(target) if is_ghost else batch.gradient(target)
            meter.update(gradient, batch.full)
        log(
            f"{regime.name}: gradients of batch {number + 1} of {len(windows)}, {len(block.p)} "
            f"positions, KL(teacher ‖ student) {batch.divergence:.3f}"
        )
    return [meter.compute() for meter in meters]


def dense(block: Block, vocab_size: int) -> np.ndarray:
    """(R, V) float32 probabilities."""
    if block.token_ids is None:
        return block.p.astype(np.float32)
    p = np.zeros((len(block.p), vocab_size), np.float32)
    np.put_along_axis(p, block.token_ids, block.p.astype(np.float32), axis=1)
    return p


def _block(regime: Regime, windows: Sequence[int], stride: int, length: int) -> Block:
    parts = [regime.block(w * stride, w * stride + length) for w in windows]
    ids = [part.token_ids for part in parts if part.token_ids is not None]
    return Block(
        np.concatenate([part.p for part in parts]),
        np.concatenate([part.logits for part in parts]),
        np.concatenate(ids) if ids else None,
        np.concatenate([part.labels for part in parts]),
        parts[0].first_row,
    )
