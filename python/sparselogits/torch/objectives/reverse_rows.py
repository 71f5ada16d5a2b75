"""Reverse KL divergence from a live teacher: L = Σ q (log q - log p), dL/dz_j = q_j (d_j - L)
with d = log q - log p, of which α parts are cross-entropy against the labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparselogits.torch.objectives.label_term import LabelTerm
from sparselogits.torch.objectives.linear_rows import write
from sparselogits.torch.objectives.row_loss import RowScale
from sparselogits.torch.row_blocks import row_blocks, scaled, softmax


@dataclass(frozen=True)
class ReverseRows:
    """A kernel of `row_loss`.

    Attributes:
        teacher_logits: (R, V), divided by the temperature too.
        share: 1 - α.
        label: α.
    """

    teacher_logits: Tensor
    share: float
    label: LabelTerm

    def __call__(self, logits: Tensor, scale: RowScale, out: Tensor | None) -> Tensor:
        losses = torch.zeros_like(scale.loss)
        for rows in row_blocks(logits, losses.dtype):
            z = scaled(logits[rows], scale.temperature, losses.dtype)
            q, lse = softmax(z)
            losses[rows] = self.label.loss(z, lse, rows)
            teacher = scaled(self.teacher_logits[rows], scale.temperature, losses.dtype)
            _, lse_p = softmax(teacher)
            gaps = z.sub_(lse[:, None]).sub_(teacher.sub_(lse_p[:, None]))
            gaps.masked_fill_(q == 0, 0)
            divergence = (q * gaps).sum(-1)
            losses[rows] += self.share * divergence
            coefficient = gaps.sub_(divergence[:, None]).mul_(self.share)
            gradient = q.mul_(coefficient.add_(self.label.weight[rows, None]))
            self.label.subtract(gradient, rows)
            write(gradient, rows, scale, out)
        return torch.where(scale.keep, losses * scale.loss, 0)
