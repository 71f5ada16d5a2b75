"""Parts of the logits of a linear head in plain torch operations: any device.

Narrow inputs are widened to float32 a part at a time, so that no logit is rounded to their dtype:
these are the numbers of the Triton kernels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparselogits.torch.head import Head, default_part_columns
from sparselogits.torch.rows import compute_dtype


def lse(x: Tensor, head: Head) -> Tensor:
    """(R,) log-sum-exp of the finished logits of (R, H), in the compute dtype."""
    dtype = compute_dtype(x.dtype)
    wide = x.to(dtype)
    result = wide.new_full((len(x),), -torch.inf)
    step = default_part_columns(len(x), dtype, x.device)
    for start in range(0, len(head.weight), step):
        z = _finished(wide, head.narrow(slice(start, start + step)))
        largest = z.amax(1)
        # Of logits that are all -inf: inf - inf would be NaN.
        largest.masked_fill_(largest == -torch.inf, 0)
        part = z.sub_(largest[:, None]).exp_().sum(1).log_().add_(largest)
        torch.logaddexp(result, part, out=result)
    return result


def softmax_gradient(x: Tensor, head: Head, lse: Tensor, coefficient: Tensor, out: Tensor) -> None:
    """Writes coefficient · dlse/dz to `out` (R, V), for logits z before soft-cap and temperature.

    Args:
        x: (R, H).
        head: Of a part of the vocabulary, V columns.
        lse: (R,) of the whole vocabulary.
        coefficient: (R,), multiplies each row.
        out: (R, V); its columns are adjacent.
    """
    z = _finished(x.to(lse.dtype), head)
    slope = head.finish.cap_slope(z)
    p = z.sub_(lse[:, None]).exp_()
    if slope is not None:
        p.mul_(slope)
    torch.mul(p, (coefficient / head.finish.temperature)[:, None], out=out)


def gradient_dtype(x: Tensor) -> torch.dtype:
    """The dtype that `softmax_gradient` delivers and that its products are made in."""
    return compute_dtype(x.dtype)


def _finished(x: Tensor, head: Head) -> Tensor:
    weight = head.weight.to(x.dtype)
    if head.bias is None:
        return head.finish(x @ weight.t())
    return head.finish(torch.addmm(head.bias.to(x.dtype), x, weight.t()))
