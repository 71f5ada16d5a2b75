"""Rows of logits through a soft-cap, around arithmetic that knows none."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sparselogits.torch import buffers
from sparselogits.torch.host_memory import is_host
from sparselogits.torch.row_blocks import block_rows
from sparselogits.torch.rows import Rows

Backend = Callable[[Tensor, Rows, float, float, Tensor, Tensor | None], Tensor]
"""`row_torch.loss_and_gradient`, and what has its signature."""


def through_softcap(
    backend: Backend,
    cap: float,
    logits: Tensor,
    rows: Rows,
    temperature: float,
    loss_scale: float,
    gradient_scale: Tensor,
    out: Tensor | None,
) -> Tensor:
    """As `backend`, of the logits cap · tanh(logits / cap); the gradient is that of `logits`.

    Block by block, so that capped logits are few, and in the compute dtype from end to end.
    """
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
        losses[part] = backend(
            t,
            part_rows,
            temperature / cap,  # t / (T / c) = z / T
            loss_scale,
            gradient_scale,
            gradient,
        )
        if out is not None and gradient is not None:
            gradient.addcmul_(gradient, t.square_(), value=-1)
            if scratch is not None:
                out[part] = gradient
    return losses
