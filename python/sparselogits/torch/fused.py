"""fused_linear_sparse_kd_loss: the output head and the loss together, a few rows at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from sparselogits.torch import operators
from sparselogits.torch.arguments import check_head, flatten_rows
from sparselogits.torch.autocast import cast_as_linear, without_autocast
from sparselogits.torch.fused_chunks import choose_chunk_rows, detach_head, run_chunks
from sparselogits.torch.fused_gradients import FusedLinearSparseKDLoss
from sparselogits.torch.fused_recompute import accumulating_loss
from sparselogits.torch.targets import SparseTargets
from sparselogits.torch.terms import make_terms


def fused_linear_sparse_kd_loss(
    hidden: Tensor,
    weight: Tensor,
    targets: SparseTargets,
    *,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    position_weights: Tensor | None = None,
    labels: Tensor | None = None,
    alpha: float = 0.0,
    softcap: float | None = None,
    temperature: float = 1.0,
    scale_by_temperature_squared: bool = False,
    reduction: str = "mean",
    num_items: float | Tensor | None = None,
    chunk_rows: int | None = None,
    chunk_bytes: int | None = None,
    accumulate_weight_grad: bool = False,
) -> Tensor:
    """`sparse_kd_loss(linear(hidden, weight, bias), targets)` without ever building those logits.

    The logits exist `chunk_rows` rows at a time. Their gradient is turned into the gradients of
    `hidden`, `weight` and `bias` in the forward pass, and the backward pass only scales these, so
    that three matrix products are all there is. Inputs that need no gradient are given none.

    Precision: the products take the dtype of their inputs and accumulate in float32 inside; the
    logits of a chunk are then reduced in float32 as in `sparse_kd_loss`. Sums over chunks are kept
    in float32 and rounded once. Under `torch.autocast` the inputs are cast as by `F.linear`.

    Activation checkpointing may wrap this, for instance together with the last layers. Under
    `torch.compile` this is one operator of the graph, `fullgraph=True` included.

    Args:
        hidden: (B, S, H) or (R, H), the input of the student's output head.
        weight: (V, H), the head's matrix; V may exceed the cache's vocabulary.
        targets: R = B·S rows, on the same device. The logits of an ignored row are not computed in
            host memory, and count for nothing on a device.
        bias: (V,) or None.
        mask, position_weights, labels, alpha, softcap, temperature, scale_by_temperature_squared,
            num_items: As in `sparse_kd_loss`.
        reduction: "mean" or "sum".
        chunk_rows: Rows of logits that exist at once. By default 256 to 512 in host memory, and at
            least 1,024 on a device, growing to 512 MiB of logits.
        chunk_bytes: Instead of `chunk_rows`: as many rows as these bytes of logits hold, at least
            one. A quarter of the default and less costs time: each chunk reads the weight twice
            and its gradient once.
        accumulate_weight_grad: Let the backward pass add to `weight.grad` and `bias.grad` itself,
            chunk by chunk, instead of returning gradients that autograd adds. This spares the
            (V, H) buffer that gradient accumulation otherwise needs beside `weight.grad`, and costs
            time: the factor on the loss is known only in the backward pass, which computes the
            logits again (four matrix products instead of three). A missing `.grad` is made. One of
            another dtype than the products (float32 under autocast, or `Tensor.grad_dtype`) is
            added to in its own; a narrow one is rounded once a chunk. `weight` and `bias` must be
            leaves without hooks: those would not see these gradients. What waits for a parameter's
            accumulation without being such a hook, as DistributedDataParallel does, finds the
            complete `.grad`. `torch.autograd.grad` for the weight is refused. Under `torch.compile`
            this breaks the graph. No effect without gradients.

    Returns:
        A scalar, float32 (float64 for float64 inputs), nats.

    Raises:
        InvalidArgumentError: A shape, dtype, device or keyword is wrong. Values are checked in host
            memory only.
        VocabularyMismatchError: The head has fewer rows than the cache's vocabulary, or than a
            label needs.
    """
    parameters = (weight, bias)
    hidden, weight, bias = cast_as_linear(hidden, weight, bias)
    flat, leading = flatten_rows(hidden, "hidden")
    check_head(flat, weight, bias)
    terms = make_terms(
        targets,
        flat,
        "hidden",
        leading,
        weight.shape[0],
        mask=mask,
        position_weights=position_weights,
        labels=labels,
        alpha=alpha,
        softcap=softcap,
        temperature=temperature,
        scale_by_temperature_squared=scale_by_temperature_squared,
        reduction=reduction,
        reductions=("mean", "sum"),
        num_items=num_items,
    )
    chunk = choose_chunk_rows(chunk_rows, chunk_bytes, weight.shape[0], flat)
    inputs: tuple[Tensor, Tensor, Tensor | None] = (flat, weight, bias)
    wanted = [
        torch.is_grad_enabled() and tensor is not None and tensor.requires_grad for tensor in inputs
    ]
    if any(wanted) and accumulate_weight_grad:
        if torch.compiler.is_compiling():
            from sparselogits.torch import graph_break

            return graph_break.accumulating_loss(flat, *parameters, terms, chunk)
        return accumulating_loss(flat, *parameters, terms, chunk)
    if torch.compiler.is_compiling():
        return operators.head_loss(*inputs, terms, chunk, wanted)
    with without_autocast(hidden.device):
        rows, scaling = terms.resolve(flat.dtype)
        if any(wanted):
            loss: Tensor = FusedLinearSparseKDLoss.apply(  # type: ignore[no-untyped-call]
                *inputs, rows, scaling, chunk
            )
            return loss
        losses, _ = run_chunks(
            detach_head(*inputs), rows, scaling, scaling.gradient_scale, chunk, None
        )
        return scaling.reduce(losses)
