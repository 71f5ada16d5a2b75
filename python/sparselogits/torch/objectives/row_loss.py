"""The autograd function of every objective that is no sparse target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparselogits.torch.autocast import without_autocast
from sparselogits.torch.reduction import Scaling, finish_gradient, make_scaling, once_differentiable
from sparselogits.torch.rows import compute_dtype

RowKernel = Callable[[Tensor, "RowScale", Tensor | None], Tensor]
"""(R, V) logits, their scale, where the gradient goes -> (R,) losses, times T² where asked for."""


@dataclass(frozen=True)
class RowScale:
    """What multiplies the rows of an objective.

    Attributes:
        temperature: Divides the logits.
        keep: (R,) bool, false where a row counts for nothing, whatever it holds.
        loss: (R,), what multiplies the loss of a row.
        gradient: (R,), what multiplies the derivative by the divided logits.
    """

    temperature: float
    keep: Tensor
    loss: Tensor
    gradient: Tensor


def row_loss(
    logits: Tensor,
    kernel: RowKernel,
    keep: Tensor,
    position_weights: Tensor | None,
    **keywords: Any,
) -> Tensor:
    """The reduced loss of (R, V) logits; a row that is not kept has a loss and gradient of zero.

    Args:
        logits: (R, V).
        kernel: Computes losses and gradient.
        keep: (R,) bool.
        position_weights: (R,) or None.
        keywords: temperature, scale_by_temperature_squared, reduction, num_items.

    Returns:
        float32 (float64 for float64 logits): a scalar, or (R,) for "none".

    Raises:
        InvalidArgumentError: A keyword is wrong.
    """
    with without_autocast(logits.device):
        dtype = compute_dtype(logits.dtype)
        scaling = make_scaling(
            keep, logits.dtype, dtype, reductions=("mean", "sum", "none"), **keywords
        )
        rows = torch.ones_like(keep, dtype=dtype)
        if position_weights is not None:
            rows = position_weights.to(dtype)
        rows = torch.where(keep, rows, 0)
        scale = RowScale(
            scaling.temperature, keep, rows * scaling.loss_scale, rows * scaling.gradient_scale
        )
        if torch.is_grad_enabled() and logits.requires_grad:
            loss: Tensor = _RowLoss.apply(  # type: ignore[no-untyped-call]
                logits, kernel, scale, scaling
            )
            return loss
        return scaling.reduce(kernel(logits.detach(), scale, None))


class _RowLoss(torch.autograd.Function):
    """Keeps one buffer of the size of the logits for the backward pass: their gradient."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, kernel: RowKernel, scale: RowScale, scaling: Scaling
    ) -> Tensor:
        gradient = torch.empty_like(logits)
        loss = scaling.reduce(kernel(logits.detach(), scale, gradient))
        ctx.scaling = scaling
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        factor = ctx.scaling.factor(grad_output)
        return finish_gradient(gradient, factor, gradient.dtype), None, None, None
