"""The fused loss whose backward pass adds to `weight.grad` and `bias.grad` itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparselogits.torch.autocast import without_autocast
from sparselogits.torch.fused_chunks import Sinks, detach_head, run_chunks
from sparselogits.torch.parameter_sums import (
    ParameterBiasGradient,
    ParameterWeightGradient,
    check_accumulates,
    is_collected,
    make_grad,
)
from sparselogits.torch.reduction import Scaling, once_differentiable
from sparselogits.torch.rows import Rows
from sparselogits.torch.terms import Terms


def accumulating_loss(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    terms: Terms,
    chunk: int,
) -> Tensor:
    """The reduced loss of hidden states (R, H), which carry the dtype of the products.

    Args:
        hidden: (R, H).
        weight: (V, H), the parameter itself, of any floating dtype.
        bias: (V,) likewise, or None.
        terms: Of the loss over the R rows.
        chunk: Rows of logits that exist at once.

    Raises:
        InvalidArgumentError: A value of the terms means nothing, or a parameter that needs a
            gradient cannot be added to.
    """
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None and parameter.requires_grad:
            check_accumulates(name, parameter)
    with without_autocast(hidden.device):
        rows, scaling = terms.resolve(hidden.dtype)
        loss: Tensor = _RecomputedLoss.apply(  # type: ignore[no-untyped-call]
            hidden, weight, bias, rows, scaling, chunk
        )
    return loss


class _RecomputedLoss(torch.autograd.Function):
    """Gradients in the backward pass alone: what is added to a `.grad` cannot be scaled later."""

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
        ctx.save_for_backward(hidden, weight, bias)
        # Hooks of saved tensors (checkpointing, offloading) hand back others: these have the .grad.
        ctx.parameters = (weight, bias)
        ctx.terms = (rows, scaling, chunk)
        head = detach_head(hidden, weight, bias)
        losses, _ = run_chunks(head, rows, scaling, scaling.gradient_scale, chunk, None)
        return scaling.reduce(losses)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        rows, scaling, chunk = ctx.terms
        head = detach_head(*ctx.saved_tensors)
        weight, bias = (
            parameter if wanted and is_collected(parameter, name) else None
            for name, parameter, wanted in zip(
                ("weight", "bias"), ctx.parameters, ctx.needs_input_grad[1:3], strict=True
            )
        )
        sinks = Sinks(
            ctx.needs_input_grad[0],
            None if weight is None else ParameterWeightGradient(weight),
            None if bias is None else ParameterBiasGradient(bias, rows.total.dtype),
        )
        scale = scaling.whole_gradient_scale * grad_output
        with without_autocast(grad_output.device):
            _, grad_hidden = run_chunks(head, rows, scaling, scale, chunk, sinks)
        for parameter in (weight, bias):
            if parameter is not None:
                make_grad(parameter)  # where no row was kept, a gradient of zero
        return grad_hidden, None, None, None, None, None
