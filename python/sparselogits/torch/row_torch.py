"""The losses' arithmetic in plain torch operations: any device, any dtype, any wrapper."""

from __future__ import annotations

import torch
from torch import Tensor

from sparselogits.torch.host_memory import is_host
from sparselogits.torch.row_blocks import block_rows
from sparselogits.torch.rows import Rows


def loss_and_gradient(
    logits: Tensor,
    rows: Rows,
    temperature: float,
    loss_scale: float,
    gradient_scale: Tensor,
    out: Tensor | None,
) -> Tensor:
    """Losses of R rows, and their gradient in the same pass; `row_pass` has the formula.

    Args:
        logits: (R, V).
        rows: The targets of these R rows.
        temperature: T.
        loss_scale: What multiplies each loss.
        gradient_scale: 0-dimensional, in the compute dtype: what multiplies W p - w.
        out: (R, V) in the dtype of the logits, receives the gradient; it may be `logits` itself.
            None computes the losses only.

    Returns:
        (R,) losses in the compute dtype, 0 in rows that are not kept.
    """
    at_target = logits[rows.row, rows.token_id].to(rows.weight.dtype) / temperature
    scale = torch.where(rows.keep, gradient_scale, 0)
    lse = _softmax_pass(logits, rows.keep, temperature, scale * rows.total, out)
    surprise = lse[rows.row] - at_target
    # A weight of 0 asks for nothing, where 0 · inf would be NaN.
    terms = torch.where(rows.weight > 0, rows.weight * surprise, 0)
    losses = torch.zeros_like(rows.total).index_add_(0, rows.row, terms)
    if out is not None:
        # Where p and w nearly cancel, their difference has to be taken before the rounding to the
        # dtype of the logits. Ids are unique in a row, so every element is stored once.
        difference = rows.total[rows.row] * torch.exp(-surprise) - rows.weight
        entries = torch.where(rows.keep[rows.row], scale[rows.row] * difference, 0)
        out.index_put_((rows.row, rows.token_id), entries.to(out.dtype))
    return torch.where(rows.keep, losses * loss_scale, 0)


def _softmax_pass(
    logits: Tensor, keep: Tensor, temperature: float, coefficient: Tensor, out: Tensor | None
) -> Tensor:
    """Writes coefficient · softmax(logits / T) to `out`, block by block; returns the lse, (R,)."""
    on_cpu = is_host(logits.device)
    dtype = coefficient.dtype
    num_rows, width = logits.shape
    block = block_rows(num_rows, width, dtype, logits.device)
    scratch = torch.empty((block, width), dtype=dtype, device=logits.device)
    lse = torch.zeros_like(coefficient)
    for start in range(0, num_rows, block):
        part = slice(start, min(start + block, num_rows))
        kept = keep[part]
        if on_cpu and not bool(kept.any()):
            if out is not None:
                out[part].zero_()
            continue
        z = logits[part].to(dtype)
        if temperature != 1.0:
            z = z / temperature
        p = scratch[: z.shape[0]]
        torch.softmax(z, dim=-1, out=p)
        # Torch's softmax adds up its denominator naively: at V = 151,936 the rows sum to 1 within
        # 1e-5 only, a common factor that this pairwise sum takes out again.
        sums = p.sum(-1)
        # log p = z - lse at the largest logit, where p is at least 1/V and so exact enough.
        lse[part] = z.amax(-1) - (p.amax(-1) / sums).log()
        if out is not None:
            torch.mul(p, (coefficient[part] / sums)[:, None], out=out[part])
            _clear_ignored(out[part], kept, on_cpu)
    return lse


def _clear_ignored(gradient: Tensor, keep: Tensor, on_cpu: bool) -> None:
    # 0 · NaN is NaN: a padded row may hold anything, and must still count for nothing.
    if on_cpu:
        ignored = (~keep).nonzero().squeeze(1)
        if ignored.numel():
            gradient.index_fill_(0, ignored, 0)
    else:
        gradient.masked_fill_(~keep[:, None], 0)
