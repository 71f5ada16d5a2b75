"""linear_lse: the log-sum-exp of a linear head whose logits never exist all at once."""

from __future__ import annotations

from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor

from sparselogits.errors import InvalidArgumentError
from sparselogits.torch import head_torch, head_triton
from sparselogits.torch.arguments import check_head, flatten_rows
from sparselogits.torch.autocast import cast_as_linear, without_autocast
from sparselogits.torch.finish import Finish
from sparselogits.torch.head import Head, default_part_columns
from sparselogits.torch.head_entries import logits_at
from sparselogits.torch.reduction import once_differentiable


def linear_lse(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    temperature: float = 1.0,
    softcap: float | None = None,
    part_columns: int | None = None,
) -> Tensor:
    """log Σ_v exp(z_v / T) of logits z = x · weightᵀ + bias, differentiable in all three.

    The one thing of the size of the vocabulary that a loss over sparse targets needs: the rest
    touches K logits a row. The forward pass reads the head tile by tile and keeps one number a row;
    the backward pass computes the logits again, `part_columns` columns at a time. So it costs four
    products of the size of the head where a loss that makes its gradient in the forward pass costs
    three, and in return its memory does not grow with the vocabulary and any function of the lse
    can be differentiated.

    Sums, and the logits themselves, are float32 for narrow inputs, by Triton kernels on a GPU and
    by torch operations elsewhere. In the backward pass the GPU multiplies probabilities that are
    rounded to the dtype of the inputs; sums over parts are float32 and rounded once. Under
    `torch.autocast` the inputs are cast as by `F.linear`; `torch.compile` leaves the graph for it.

    Args:
        x: (B, S, H) or (R, H).
        weight: (V, H).
        bias: (V,) or None.
        temperature: T above.
        softcap: c of z ← c · tanh(z / c), before the temperature; None: no soft-cap.
        part_columns: Columns of the vocabulary whose logits exist at once in the backward pass. By
            default at least 1,024, growing to 32 MiB of them in host memory, 256 MiB on a device.

    Returns:
        (B, S) or (R,), float32 (float64 for float64 inputs), nats.

    Raises:
        InvalidArgumentError: A shape, dtype, device or keyword is wrong.
    """
    x, weight, bias = cast_as_linear(x, weight, bias)
    flat, leading = flatten_rows(x, "x")
    check_head(flat, weight, bias)
    head = Head(weight, bias, Finish(temperature, softcap))
    nowhere = torch.empty(0, dtype=torch.int64, device=x.device)
    lse, _ = lse_and_logits(flat, head, nowhere, nowhere, part_columns)
    return lse.reshape(leading)


def lse_and_logits(
    x: Tensor, head: Head, row: Tensor, token_id: Tensor, part_columns: int | None
) -> tuple[Tensor, Tensor]:
    """The lse of each row and the finished logits of single entries, both differentiable.

    Together, because a gradient that reaches both is the difference W p - w: the backward pass
    takes it in float32 and stores it once, where two gradients would be rounded and then added.

    Args:
        x: (R, H).
        head: Of the same dtype.
        row: (E,) int64, the row of each entry; no row holds an id twice.
        token_id: (E,) int64.
        part_columns: See `linear_lse`.

    Returns:
        (R,) and (E,), in the compute dtype.
    """
    if part_columns is not None and part_columns < 1:
        raise InvalidArgumentError(f"part_columns is {part_columns}; it must be at least 1")
    if torch.compiler.is_compiling():
        from sparselogits.torch import graph_break

        return graph_break.apply_lse_and_logits(x, head, row, token_id, part_columns)
    return apply_lse_and_logits(x, head, row, token_id, part_columns)


def apply_lse_and_logits(
    x: Tensor, head: Head, row: Tensor, token_id: Tensor, part_columns: int | None
) -> tuple[Tensor, Tensor]:
    """What a compiler must not look into of `lse_and_logits`."""
    with without_autocast(x.device):
        lse, logits = _LseAndLogits.apply(  # type: ignore[no-untyped-call]
            x, head.weight, head.bias, head.finish, row, token_id, part_columns
        )
    return lse, logits


def _backend(x: Tensor) -> ModuleType:
    return head_triton if head_triton.takes(x) else head_torch


class _LseAndLogits(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        finish: Finish,
        row: Tensor,
        token_id: Tensor,
        part_columns: int | None,
    ) -> tuple[Tensor, Tensor]:
        lse = cast(Tensor, _backend(x).lse(x, Head(weight, bias, finish)))
        logits = finish(logits_at(x, weight, bias, row, token_id))
        ctx.save_for_backward(x, weight, bias, row, token_id, lse, logits)
        ctx.finish, ctx.part_columns = finish, part_columns
        return lse, logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_lse: Tensor, grad_logits: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, row, token_id, lse, logits = ctx.saved_tensors
        head = Head(weight, bias, ctx.finish)
        at_entries = grad_lse[row] * torch.exp(logits - lse[row]) + grad_logits
        at_entries = at_entries / ctx.finish.temperature
        slope = ctx.finish.cap_slope(logits)
        entries = (row, token_id, at_entries if slope is None else at_entries * slope)
        gradients = _gradients(
            x, head, lse, grad_lse, entries, ctx.part_columns, ctx.needs_input_grad
        )
        return *gradients, None, None, None, None


def _gradients(
    x: Tensor,
    head: Head,
    lse: Tensor,
    grad_lse: Tensor,
    entries: tuple[Tensor, Tensor, Tensor],
    part_columns: int | None,
    wanted: tuple[bool, ...],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of x, weight and bias, part by part of the vocabulary."""
    backend = _backend(x)
    dtype = backend.gradient_dtype(x)
    vocab_size = len(head.weight)
    row, token_id, at_entries = entries
    step = part_columns or default_part_columns(len(x), dtype, x.device)
    step = min(step, vocab_size)
    # One column more, for the entries of other parts: to leave them out would ask the device. It
    # takes the room of several, so that the rows of the products stay aligned.
    tile = torch.empty((len(x), step + 16), dtype=dtype, device=x.device)
    wide_x = x.to(dtype)
    grad_x = torch.zeros_like(x, dtype=lse.dtype) if wanted[0] else None
    grad_weight = torch.empty_like(head.weight) if wanted[1] else None
    grad_bias = torch.empty_like(head.weight[:, 0]) if wanted[2] else None
    for start in range(0, vocab_size, step):
        columns = slice(start, min(start + step, vocab_size))
        part, width = head.narrow(columns), columns.stop - start
        gradient = tile[:, :width]
        backend.softmax_gradient(x, part, lse, grad_lse, gradient)
        place = torch.where((token_id >= start) & (token_id < columns.stop), token_id - start, step)
        tile.index_put_((row, place), at_entries.to(dtype))
        if grad_x is not None:
            grad_x += gradient @ part.weight.to(dtype)
        if grad_weight is not None:
            if grad_weight.dtype == dtype:
                torch.mm(gradient.t(), wide_x, out=grad_weight[columns])
            else:
                grad_weight[columns] = gradient.t() @ wide_x
        if grad_bias is not None:
            grad_bias[columns] = gradient.sum(0, dtype=lse.dtype)
    return None if grad_x is None else grad_x.to(x.dtype), grad_weight, grad_bias
