"""Rows of logits to losses and gradients, through a soft-cap where one is asked for.

With z = c · tanh(x / c) of logits x, the arithmetic of `functional` runs on z, and
dL/dx = dL/dz · (1 - tanh²(x / c)).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparselogits.torch import buffers
from sparselogits.torch.functional import loss_and_gradient
from sparselogits.torch.host_memory import is_host
from sparselogits.torch.reduction import Scaling
from sparselogits.torch.row_blocks import block_rows
from sparselogits.torch.rows import Rows


def row_losses(
    logits: Tensor, rows: Rows, scaling: Scaling, gradient_scale: Tensor, out: Tensor | None
) -> Tensor:
    """(R,) losses of logits (R, V), 0 in rows that are not kept.

    Args:
        logits: (R, V).
        rows: The targets of these R rows.
        scaling: Soft-cap, temperature and the factor on each loss.
        gradient_scale: 0-dimensional: what multiplies W p - w in the gradient.
        out: (R, V) in the dtype of the logits, receives the gradient; it may be `logits` itself.
            None computes the losses only.
    """
    if scaling.softcap is not None:
        return _capped(logits, rows, scaling, scaling.softcap, gradient_scale, out)
    return loss_and_gradient(
        logits, rows, scaling.temperature, scaling.loss_scale, gradient_scale, out
    )


def _capped(
    logits: Tensor,
    rows: Rows,
    scaling: Scaling,
    cap: float,
    gradient_scale: Tensor,
    out: Tensor | None,
) -> Tensor:
    """Block by block, so that capped logits are few, and in the compute dtype from end to end."""
    num_rows, width = logits.shape
    dtype = rows.weight.dtype
    block = block_rows(num_rows, width, dtype, logits.device)
    bounded = buffers.empty((block, width), logits, dtype)
    scratch = torch.empty_like(bounded) if out is not None and out.dtype != dtype else None
    losses = torch.zeros_like(rows.total)
    for start in range(0, num_rows, block):
        part = slice(start, min(start + block, num_rows))
        part_rows = rows.narrow(part.start, part.stop)
        t = bounded[: part.stop - start]
        torch.div(logits[part].to(dtype), cap, out=t).tanh_()
        if not is_host(t.device) or not bool(part_rows.keep.all()):
            # 0 · NaN is NaN: an ignored row must not meet the derivative below.
            t.masked_fill_(~part_rows.keep[:, None], 0)
        gradient = None
        if out is not None:
            gradient = out[part] if scratch is None else scratch[: len(t)]
        losses[part] = loss_and_gradient(
            t,
            part_rows,
            scaling.temperature / cap,  # t / (T / c) = z / T
            scaling.loss_scale,
            gradient_scale,
            gradient,
        )
        if out is not None and gradient is not None:
            gradient.addcmul_(gradient, t.square_(), value=-1)
            if scratch is not None:
                out[part] = gradient
    return losses
