"""The losses as operators, which `torch.compile` sees as one node each.

Dynamo cannot trace them: they look at values, work in blocks and write into their own buffers. As
operators they run as they do outside of a graph. Each returns its gradients beside the loss, and
the graph's backward pass only scales these; a gradient that nobody wants is empty.

`targets` are the three tensors of SparseTargets, its vocabulary and its offsets in host memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sparselogits.torch import buffers
from sparselogits.torch.autocast import without_autocast
from sparselogits.torch.fused_chunks import detach_head, run_chunks
from sparselogits.torch.fused_gradients import loss_and_gradients
from sparselogits.torch.row_pass import row_losses
from sparselogits.torch.rows import compute_dtype
from sparselogits.torch.targets import SparseTargets
from sparselogits.torch.terms import Terms

_TERMS = (
    "Tensor offsets, Tensor token_ids, Tensor weights, int? vocab_size, Tensor? host_offsets, "
    "int width, Tensor? mask, Tensor? position_weights, Tensor? labels, Tensor? num_items, "
    "float alpha, float temperature, bool scale_by_temperature_squared, str reduction, "
    "float? softcap"
)


def logits_loss(logits: Tensor, terms: Terms, wanted: bool) -> Tensor:
    """The loss of logits (R, V); `wanted`: whether they get a gradient."""
    loss: Tensor = sparse_kd_loss(logits, *_pack(terms), wanted)[0]
    return loss


def head_loss(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    terms: Terms,
    chunk: int,
    wanted: Sequence[bool],
) -> Tensor:
    """The reduced loss of a head; `wanted`: whether hidden, weight and bias get a gradient."""
    arguments = (*_pack(terms), chunk, *wanted)
    loss: Tensor = fused_linear_sparse_kd_loss(hidden, weight, bias, *arguments)[0]
    return loss


def _pack(terms: Terms) -> tuple[Any, ...]:
    """Terms as the arguments `_TERMS` of an operator."""
    targets = terms.targets
    num_items = terms.num_items
    if num_items is not None and not isinstance(num_items, Tensor):
        num_items = torch.tensor(float(num_items), dtype=torch.float64)
    return (
        targets.offsets,
        targets.token_ids,
        targets.weights,
        targets.vocab_size,
        targets._host_offsets,
        terms.width,
        terms.mask,
        terms.position_weights,
        terms.labels,
        num_items,
        terms.alpha,
        float(terms.temperature),
        terms.scale_by_temperature_squared,
        terms.reduction,
        None if terms.softcap is None else float(terms.softcap),
    )


def _unpack(
    offsets: Tensor,
    token_ids: Tensor,
    weights: Tensor,
    vocab_size: int | None,
    host_offsets: Tensor | None,
    *rest: Any,
) -> Terms:
    """The terms that `_pack` packed."""
    targets = SparseTargets.with_host_offsets(offsets, token_ids, weights, vocab_size, host_offsets)
    return Terms(targets, *rest)


@torch.library.custom_op(
    "sparselogits::sparse_kd_loss",
    mutates_args=(),
    schema=f"(Tensor logits, {_TERMS}, bool wanted) -> (Tensor, Tensor, Tensor)",
)
def sparse_kd_loss(logits: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of logits (R, V), its gradient, and what the backward pass still divides by."""
    *packed, wanted = arguments
    with without_autocast(logits.device):
        rows, scaling = _unpack(*packed).resolve(logits.dtype)
        gradient = buffers.empty(tuple(logits.shape), logits) if wanted else None
        losses = row_losses(logits.detach(), rows, scaling, scaling.gradient_scale, gradient)
        return (
            scaling.reduce(losses),
            logits.new_empty(0) if gradient is None else gradient,
            scaling.factor(torch.ones_like(scaling.inverse_count)),
        )


@sparse_kd_loss.register_fake
def _(logits: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *packed, wanted = arguments
    compute = compute_dtype(logits.dtype)
    shape = logits.shape[:1] if _reduction(packed) == "none" else ()
    return (
        logits.new_empty(shape, dtype=compute),
        logits.new_empty(logits.shape if wanted else 0),
        logits.new_empty((), dtype=compute),
    )


def _reduction(packed: list[Any]) -> str:
    return str(packed[-2])


def _save_gradient(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, *stored = output
    ctx.mark_non_differentiable(*stored)
    ctx.save_for_backward(*stored)
    ctx.num_inputs = len(inputs)
    ctx.dtype = inputs[0].dtype


def _scale_gradient(ctx: Any, grad_output: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    *stored, rest = ctx.saved_tensors
    factor = grad_output * rest
    scaled = [
        # A factor with dimensions keeps its float32 precision against a narrow gradient.
        (t.to(factor.dtype) * factor.reshape(-1, *[1] * (t.dim() - 1))).to(ctx.dtype)
        if t.numel()
        else None
        for t in stored
    ]
    return *scaled, *[None] * (ctx.num_inputs - len(scaled))


sparse_kd_loss.register_autograd(_scale_gradient, setup_context=_save_gradient)


@torch.library.custom_op(
    "sparselogits::fused_linear_sparse_kd_loss",
    mutates_args=(),
    schema=(
        f"(Tensor hidden, Tensor weight, Tensor? bias, {_TERMS}, int chunk, bool wants_hidden, "
        "bool wants_weight, bool wants_bias) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
    ),
)
def fused_linear_sparse_kd_loss(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, *arguments: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The loss of a head, the gradients of its three inputs, and what is still divided by."""
    *packed, chunk, wants_hidden, wants_weight, wants_bias = arguments
    with without_autocast(hidden.device):
        rows, scaling = _unpack(*packed).resolve(hidden.dtype)
        head = detach_head(hidden, weight, bias)
        wanted = (wants_hidden, wants_weight, wants_bias)
        if any(wanted):
            loss, *gradients = loss_and_gradients(head, rows, scaling, chunk, wanted)
        else:
            losses, _ = run_chunks(head, rows, scaling, scaling.gradient_scale, chunk, None)
            loss, gradients = scaling.reduce(losses), [None, None, None]
        grad_hidden, grad_weight, grad_bias = (
            hidden.new_empty(0) if gradient is None else gradient.contiguous()
            for gradient in gradients
        )
        rest = scaling.factor(torch.ones_like(scaling.inverse_count))
        return loss, grad_hidden, grad_weight, grad_bias, rest


@fused_linear_sparse_kd_loss.register_fake
def _(hidden: Tensor, weight: Tensor, bias: Tensor | None, *arguments: Any) -> tuple[Tensor, ...]:
    *_, wants_hidden, wants_weight, wants_bias = arguments
    compute = compute_dtype(hidden.dtype)
    # See Scaling.defer_count.
    wide = compute if hidden.dtype == torch.float16 else hidden.dtype
    return (
        hidden.new_empty((), dtype=compute),
        hidden.new_empty(hidden.shape if wants_hidden else 0),
        hidden.new_empty(weight.shape, dtype=wide) if wants_weight else hidden.new_empty(0),
        hidden.new_empty(weight.shape[0], dtype=wide) if wants_bias else hidden.new_empty(0),
        hidden.new_empty((), dtype=compute),
    )


fused_linear_sparse_kd_loss.register_autograd(_scale_gradient, setup_context=_save_gradient)
