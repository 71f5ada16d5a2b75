"""The losses' arithmetic where a row of logits is spread over the ranks of a process group."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from sparselogits.torch.rows import Rows

# float32 scratch of one block of rows.
_BLOCK_BYTES = 64 << 20


@dataclass(frozen=True)
class ShardedColumns:
    """The columns `start` and after of every row are here, the others with ranks of the group."""

    start: int
    group: dist.ProcessGroup | None

    def loss_and_gradient(
        self,
        logits: Tensor,
        rows: Rows,
        temperature: float,
        loss_scale: float,
        gradient_scale: Tensor,
        out: Tensor | None,
    ) -> Tensor:
        """Losses of whole rows, and the gradient of the columns that are here. A collective.

        As `functional.loss_and_gradient`, with logits (R, columns) and the targets of whole rows.
        Two numbers a row cross between the ranks, after one for the maximum.
        """
        width = logits.shape[1]
        local_id = rows.token_id - self.start
        inside = (local_id >= 0) & (local_id < width)
        # Entries of other ranks go to a column that does not exist: choosing would ask a device.
        column = torch.where(inside, local_id, width)
        lse = _local_lse(logits, rows.keep, temperature)
        reference = lse.clone()
        dist.all_reduce(reference, dist.ReduceOp.MAX, group=self.group)
        # Of rows that are all -inf: inf - inf would be NaN.
        reference.masked_fill_(reference == -torch.inf, 0)
        at_target = logits[rows.row, column.clamp(max=width - 1)].to(lse.dtype) / temperature
        at_target = at_target - reference[rows.row]
        weighted = torch.where(inside & rows.keep[rows.row], rows.weight * at_target, 0)
        sums = torch.stack(
            [(lse - reference).exp(), torch.zeros_like(lse).index_add_(0, rows.row, weighted)]
        )
        dist.all_reduce(sums, dist.ReduceOp.SUM, group=self.group)
        log_sum = sums[0].log()
        if out is not None:
            scale = torch.where(rows.keep, gradient_scale, 0)
            p = torch.exp(at_target - log_sum[rows.row])
            entries = scale[rows.row] * (rows.total[rows.row] * p - rows.weight)
            _write_gradient(
                logits, rows, temperature, reference + log_sum, scale, column, entries, out
            )
        return torch.where(rows.keep, (rows.total * log_sum - sums[1]) * loss_scale, 0)


def _local_lse(logits: Tensor, keep: Tensor, temperature: float) -> Tensor:
    """(R,) log-sum-exp of the columns that are here; 0 in rows that are not kept."""
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    lse = torch.empty(len(logits), dtype=dtype, device=logits.device)
    for part in _blocks(logits):
        lse[part] = torch.logsumexp(logits[part].to(dtype) / temperature, 1)
    return lse.masked_fill_(~keep, 0)


def _write_gradient(
    logits: Tensor,
    rows: Rows,
    temperature: float,
    lse: Tensor,
    scale: Tensor,
    column: Tensor,
    entries: Tensor,
    out: Tensor,
) -> None:
    """scale · (W softmax - w), with the elements at targets stored in float32 before rounding."""
    width = logits.shape[1]
    coefficient = scale * rows.total
    for part in _blocks(logits):
        z = logits[part].to(lse.dtype) / temperature
        block = torch.empty((len(z), width + 1), dtype=lse.dtype, device=logits.device)
        torch.exp(z.sub_(lse[part, None]), out=block[:, :width])
        block.mul_(coefficient[part, None])
        here = slice(int(rows.bounds[part.start]), int(rows.bounds[part.stop]))
        block.index_put_((rows.row[here] - part.start, column[here]), entries[here])
        # 0 · NaN is NaN: an ignored row may hold anything.
        block.masked_fill_(~rows.keep[part, None], 0)
        out[part] = block[:, :width]


def _blocks(logits: Tensor) -> list[slice]:
    num_rows, width = logits.shape
    step = max(1, _BLOCK_BYTES // (4 * width))
    return [slice(start, min(start + step, num_rows)) for start in range(0, num_rows, step)]
