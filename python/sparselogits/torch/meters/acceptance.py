"""AcceptanceMeter: how many of a student's drafts its teacher would accept."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sparselogits import checks
from sparselogits.torch.autocast import without_autocast
from sparselogits.torch.meters.meter import Meter, check_positive, rows_and_mask
from sparselogits.torch.meters.teacher_rows import teacher_rows
from sparselogits.torch.row_blocks import row_blocks, scaled, softmax
from sparselogits.torch.rows import compute_dtype


@dataclass(frozen=True)
class Acceptance:
    """Attributes:
    rate: Expected probability that a drafted token is accepted, 1 - total variation.
    standard_error: Of the rate, over positions as if they were independent.
    greedy_agreement: How often the most likely tokens are the same: the acceptance of greedy
        decoding.
    count: Number of positions.
    """

    rate: float
    standard_error: float
    greedy_agreement: float
    count: int

    def tokens_per_call(self, draft_length: int) -> float:
        """Tokens that one call of the teacher yields, with as many drafted tokens.

        (1 - a^(n + 1)) / (1 - a), as if acceptances were independent (Leviathan et al. 2023,
        equation 1).
        """
        checks.integer("draft_length", draft_length, 1, 1 << 20)
        return math.fsum(self.rate**n for n in range(draft_length + 1))


class AcceptanceMeter(Meter):
    """Acceptance rate of speculative sampling, student drafting for teacher.

    A token that the student draws from q is accepted with probability min(1, p / q), so that a
    position accepts Σ_j min(p_j, q_j) = 1 - TV(p, q) (Leviathan et al. 2023, corollary 3.6). That
    is computed from both models' full logits, exactly. The positions are those of the given text,
    where in decoding they are those that the teacher generates.
    """

    def __init__(self) -> None:
        zero = torch.zeros((), dtype=torch.float64)
        count = torch.zeros((), dtype=torch.int64)
        super().__init__({}, {"sum": zero, "sum_of_squares": zero, "greedy": count, "count": count})

    def update(
        self,
        logits: Tensor,
        teacher_logits: Tensor,
        *,
        mask: Tensor | None = None,
        temperature: float = 1.0,
    ) -> None:
        """Counts one batch.

        Args:
            logits: (B, S, V) or (R, V) of the student.
            teacher_logits: (B, S, V') or (R, V') of the teacher. V and V' may differ by padding.
            mask: (B, S) or (R,) bool, True counts.
            temperature: Of the decoding: divides both.
        """
        temperature = checks.positive_float("temperature", temperature)
        rows, keep, _ = rows_and_mask(logits, mask)
        teacher = teacher_rows(teacher_logits, rows)
        with without_autocast(rows.device):
            overlap, same = _overlap(rows, teacher, temperature)
        overlap = torch.where(keep, overlap, 0).double()
        self._add(
            sum=overlap.sum(),
            sum_of_squares=overlap.square().sum(),
            greedy=(same & keep).sum(),
            count=keep.sum(),
        )

    def compute(self) -> Acceptance:
        """Of all positions so far; NaN where one of them had NaN. Waits for the device.

        Raises:
            InvalidArgumentError: No position was counted.
        """
        total, squares, greedy, positions = (
            self._sums[name].item() for name in ("sum", "sum_of_squares", "greedy", "count")
        )
        count = int(positions)
        check_positive(count, type(self).__name__)
        rate = total / count
        return Acceptance(rate, standard_error(total, squares, count), greedy / count, count)


def standard_error(total: float, squares: float, count: int) -> float:
    """Of a mean, from Σ x and Σ x²; NaN for a single one."""
    if count < 2:
        return math.nan
    variance = (squares - total * total / count) / (count - 1)
    return math.sqrt(max(0.0, variance) / count)


def _overlap(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """(R,) Σ min(p, q), and whether both have the same most likely token."""
    dtype = compute_dtype(student.dtype)
    overlap = torch.empty(len(student), dtype=dtype, device=student.device)
    same = torch.empty(len(student), dtype=torch.bool, device=student.device)
    columns = min(student.shape[1], teacher.shape[1])
    for rows in row_blocks(student, dtype):
        z, t = scaled(student[rows], temperature, dtype), scaled(teacher[rows], temperature, dtype)
        same[rows] = z.argmax(-1) == t.argmax(-1)
        q, _ = softmax(z, out=z)
        p, _ = softmax(t, out=t)
        overlap[rows] = torch.minimum(p[:, :columns], q[:, :columns]).sum(-1)
    return overlap, same
