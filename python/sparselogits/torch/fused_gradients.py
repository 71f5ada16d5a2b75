"""The fused loss with its gradients computed in the forward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparselogits.torch.fused_chunks import Head, RowLosses, Sinks, detach_head, run_chunks
from sparselogits.torch.reduction import Scaling, finish_gradient, once_differentiable
from sparselogits.torch.row_pass import row_losses
from sparselogits.torch.rows import Rows
from sparselogits.torch.weight_sums import BiasGradient, WeightGradient


class FusedLinearSparseKDLoss(torch.autograd.Function):
    """hidden (R, H), weight (V, H), bias (V,) or None, all of one dtype, to the reduced loss."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        rows: Rows,
        scaling: Scaling,
        chunk: int,
    ) -> Tensor:
        head = detach_head(hidden, weight, bias)
        loss, *gradients = loss_and_gradients(head, rows, scaling, chunk, ctx.needs_input_grad[:3])
        ctx.scaling = scaling
        ctx.dtype = hidden.dtype
        ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        factor = ctx.scaling.factor(grad_output)
        stored = ctx.saved_tensors
        finished = [t if t is None else finish_gradient(t, factor, ctx.dtype) for t in stored]
        return *finished, None, None, None


def loss_and_gradients(
    head: Head,
    rows: Rows,
    scaling: Scaling,
    chunk: int,
    wanted: tuple[bool, bool, bool],
    losses_of: RowLosses = row_losses,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """The reduced loss, and the wanted gradients of hidden, weight and bias.

    The gradients lack `scaling.factor`. Where that is still to come they are as wide as their sums.
    """
    compute = rows.total.dtype
    several = head.hidden.shape[0] > chunk
    weight = WeightGradient(head.weight, compute, several) if wanted[1] else None
    bias = None
    if wanted[2]:
        assert head.bias is not None
        bias = BiasGradient(head.bias, compute)
    sinks = Sinks(wanted[0], weight, bias)
    losses, hidden = run_chunks(
        head, rows, scaling, scaling.gradient_scale, chunk, sinks, losses_of
    )
    wide = scaling.defer_count
    return (
        scaling.reduce(losses),
        hidden,
        None if weight is None else weight.result(wide),
        None if bias is None else bias.result(wide),
    )
