"""Gradient angle: where a sparse target sends the student, against full distillation.

The measure of the RS-KD paper (Anshumann et al. 2025, section 3): the angle between the gradients
of the student's backbone over one batch, and the ratio of their norms. Unbiased targets differ
from the full gradient by noise that averages out; a biased target points elsewhere for ever.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from sparselogits.demo.student import Student
from sparselogits.torch import SparseTargets, fused_linear_sparse_kd_loss


@dataclass(frozen=True)
class GradientAngle:
    """Attributes:
    degrees: Angle to the gradient of full distillation, 0 to 180.
    norm_ratio: Norm over the norm of the gradient of full distillation.
    """

    degrees: float
    norm_ratio: float


def compare(gradient: Tensor, full: Tensor) -> GradientAngle:
    """Angle and norm ratio of two flat gradients."""
    a, b = gradient.double(), full.double()
    cosine = float(a @ b / (a.norm() * b.norm()))
    return GradientAngle(
        math.degrees(math.acos(max(-1.0, min(1.0, cosine)))), float(a.norm() / b.norm())
    )


def full_gradient(student: Student, input_ids: Tensor, teacher_logits: Tensor) -> Tensor:
    """Backbone gradient of full distillation, flat.

    Args:
        input_ids: (B, S) int64.
        teacher_logits: (B·S, V) float32.
    """
    hidden = student.hidden(input_ids).flatten(0, 1)
    log_q = functional.log_softmax(hidden @ student.head_weight.detach().T, dim=-1)
    loss = -(teacher_logits.softmax(-1) * log_q).sum(-1).mean()
    return _flat_gradient(student, loss)


def sparse_gradient(student: Student, input_ids: Tensor, targets: SparseTargets) -> Tensor:
    """Backbone gradient of the sparse loss on the same positions, flat."""
    loss = fused_linear_sparse_kd_loss(
        student.hidden(input_ids).flatten(0, 1), student.head_weight.detach(), targets
    )
    return _flat_gradient(student, loss)


def top_k_targets(teacher_logits: Tensor, k: int) -> SparseTargets:
    """What Top-K methods keep: the k heaviest tokens, renormalised to sum to one. Biased."""
    rows, vocab_size = teacher_logits.shape
    values, ids = teacher_logits.topk(k, dim=-1)
    return SparseTargets(
        torch.arange(rows + 1) * k,
        ids.flatten(),
        values.softmax(-1).flatten().float(),
        vocab_size,
    )


def _flat_gradient(student: Student, loss: Tensor) -> Tensor:
    gradients = torch.autograd.grad(loss, student.backbone())
    return torch.cat([gradient.flatten() for gradient in gradients])
