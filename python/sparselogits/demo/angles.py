"""The demo's gradient angles: of the student's backbone, against full distillation."""

from __future__ import annotations

from torch import Tensor

from sparselogits.demo.student import Student
from sparselogits.torch import SparseTargets, fused_linear_sparse_kd_loss
from sparselogits.torch.meters import gradient_of
from sparselogits.torch.objectives import FullKD


def full_gradient(
    student: Student, input_ids: Tensor, teacher_logits: Tensor
) -> tuple[Tensor, ...]:
    """Backbone gradient of full distillation.

    Args:
        input_ids: (B, S) int64.
        teacher_logits: (B·S, V) float32.
    """
    hidden = student.hidden(input_ids).flatten(0, 1)
    logits = hidden @ student.head_weight.detach().T
    return gradient_of(FullKD()(logits, teacher_logits=teacher_logits), student.backbone())


def sparse_gradient(
    student: Student, input_ids: Tensor, targets: SparseTargets
) -> tuple[Tensor, ...]:
    """Backbone gradient of the sparse loss on the same positions."""
    loss = fused_linear_sparse_kd_loss(
        student.hidden(input_ids).flatten(0, 1), student.head_weight.detach(), targets
    )
    return gradient_of(loss, student.backbone())
