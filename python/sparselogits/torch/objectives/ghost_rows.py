"""Ghost token: the kept tokens, and one more class "none of them" that holds what is missing.

With divided logits z, kept probabilities p_k, p_r = 1 - Σ p_k, and over the tokens not kept
lse_r = log Σ exp z_j, this is the cross-entropy of K + 1 classes whose last logit is lse_r:

    L = Σ p_k (lse - z_k) + p_r (lse - lse_r)
    dL/dz_k = q_k - p_k         dL/dz_j = softmax_r(z)_j (q_r - p_r)    for j not kept

so that nothing is ever divided by the student's remaining mass q_r.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparselogits.torch.objectives.label_term import LabelTerm, entry_losses
from sparselogits.torch.objectives.linear_rows import write
from sparselogits.torch.objectives.row_loss import RowScale
from sparselogits.torch.row_blocks import row_blocks, scaled, softmax
from sparselogits.torch.rows import Rows


@dataclass(frozen=True)
class GhostRows:
    """(1 - α) of the loss above and α of the labels'; a kernel of `row_loss`.

    Attributes:
        entries: The kept tokens.
        rest: (R,) p_r.
        share: 1 - α. Of a row that keeps no token nothing is asked: all is rest for both models.
        label: α.
    """

    entries: Rows
    rest: Tensor
    share: float
    label: LabelTerm

    def __call__(self, logits: Tensor, scale: RowScale, out: Tensor | None) -> Tensor:
        losses = torch.zeros_like(scale.loss)
        for rows in row_blocks(logits, losses.dtype):
            z = scaled(logits[rows], scale.temperature, losses.dtype)
            part = self.entries.narrow(rows.start, rows.stop)
            at = (part.row, part.token_id)
            kept = z[at]
            others = z.index_put(at, kept.new_full((), -torch.inf))
            # Where every token is kept, no others are left to tell their share of.
            none_left = others.amax(-1) == -torch.inf
            others.masked_fill_(none_left[:, None], 0)
            softmax_r, lse_r = softmax(others, out=others)
            lse_r = torch.where(none_left, -torch.inf, lse_r)
            lse = torch.logsumexp(torch.stack([_lse_of_entries(part, kept), lse_r]), 0)
            p_r, q_r = self.rest[rows], torch.exp(lse_r - lse)
            of_rest = torch.where(p_r == 0, 0, p_r * (lse - lse_r))
            of_kept = entry_losses(part, z, lse)
            losses[rows] = self.share * (of_kept + of_rest) + self.label.loss(z, lse, rows)
            total = self.share + self.label.weight[rows]
            gradient = softmax_r.mul_((total * q_r - self.share * p_r)[:, None])
            q = torch.exp(kept - lse[part.row])
            gradient[at] = total[part.row] * q - self.share * part.weight
            self.label.subtract(gradient, rows)
            write(gradient, rows, scale, out)
        return torch.where(scale.keep, losses * scale.loss, 0)


def _lse_of_entries(rows: Rows, kept: Tensor) -> Tensor:
    """(r,) log-sum-exp of each row's kept logits, -inf without any."""
    largest = torch.full_like(rows.total, -torch.inf).scatter_reduce_(0, rows.row, kept, "amax")
    shift = torch.where(largest == -torch.inf, 0, largest)
    sums = torch.zeros_like(shift).index_add_(0, rows.row, torch.exp(kept - shift[rows.row]))
    return shift + sums.log()
