"""The losses' arithmetic where a row of logits is spread over the ranks of a process group."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from sparselogits.torch.finish import Finish
from sparselogits.torch.reduction import Scaling
from sparselogits.torch.rows import Rows, compute_dtype

# float32 scratch of one block of rows.
_BLOCK_BYTES = 64 << 20


@dataclass(frozen=True)
class ShardedColumns:
    """The columns `start` and after of every row are here, the others with ranks of the group."""

    start: int
    group: dist.ProcessGroup | None

    def row_losses(
        self,
        logits: Tensor,
        rows: Rows,
        scaling: Scaling,
        gradient_scale: Tensor,
        out: Tensor | None,
    ) -> Tensor:
        """Losses of whole rows, and the gradient of the columns that are here. A collective.

        As `row_pass.row_losses`, with logits (R, columns) and the targets of whole rows. Two
        numbers a row cross between the ranks, after one for the maximum.
        """
        width = logits.shape[1]
        finish = Finish(scaling.temperature, scaling.softcap)
        local_id = rows.token_id - self.start
        inside = (local_id >= 0) & (local_id < width)
        # Entries of other ranks go to a column that does not exist: choosing would ask a device.
        column = torch.where(inside, local_id, width)
        lse = _local_lse(logits, rows.keep, finish)
        reference = lse.clone()
        dist.all_reduce(reference, dist.ReduceOp.MAX, group=self.group)
        at_target = finish(logits[rows.row, column.clamp(max=width - 1)].to(lse.dtype))
        slope = finish.cap_slope(at_target)
        at_target = at_target - reference[rows.row]
        # A weight of 0 asks for nothing, where 0 · inf would be NaN.
        weighted = torch.where(inside & (rows.weight > 0), rows.weight * at_target, 0)
        sums = torch.stack(
            [(lse - reference).exp(), torch.zeros_like(lse).index_add_(0, rows.row, weighted)]
        )
        dist.all_reduce(sums, dist.ReduceOp.SUM, group=self.group)
        log_sum = sums[0].log()
        if out is not None:
            scale = torch.where(rows.keep, gradient_scale, 0)
            p = torch.exp(at_target - log_sum[rows.row])
            entries = scale[rows.row] * (rows.total[rows.row] * p - rows.weight)
            gradient = _Gradient(
                finish,
                reference + log_sum,
                scale * rows.total,
                column,
                entries if slope is None else entries * slope,
            )
            for part in _blocks(logits):
                gradient.write(logits, rows, part, out)
        return torch.where(rows.keep, (rows.total * log_sum - sums[1]) * scaling.loss_scale, 0)


@dataclass(frozen=True)
class _Gradient:
    """coefficient · dlse/dz, and what is stored at targets: (E,) columns and entries."""

    finish: Finish
    lse: Tensor
    coefficient: Tensor
    column: Tensor
    entries: Tensor

    def write(self, logits: Tensor, rows: Rows, part: slice, out: Tensor) -> None:
        """The rows of one block, in the compute dtype until they are complete."""
        width = logits.shape[1]
        z = self.finish(logits[part].to(self.lse.dtype, copy=True))
        slope = self.finish.cap_slope(z)
        block = torch.empty((len(z), width + 1), dtype=z.dtype, device=z.device)
        torch.exp(z.sub_(self.lse[part, None]), out=block[:, :width])
        block.mul_(self.coefficient[part, None])
        if slope is not None:
            block[:, :width].mul_(slope)
        here = slice(int(rows.bounds[part.start]), int(rows.bounds[part.stop]))
        place = (rows.row[here] - part.start, self.column[here])
        block.index_put_(place, self.entries[here])
        # 0 · NaN is NaN: an ignored row may hold anything.
        block.masked_fill_(~rows.keep[part, None], 0)
        out[part] = block[:, :width]


def _local_lse(logits: Tensor, keep: Tensor, finish: Finish) -> Tensor:
    """(R,) log-sum-exp of the columns that are here; 0 in rows that are not kept."""
    dtype = compute_dtype(logits.dtype)
    lse = torch.empty(len(logits), dtype=dtype, device=logits.device)
    for part in _blocks(logits):
        lse[part] = torch.logsumexp(finish(logits[part].to(dtype, copy=True)), 1)
    return lse.masked_fill_(~keep, 0)


def _blocks(logits: Tensor) -> list[slice]:
    num_rows, width = logits.shape
    step = max(1, _BLOCK_BYTES // (4 * width))
    return [slice(start, min(start + step, num_rows)) for start in range(0, num_rows, step)]
