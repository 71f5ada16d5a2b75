"""What an objective is given, checked and flattened to rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparselogits.errors import InvalidArgumentError, VocabularyMismatchError
from sparselogits.torch.arguments import (
    check_position_weights,
    check_targets,
    flatten_labels,
    flatten_mask,
    flatten_position_weights,
    flatten_rows,
)
from sparselogits.torch.host_memory import is_host
from sparselogits.torch.objectives.label_term import check_labels
from sparselogits.torch.reduction import make_scaling
from sparselogits.torch.rows import compute_dtype
from sparselogits.torch.targets import SparseTargets


@dataclass(frozen=True)
class Inputs:
    """Attributes:
    logits: (R, V).
    leading: The shape that the rows had.
    targets, labels, teacher_logits: As given: R rows; (R,) int64; (R, V') with V' ≤ V.
    mask: (R,) bool or None.
    position_weights: (R,) or None.
    keywords: temperature, scale_by_temperature_squared, reduction, num_items.
    """

    logits: Tensor
    leading: torch.Size
    targets: SparseTargets | None
    labels: Tensor | None
    teacher_logits: Tensor | None
    mask: Tensor | None
    position_weights: Tensor | None
    keywords: dict[str, Any]

    @property
    def temperature(self) -> float:
        """Divides the logits of the student and of a live teacher."""
        return float(self.keywords["temperature"])

    @property
    def dtype(self) -> torch.dtype:
        """Of all arithmetic."""
        return compute_dtype(self.logits.dtype)

    def kept(self, candidates: Tensor) -> Tensor:
        """(R,) bool: the rows that count, of those that the objective says something about."""
        return candidates if self.mask is None else candidates & self.mask

    def reduced(self, values: Tensor, keep: Tensor) -> Tensor:
        """(R,) constants, weighed and reduced as the losses of rows are."""
        scaling = make_scaling(
            keep,
            self.logits.dtype,
            self.dtype,
            reductions=("mean", "sum", "none"),
            **self.keywords,
        )
        if self.position_weights is not None:
            values = values * self.position_weights
        return scaling.reduce(torch.where(keep, values * scaling.loss_scale, 0))


def check_inputs(
    logits: Tensor,
    targets: SparseTargets | None,
    labels: Tensor | None,
    teacher_logits: Tensor | None,
    mask: Tensor | None,
    position_weights: Tensor | None,
    keywords: dict[str, Any],
) -> Inputs:
    """Everything that one call of an objective was given, as rows.

    Raises:
        InvalidArgumentError: A shape, dtype or device is wrong.
        VocabularyMismatchError: The logits have fewer columns than the targets, the labels or the
            teacher.
    """
    flat, leading = flatten_rows(logits, "logits")
    device, width = flat.device, flat.shape[1]
    if targets is not None:
        check_targets(targets, flat, "logits", width)
    labels = flatten_labels(labels, 0.0, leading, device)
    if labels is not None:
        check_labels(labels, width)
    if teacher_logits is not None:
        teacher_logits = _teacher_rows(teacher_logits, flat)
    weights = flatten_position_weights(position_weights, leading, device)
    if weights is not None and is_host(device):
        check_position_weights(weights)
    flat_mask = flatten_mask(mask, leading, device)
    return Inputs(flat, leading, targets, labels, teacher_logits, flat_mask, weights, keywords)


def _teacher_rows(teacher_logits: Tensor, logits: Tensor) -> Tensor:
    teacher, _ = flatten_rows(teacher_logits, "teacher_logits")
    if teacher.shape[0] != logits.shape[0]:
        raise InvalidArgumentError(
            f"teacher_logits has {teacher.shape[0]} rows and logits has {logits.shape[0]}"
        )
    if teacher.device != logits.device:
        raise InvalidArgumentError(
            f"teacher_logits is on {teacher.device} and logits on {logits.device}"
        )
    if teacher.shape[1] > logits.shape[1]:
        raise VocabularyMismatchError(
            f"teacher_logits has {teacher.shape[1]} columns and logits only {logits.shape[1]}; "
            "cut the columns that no token has"
        )
    return teacher.detach()
