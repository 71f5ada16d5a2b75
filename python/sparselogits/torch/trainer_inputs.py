"""The dictionary in which trainers hand a batch from the loader to the loss.

    input_ids       (B, S) int64
    shift_labels    (B, S) int64: token t + 1 in column t, -100 where there is none
    sparse_targets  SparseTargets of B·S rows
    position_ids    (B, S) int64, only where a row holds several documents

`shift_labels` is Hugging Face's name for labels that need no shift; its `labels` are `input_ids`
themselves. All but the targets and labels are arguments of a causal language model.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparselogits.torch.batch import IGNORED_LABEL, Batch
from sparselogits.torch.targets import SparseTargets

TARGETS_KEY = "sparse_targets"


def trainer_inputs(batch: Batch) -> dict[str, Any]:
    """A batch of a dataset as that dictionary; nothing is copied."""
    inputs: dict[str, Any] = {
        "input_ids": batch.input_ids,
        "shift_labels": batch.labels,
        TARGETS_KEY: batch.targets,
    }
    position_ids = getattr(batch, "position_ids", None)
    if position_ids is not None:
        inputs["position_ids"] = position_ids
    return inputs


def blank_inputs() -> dict[str, Any]:
    """A batch of one token and no target: it adds nothing to a sum over rows."""
    empty = SparseTargets(
        torch.zeros(2, dtype=torch.int64),
        torch.zeros(0, dtype=torch.int32),
        torch.zeros(0),
    )
    return {
        "input_ids": torch.zeros((1, 1), dtype=torch.int64),
        "shift_labels": torch.full((1, 1), IGNORED_LABEL, dtype=torch.int64),
        TARGETS_KEY: empty,
    }


def counted_rows(targets: SparseTargets, labels: Tensor | None, mask: Tensor | None) -> Tensor:
    """The number of rows that a mean divides by, 0-dimensional int64, in host memory.

    Args:
        targets: R rows. Those with entries count.
        labels: R elements in any shape, where labels take part in the loss: a row with a label
            counts too.
        mask: R elements in any shape, or None: where false, the row does not count.
    """
    counts = targets.host_offsets.diff() > 0
    if labels is not None:
        counts = counts | (labels.reshape(-1).cpu() != IGNORED_LABEL)
    if mask is not None:
        counts = counts & mask.reshape(-1).cpu()
    return counts.sum()
