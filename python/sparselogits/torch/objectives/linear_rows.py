"""Losses that are linear in a dense target, without that target: one pass over the logits.

For a row z of divided logits the target is t_j = β p_j + u + w_j + a [j = label]: a live teacher's
distribution p, a uniform part u, sparse entries w and a label. With W = Σ_j t_j

    L = Σ_j t_j (lse(z) - z_j) = W lse - β Σ_j p_j z_j - u Σ_j z_j - Σ_k w_k z_k - a z_label
    dL/dz_j = W softmax(z)_j - t_j
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparselogits.torch.host_memory import is_host
from sparselogits.torch.objectives.label_term import LabelTerm, entry_losses
from sparselogits.torch.objectives.row_loss import RowScale
from sparselogits.torch.row_blocks import row_blocks, scaled, softmax
from sparselogits.torch.rows import Rows


@dataclass(frozen=True)
class LinearRows:
    """The target above; a kernel of `row_loss`.

    Attributes:
        label: a.
        teacher_logits: (R, V') with V' ≤ V, or None: β = 0. Divided by the temperature too.
        teacher_weight: β.
        uniform: (R,) u, of the first `uniform_columns` columns, or None.
        uniform_columns: What the uniform part is spread over.
        entries: w, or None.
    """

    label: LabelTerm
    teacher_logits: Tensor | None = None
    teacher_weight: float = 0.0
    uniform: Tensor | None = None
    uniform_columns: int = 0
    entries: Rows | None = None

    def __call__(self, logits: Tensor, scale: RowScale, out: Tensor | None) -> Tensor:
        losses = torch.zeros_like(scale.loss)
        for rows in row_blocks(logits, losses.dtype):
            z = scaled(logits[rows], scale.temperature, losses.dtype)
            q, lse = softmax(z)
            total = self._total(rows)
            of_row = self.label.loss(z, lse, rows)
            gradient = q.mul_(total[:, None])
            self.label.subtract(gradient, rows)
            if self.entries is not None:
                part = self.entries.narrow(rows.start, rows.stop)
                of_row += entry_losses(part, z, lse)
                gradient[part.row, part.token_id] -= part.weight
            if self.uniform is not None:
                u, columns = self.uniform[rows], self.uniform_columns
                of_row += u * (columns * lse - z[:, :columns].sum(-1))
                gradient[:, :columns] -= u[:, None]
            if self.teacher_logits is not None:
                of_row += self._teacher(rows, scale.temperature, z, lse, gradient)
            losses[rows] = of_row
            write(gradient, rows, scale, out)
        return torch.where(scale.keep, losses * scale.loss, 0)

    def _teacher(
        self, rows: slice, temperature: float, z: Tensor, lse: Tensor, gradient: Tensor
    ) -> Tensor:
        """(r,) β Σ p (lse - z); takes β p from the gradient, and z for scratch."""
        assert self.teacher_logits is not None
        p = scaled(self.teacher_logits[rows], temperature, z.dtype)
        p, _ = softmax(p, out=p)
        columns = p.shape[1]
        surprise = torch.sub(lse[:, None], z[:, :columns], out=z[:, :columns]).mul_(p)
        # A token that neither model can say: 0 · inf.
        surprise.masked_fill_(p == 0, 0)
        gradient[:, :columns].sub_(p, alpha=self.teacher_weight)
        return surprise.sum(-1) * self.teacher_weight

    def _total(self, rows: slice) -> Tensor:
        total = self.label.weight[rows] + self.teacher_weight
        if self.entries is not None:
            total = total + self.entries.total[rows]
        if self.uniform is not None:
            total = total + self.uniform[rows] * self.uniform_columns
        return total


def write(gradient: Tensor, rows: slice, scale: RowScale, out: Tensor | None) -> None:
    """The (r, V) derivatives by the divided logits of a block, scaled and rounded into `out`."""
    if out is None:
        return
    gradient.mul_(scale.gradient[rows, None])
    keep = scale.keep[rows]
    # 0 · NaN is NaN: a padded row may hold anything, and must still count for nothing.
    if not is_host(keep.device):
        gradient.masked_fill_(~keep[:, None], 0)
    elif not bool(keep.all()):
        gradient[~keep] = 0
    out[rows] = gradient
