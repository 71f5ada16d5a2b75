"""Single logits of a linear head, at the entries of sparse targets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor

from sparselogits.torch.reduction import once_differentiable
from sparselogits.torch.rows import compute_dtype

_GATHERED_BYTES = 64 << 20  # of hidden states and of rows of the head's matrix, each


def logits_at(
    x: Tensor, weight: Tensor, bias: Tensor | None, row: Tensor, token_id: Tensor
) -> Tensor:
    """x[row] · weight[token_id] + bias[token_id] for E entries, in the compute dtype.

    The dot products are float32 for narrow inputs, where an embedding bag would round the weights
    of the entries to the dtype of the matrix. Not differentiable: see `differentiable_logits_at`.

    Args:
        x: (R, H).
        weight: (V, H).
        bias: (V,) or None.
        row: (E,) int64.
        token_id: (E,) int64.
    """
    dtype = compute_dtype(x.dtype)
    z = torch.empty(row.shape, dtype=dtype, device=x.device)
    for part in _parts(row, x.shape[1] * dtype.itemsize):
        ours, theirs = x[row[part]].to(dtype), weight[token_id[part]].to(dtype)
        z[part] = (ours.mul_(theirs)).sum(1)
    return z if bias is None else z.add_(bias[token_id])


def differentiable_logits_at(
    x: Tensor, weight: Tensor, bias: Tensor | None, row: Tensor, token_id: Tensor
) -> Tensor:
    """`logits_at` with gradients for x, weight and bias; that of the weight is dense."""
    return cast(Tensor, _LogitsAt.apply(x, weight, bias, row, token_id))  # type: ignore[no-untyped-call]


class _LogitsAt(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, row: Tensor, token_id: Tensor
    ) -> Tensor:
        ctx.save_for_backward(x, weight, row, token_id)
        ctx.vocab_size = len(weight)
        return logits_at(x, weight, bias, row, token_id)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, row, token_id = ctx.saved_tensors
        dtype = grad_output.dtype
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        grad_x = torch.zeros_like(x, dtype=dtype) if wants_x else None
        grad_weight = torch.zeros_like(weight, dtype=dtype) if wants_weight else None
        for part in _parts(row, x.shape[1] * dtype.itemsize):
            g = grad_output[part, None]
            if grad_x is not None:
                grad_x.index_add_(0, row[part], weight[token_id[part]].to(dtype) * g)
            if grad_weight is not None:
                grad_weight.index_add_(0, token_id[part], x[row[part]].to(dtype) * g)
        grad_bias = None
        if wants_bias:
            grad_bias = grad_output.new_zeros(ctx.vocab_size).index_add_(0, token_id, grad_output)
        found = (grad_x, grad_weight, grad_bias)
        return *(None if t is None else t.to(x.dtype) for t in found), None, None


def _parts(row: Tensor, entry_bytes: int) -> Iterator[slice]:
    step = max(1, _GATHERED_BYTES // entry_bytes)
    for start in range(0, len(row), step):
        yield slice(start, start + step)
