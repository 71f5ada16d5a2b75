"""sparse_kd_loss where every rank has the logits of a part of the vocabulary."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from sparselogits.torch import buffers
from sparselogits.torch.arguments import flatten_rows
from sparselogits.torch.autocast import without_autocast
from sparselogits.torch.losses import check_inplace
from sparselogits.torch.reduction import Scaling, finish_gradient, once_differentiable
from sparselogits.torch.row_shard import ShardedColumns
from sparselogits.torch.rows import Rows
from sparselogits.torch.targets import SparseTargets
from sparselogits.torch.terms import make_terms
from sparselogits.torch.vocab_parallel_call import LocalPart, enter


def vocab_parallel_sparse_kd_loss(
    local_logits: Tensor,
    targets: SparseTargets,
    vocab_start: int,
    group: dist.ProcessGroup | None = None,
    *,
    mask: Tensor | None = None,
    position_weights: Tensor | None = None,
    labels: Tensor | None = None,
    alpha: float = 0.0,
    softcap: float | None = None,
    temperature: float = 1.0,
    scale_by_temperature_squared: bool = False,
    reduction: str = "mean",
    num_items: float | Tensor | None = None,
    inplace: bool = False,
    check_shards: bool = True,
) -> Tensor:
    """`sparse_kd_loss` of whole rows; every rank gets the loss, and the gradient of its columns.

    A collective: all ranks of the group call it with the same targets and keywords. Three numbers
    a row cross between them: the maximum, then the sums of exponentials and of Σ_k w_k z_k, to
    which each rank adds the entries it has. The logits do not, and the backward pass is local.

    The result is that of a head whose output is sharded, as Megatron's: call backward on every
    rank, on the loss as it is (not divided by the ranks). Where the hidden states are replicated,
    their gradient is the sum over the ranks, which the head's own backward has to make (Megatron:
    `copy_to_tensor_model_parallel_region` before it).

    Args:
        local_logits: (B, S, columns) or (R, columns): the columns `vocab_start` and after.
        targets: R = B·S whole rows, the same on every rank.
        vocab_start: Token id of the first column.
        group: The process group; None: the default one. Its shards make up the vocabulary without
            gaps and overlaps, in any order and of any sizes.
        mask, position_weights, labels, alpha, softcap, temperature, scale_by_temperature_squared,
            reduction, num_items, inplace: As in `sparse_kd_loss`; the same on every rank.
        check_shards: Compare the ranks' shards, targets and keywords first, which costs a small
            all-gather and a wait for the device. With False, in steps after the first, ranks that
            differ give wrong numbers or wait for each other for ever.

    Returns:
        float32 (float64 for float64 logits), nats, the same on every rank.

    Raises:
        InvalidArgumentError: On every rank, also when the cause lies with one of them.
        VocabularyMismatchError: The shards have fewer columns than the cache's vocabulary.
    """

    def prepare(width: int) -> LocalPart:
        flat, leading = flatten_rows(local_logits, "local_logits")
        if inplace and with_gradient:
            check_inplace(local_logits)
        terms = make_terms(
            targets,
            flat,
            "local_logits",
            leading,
            width,
            mask=mask,
            position_weights=position_weights,
            labels=labels,
            alpha=alpha,
            softcap=softcap,
            temperature=temperature,
            scale_by_temperature_squared=scale_by_temperature_squared,
            reduction=reduction,
            reductions=("mean", "sum", "none"),
            num_items=num_items,
        )
        return LocalPart(flat, "local_logits", flat.shape[1], *terms.resolve(flat.dtype), ())

    with_gradient = torch.is_grad_enabled() and local_logits.requires_grad
    device = local_logits.device
    with without_autocast(device):
        part, columns, _ = enter(prepare, targets, vocab_start, device, group, check_shards)
        if with_gradient:
            loss: Tensor = _VocabParallelLoss.apply(  # type: ignore[no-untyped-call]
                part.tensor, part.rows, part.scaling, columns, inplace
            )
        else:
            logits, scale = part.tensor.detach(), part.scaling.gradient_scale
            losses = columns.row_losses(logits, part.rows, part.scaling, scale, None)
            loss = part.scaling.reduce(losses)
    return loss.reshape(local_logits.shape[:-1]) if reduction == "none" else loss


class _VocabParallelLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        rows: Rows,
        scaling: Scaling,
        columns: ShardedColumns,
        inplace: bool,
    ) -> Tensor:
        # A detached alias: whoever saved these logits notices the overwriting and refuses.
        logits = logits.detach()
        gradient = logits if inplace else buffers.empty(tuple(logits.shape), logits)
        losses = columns.row_losses(logits, rows, scaling, scaling.gradient_scale, gradient)
        ctx.scaling = scaling
        ctx.save_for_backward(gradient)
        return scaling.reduce(losses)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        factor = ctx.scaling.factor(grad_output)
        return finish_gradient(gradient, factor, gradient.dtype), None, None, None, None
