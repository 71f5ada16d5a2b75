"""What a loss is divided by, and how its finished gradient leaves the backward pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable as _once_differentiable

from sparselogits.errors import InvalidArgumentError
from sparselogits.torch.host_memory import is_host

# torch leaves its decorator untyped.
once_differentiable = cast(
    "Callable[[Callable[..., Any]], Callable[..., Any]]", _once_differentiable
)


@dataclass(frozen=True)
class Scaling:
    """Every factor on a loss and its gradient.

    Attributes:
        softcap: c of c · tanh(z / c), which replaces the logits first; None for as they are.
        temperature: Divides the logits.
        loss_scale: T² or 1, on every row.
        reduction: "mean", "sum" or "none".
        inverse_count: 0-dimensional: one over the rows a mean divides by; 1 for other reductions.
        defer_count: Apply `inverse_count` in the backward pass. float16 gradients lie around 1/n
            of its smallest number, and are only saved by the loss scale that arrives there.
    """

    softcap: float | None
    temperature: float
    loss_scale: float
    reduction: str
    inverse_count: Tensor
    defer_count: bool

    @property
    def gradient_scale(self) -> Tensor:
        """0-dimensional: multiplies W p - w in the forward pass."""
        if self.defer_count:
            return torch.full_like(self.inverse_count, self.loss_scale / self.temperature)
        return self.whole_gradient_scale

    @property
    def whole_gradient_scale(self) -> Tensor:
        """0-dimensional: the same with nothing left for `factor`."""
        return self.inverse_count * (self.loss_scale / self.temperature)

    def reduce(self, losses: Tensor) -> Tensor:
        """(R,) losses to the value that the caller sees."""
        return losses if self.reduction == "none" else losses.sum() * self.inverse_count

    def factor(self, grad_output: Tensor) -> Tensor:
        """What the stored gradient still has to be multiplied by."""
        return grad_output * self.inverse_count if self.defer_count else grad_output


def check_reduction(reduction: str, reductions: tuple[str, ...]) -> None:
    """Raises InvalidArgumentError for a reduction that is none of `reductions`."""
    if reduction not in reductions:
        raise InvalidArgumentError(f"reduction is {reduction!r}; it must be one of {reductions}")


def check_positive(name: str, value: float) -> None:
    """Raises InvalidArgumentError for a value that is not above 0 and finite."""
    if not (isinstance(value, (int, float)) and 0 < value < math.inf):
        raise InvalidArgumentError(f"{name} is {value!r}; it must be above 0 and finite")


def make_scaling(
    keep: Tensor,
    dtype: torch.dtype,
    compute: torch.dtype,
    *,
    temperature: float,
    scale_by_temperature_squared: bool,
    reduction: str,
    num_items: float | Tensor | None,
    reductions: tuple[str, ...] = ("mean", "sum", "none"),
    softcap: float | None = None,
) -> Scaling:
    """Checks the keywords of a loss and turns them into factors.

    Raises:
        InvalidArgumentError: A temperature, softcap, reduction or num_items that means nothing.
    """
    check_reduction(reduction, reductions)
    check_positive("temperature", temperature)
    if softcap is not None:
        check_positive("softcap", softcap)
    if num_items is not None and reduction != "mean":
        raise InvalidArgumentError(f"num_items divides a mean; reduction is {reduction!r}")
    one = torch.ones((), dtype=compute, device=keep.device)
    if reduction != "mean":
        inverse = one
    elif num_items is not None:
        inverse = one / _checked_num_items(num_items, keep.device)
    else:
        count = keep.sum()
        # Without a kept row the losses and gradients are zero already: 0 · 1, not 0 / 0.
        inverse = one / count.clamp(min=1)
    return Scaling(
        softcap=None if softcap is None else float(softcap),
        temperature=float(temperature),
        loss_scale=float(temperature) ** 2 if scale_by_temperature_squared else 1.0,
        reduction=reduction,
        inverse_count=inverse,
        defer_count=dtype == torch.float16,
    )


def _checked_num_items(num_items: float | Tensor, device: torch.device) -> float | Tensor:
    if isinstance(num_items, Tensor):
        if num_items.numel() != 1:
            raise InvalidArgumentError(f"num_items has {num_items.numel()} elements; it is one")
        if not is_host(num_items.device):
            return num_items.detach().reshape(()).to(device)
        num_items = num_items.item()
    if not 0 < num_items < math.inf:
        raise InvalidArgumentError(f"num_items is {num_items}; it must be above 0 and finite")
    return num_items


def finish_gradient(stored: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
    """factor · stored in `dtype`, in the memory of `stored` unless the graph is kept.

    Args:
        stored: (R, ...) gradient saved by the forward pass.
        factor: 0-dimensional, or (R,).
        dtype: Of the input that the gradient belongs to.
    """
    if is_host(factor.device) and bool((factor == 1).all()):
        keep_stored = graph_is_kept() and stored.dtype == dtype
        return stored.clone() if keep_stored else stored.to(dtype)
    if graph_is_kept():
        stored = stored.clone()
    # A factor with dimensions keeps its float32 precision against a bfloat16 gradient.
    factor = factor.reshape(-1, *[1] * (stored.dim() - 1))
    if is_host(stored.device) and stored.dtype != factor.dtype and stored.dim() > 1:
        # Torch's CPU kernels convert whole tensors of mixed dtype: do it a few rows at a time.
        for start in range(0, len(stored), 16):
            rows = slice(start, start + 16)
            stored[rows].mul_(factor if len(factor) == 1 else factor[rows])
    else:
        stored.mul_(factor)
    return stored.to(dtype)


def graph_is_kept() -> bool:
    """Whether the running backward pass was started with retain_graph=True.

    Torch has no public name for this. Where the private one is missing the answer is yes, which
    costs a copy; an answer that were wrongly no could not go unseen, since torch refuses to unpack
    a saved tensor that was changed in place.
    """
    query = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return bool(query()) if query is not None else True
