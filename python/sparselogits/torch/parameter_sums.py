"""Gradients of a head's weight and bias, added straight into the `.grad` of the parameters."""

from __future__ import annotations

import torch
from torch import Tensor

from sparselogits.errors import InvalidArgumentError

# Products of a dtype other than that of `.grad` pass through a scratch of this many ids.
_SCRATCH_IDS = 4096


class ParameterWeightGradient:
    """Adds gradientᵀ · x of every chunk to `parameter.grad`, (V, H), which is made if missing."""

    def __init__(self, parameter: Tensor) -> None:
        self._parameter = parameter

    def add(self, gradient: Tensor, x: Tensor) -> None:
        """gradient: (r, V); x: (r, H)."""
        grad = self._parameter.grad
        same = self._parameter.dtype if grad is None else grad.dtype
        if grad is None and same == gradient.dtype:
            self._parameter.grad = torch.mm(gradient.t(), x)
            return
        grad = make_grad(self._parameter)
        if same == gradient.dtype:
            grad.addmm_(gradient.t(), x)
            return
        for start in range(0, grad.shape[0], _SCRATCH_IDS):
            ids = slice(start, start + _SCRATCH_IDS)
            grad[ids] += gradient[:, ids].t() @ x


class ParameterBiasGradient:
    """Adds Σ gradient of every chunk to `parameter.grad`, (V,), which is made if missing."""

    def __init__(self, parameter: Tensor, wide: torch.dtype) -> None:
        self._parameter = parameter
        self._wide = wide

    def add(self, gradient: Tensor) -> None:
        """gradient: (r, V)."""
        make_grad(self._parameter).add_(gradient.sum(0, dtype=self._wide))


def make_grad(parameter: Tensor) -> Tensor:
    """`parameter.grad`, zeros if it was missing."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def check_accumulates(name: str, parameter: Tensor) -> None:
    """Refuses what autograd would not treat as a plain `.grad` that sums are added to.

    Raises:
        InvalidArgumentError: Not a leaf, hooked, or a `.grad` that is sparse or has a graph.
    """
    keyword = "accumulate_weight_grad"
    if not parameter.is_leaf:
        raise InvalidArgumentError(
            f"{keyword} adds to {name}.grad, but {name} is computed from other tensors and gets no "
            "grad; pass the parameter itself"
        )
    if parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None):
        raise InvalidArgumentError(
            f"{name} has hooks on its gradient, which {keyword} would pass by; remove them or it"
        )
    grad = parameter.grad
    if grad is not None and (grad.requires_grad or grad.layout != torch.strided):
        raise InvalidArgumentError(
            f"{name}.grad is {'part of a graph' if grad.requires_grad else grad.layout}; "
            f"{keyword} adds to a plain dense one"
        )


def is_collected(parameter: Tensor, name: str) -> bool:
    """Whether the running backward pass adds to `parameter.grad`, asked from within it.

    `backward(inputs=...)` may leave the parameter out.

    Raises:
        InvalidArgumentError: `torch.autograd.grad` wants the gradient itself.
    """
    node = torch.autograd.graph.get_gradient_edge(parameter).node
    try:
        return bool(torch._C._will_engine_execute_node(node))
    except RuntimeError as cause:
        raise InvalidArgumentError(
            f"torch.autograd.grad asks for the gradient of {name}, which accumulate_weight_grad "
            "returns to nobody; call backward, or leave it out"
        ) from cause
