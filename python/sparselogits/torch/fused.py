"""fused_linear_sparse_kd_loss: the output head and the loss together, a few rows at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparselogits.errors import InvalidArgumentError
from sparselogits.torch.functional import loss_and_gradient
from sparselogits.torch.losses import check_targets, flatten_mask, flatten_rows
from sparselogits.torch.reduction import Scaling, finish_gradient, make_scaling, once_differentiable
from sparselogits.torch.rows import Rows, compute_dtype, unfold
from sparselogits.torch.targets import SparseTargets

# Logits of one chunk. Fewer rows starve the matrix products; more only cost memory.
_CPU_CHUNK_BYTES = 256 << 20
_CPU_CHUNK_ROWS = (256, 512)
_DEVICE_CHUNK_BYTES = 512 << 20
_DEVICE_MIN_CHUNK_ROWS = 1024


def fused_linear_sparse_kd_loss(
    hidden: Tensor,
    weight: Tensor,
    targets: SparseTargets,
    *,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    temperature: float = 1.0,
    scale_by_temperature_squared: bool = False,
    reduction: str = "mean",
    num_items: float | Tensor | None = None,
    chunk_rows: int | None = None,
) -> Tensor:
    """`sparse_kd_loss(linear(hidden, weight, bias), targets)` without ever building those logits.

    The logits exist `chunk_rows` rows at a time. Their gradient is turned into the gradients of
    `hidden`, `weight` and `bias` in the forward pass, and the backward pass only scales these, so
    that three matrix products are all there is. Inputs that need no gradient are given none.

    Precision: the products take the dtype of their inputs and accumulate in float32 inside; the
    logits of a chunk are then reduced in float32 as in `sparse_kd_loss`. Sums over chunks are kept
    in float32 and rounded once. Under `torch.autocast` the inputs are cast as by `F.linear`.

    Args:
        hidden: (B, S, H) or (R, H), the input of the student's output head.
        weight: (V, H), the head's matrix; V may exceed the cache's vocabulary.
        targets: R = B·S rows, on the same device. An empty row is ignored: its logits are not
            computed in host memory, and counted for nothing on a device.
        bias: (V,) or None.
        mask, temperature, scale_by_temperature_squared, num_items: As in `sparse_kd_loss`.
        reduction: "mean" or "sum".
        chunk_rows: Rows of logits that exist at once. By default 256 to 512 in host memory, and at
            least 1,024 on a device, growing to 512 MiB of logits.

    Returns:
        A scalar, float32 (float64 for float64 inputs), nats.

    Raises:
        InvalidArgumentError: A shape, dtype, device or keyword is wrong.
        VocabularyMismatchError: The head has fewer rows than the cache's vocabulary.
    """
    hidden, weight, bias = _autocast(hidden, weight, bias)
    flat, leading = flatten_rows(hidden, "hidden")
    _check_head(flat, weight, bias)
    check_targets(targets, flat, "hidden", weight.shape[0])
    if chunk_rows is not None and chunk_rows < 1:
        raise InvalidArgumentError(f"chunk_rows is {chunk_rows}; it must be at least 1")
    with torch.autocast(hidden.device.type, enabled=False):
        dtype = compute_dtype(flat.dtype)
        rows = unfold(targets, flatten_mask(mask, leading, hidden.device), dtype)
        scaling = make_scaling(
            rows.keep,
            flat.dtype,
            dtype,
            temperature=temperature,
            scale_by_temperature_squared=scale_by_temperature_squared,
            reduction=reduction,
            num_items=num_items,
            reductions=("mean", "sum"),
        )
        chunk = chunk_rows or default_chunk_rows(weight.shape[0], flat.dtype, flat.device)
        inputs = (flat, weight, bias)
        if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs):
            loss: Tensor = _FusedLinearSparseKDLoss.apply(  # type: ignore[no-untyped-call]
                *inputs, rows, scaling, chunk
            )
        else:
            loss, _ = _run_chunks(*inputs, rows, scaling, chunk, (False, False, False))
    return loss


def default_chunk_rows(vocab_size: int, dtype: torch.dtype, device: torch.device) -> int:
    """Rows of logits that the fused loss holds at once."""
    row_bytes = vocab_size * dtype.itemsize
    if device.type == "cpu":
        low, high = _CPU_CHUNK_ROWS
        return max(low, min(high, _CPU_CHUNK_BYTES // row_bytes))
    return max(_DEVICE_MIN_CHUNK_ROWS, _DEVICE_CHUNK_BYTES // row_bytes)


@dataclass
class _Gradients:
    """Gradients of the three inputs, each None where nobody asked."""

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None


class _FusedLinearSparseKDLoss(torch.autograd.Function):
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
        wanted = ctx.needs_input_grad[:3]
        loss, gradients = _run_chunks(hidden, weight, bias, rows, scaling, chunk, wanted)
        ctx.scaling = scaling
        ctx.dtype = hidden.dtype
        ctx.save_for_backward(gradients.hidden, gradients.weight, gradients.bias)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        factor = ctx.scaling.factor(grad_output)
        stored = ctx.saved_tensors
        finished = [t if t is None else finish_gradient(t, factor, ctx.dtype) for t in stored]
        return *finished, None, None, None


def _run_chunks(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    rows: Rows,
    scaling: Scaling,
    chunk: int,
    wanted: tuple[bool, bool, bool],
) -> tuple[Tensor, _Gradients]:
    """The reduced loss, and the gradients of the wanted inputs up to the factor of `scaling`."""
    hidden, weight = hidden.detach(), weight.detach()
    kept = _kept_rows(rows)
    x = hidden if kept is None else hidden[kept]
    if kept is not None:
        rows = rows.select(kept)
    num_rows, width = x.shape[0], weight.shape[0]
    chunk = max(1, min(chunk, num_rows))
    logits = hidden.new_empty((chunk, width))
    losses = torch.zeros_like(rows.total)
    grad_hidden = torch.empty_like(x) if wanted[0] else None
    grad_weight = _WeightGradient(weight, rows.total.dtype, num_rows > chunk) if wanted[1] else None
    grad_bias = rows.total.new_zeros(width) if wanted[2] else None
    for start in range(0, num_rows, chunk):
        part = slice(start, min(start + chunk, num_rows))
        z = logits[: part.stop - start]
        x_part, part_rows = x[part], rows.narrow(start, part.stop)
        if x.device.type != "cpu":
            # 0 · NaN is NaN: an ignored row must not reach the gradient of the weight.
            x_part = x_part.masked_fill(~part_rows.keep[:, None], 0)
        _linear(x_part, weight, bias, z)
        losses[part] = loss_and_gradient(
            z,
            part_rows,
            scaling.temperature,
            scaling.loss_scale,
            scaling.gradient_scale,
            z if any(wanted) else None,
        )
        if grad_hidden is not None:
            torch.mm(z, weight, out=grad_hidden[part])
        if grad_weight is not None:
            grad_weight.add(z, x_part)
        if grad_bias is not None:
            grad_bias += z.sum(0, dtype=grad_bias.dtype)
    if grad_hidden is not None and kept is not None:
        grad_hidden = torch.zeros_like(hidden).index_copy_(0, kept, grad_hidden)
    keep_wide = scaling.defer_count
    gradients = _Gradients(
        grad_hidden,
        None if grad_weight is None else grad_weight.result(keep_wide),
        grad_bias if grad_bias is None or keep_wide else grad_bias.to(hidden.dtype),
    )
    return scaling.reduce(losses), gradients


class _WeightGradient:
    """The sum over chunks of gradientᵀ · x.

    With several chunks of a narrow dtype the sum is kept in float32; the product of one chunk is
    rounded once to the narrow dtype, which is what the matrix product delivers.
    """

    def __init__(self, weight: Tensor, wide: torch.dtype, several: bool) -> None:
        # A float16 gradient stays wide until the count divides it: its sum could overflow.
        self._wide = wide if several or weight.dtype == torch.float16 else weight.dtype
        self._dtype = weight.dtype
        self._sum = (
            torch.zeros_like(weight, dtype=self._wide) if self._wide != weight.dtype else None
        )
        self._product = torch.empty_like(weight)
        self._empty = True

    def add(self, gradient: Tensor, x: Tensor) -> None:
        """gradient: (r, V); x: (r, H)."""
        if self._sum is not None:
            self._sum += torch.mm(gradient.t(), x, out=self._product)
        elif self._empty:
            torch.mm(gradient.t(), x, out=self._product)
        else:
            self._product.addmm_(gradient.t(), x)
        self._empty = False

    def result(self, wide: bool) -> Tensor:
        """(V, H): the sum as it was kept if `wide`, else in the dtype of the weight."""
        if self._sum is None:
            return self._product.zero_() if self._empty else self._product
        return self._sum if wide else self._product.copy_(self._sum)


def _kept_rows(rows: Rows) -> Tensor | None:
    """Indices of the rows to compute, or None for all of them: asking a device would stall it."""
    if rows.keep.device.type != "cpu" or bool(rows.keep.all()):
        return None
    return rows.keep.nonzero().squeeze(1)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
    if bias is None:
        torch.mm(x, weight.t(), out=out)
    else:
        torch.addmm(bias.detach(), x, weight.t(), out=out)


def _autocast(*inputs: Tensor | None) -> list[Any]:
    """The inputs as `F.linear` would take them under the autocast that is in force."""
    first = inputs[0]
    assert first is not None
    device_type = first.device.type
    if not torch.is_autocast_enabled(device_type):
        return list(inputs)
    dtype = torch.get_autocast_dtype(device_type)
    return [t.to(dtype) if t is not None and t.dtype != torch.float64 else t for t in inputs]


def _check_head(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    if weight.dim() != 2 or weight.shape[0] == 0 or weight.shape[1] != hidden.shape[1]:
        raise InvalidArgumentError(
            f"weight has shape {tuple(weight.shape)}; it must be (V, {hidden.shape[1]}), "
            "as hidden is that wide"
        )
    if bias is not None and bias.shape != (weight.shape[0],):
        raise InvalidArgumentError(
            f"bias has shape {tuple(bias.shape)}; it must be ({weight.shape[0]},)"
        )
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is None:
            continue
        if tensor.dtype != hidden.dtype:
            raise InvalidArgumentError(f"{name} is {tensor.dtype} and hidden is {hidden.dtype}")
        if tensor.device != hidden.device:
            raise InvalidArgumentError(f"{name} is on {tensor.device} and hidden {hidden.device}")
