"""fused_linear_sparse_kd_loss where every rank has a part of the head's matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from sparselogits.errors import InvalidArgumentError
from sparselogits.torch.fused import (
    _autocast,
    _check_head,
    _linear,
    _WeightGradient,
    default_chunk_rows,
)
from sparselogits.torch.losses import flatten_mask, flatten_rows
from sparselogits.torch.reduction import Scaling, finish_gradient, make_scaling, once_differentiable
from sparselogits.torch.row_shard import ShardedColumns
from sparselogits.torch.rows import Rows, compute_dtype, unfold
from sparselogits.torch.targets import SparseTargets
from sparselogits.torch.vocab_parallel_call import LocalPart, check_rows, enter


def vocab_parallel_fused_linear_sparse_kd_loss(
    hidden: Tensor,
    local_weight: Tensor,
    targets: SparseTargets,
    vocab_start: int,
    group: dist.ProcessGroup | None = None,
    *,
    local_bias: Tensor | None = None,
    mask: Tensor | None = None,
    temperature: float = 1.0,
    scale_by_temperature_squared: bool = False,
    reduction: str = "mean",
    num_items: float | Tensor | None = None,
    chunk_rows: int | None = None,
    reduce_hidden_gradient: bool = True,
    check_shards: bool = True,
) -> Tensor:
    """`fused_linear_sparse_kd_loss` of a head whose matrix is sharded by rows, as Megatron's.

    A collective, in which every rank has the same hidden states. The gradient of the local matrix
    and bias is complete without communication. That of the hidden states is a sum over the ranks,
    made here: do not put `copy_to_tensor_model_parallel_region` before this loss as well. Call
    backward on every rank, on the loss as it is (not divided by the ranks).

    Args:
        hidden: (B, S, H) or (R, H), the same on every rank.
        local_weight: (columns, H): the rows `vocab_start` and after of the head's matrix.
        targets: R = B·S rows, the same on every rank.
        vocab_start: Token id of the first row of `local_weight`.
        group: See `vocab_parallel_sparse_kd_loss`.
        local_bias: (columns,) or None.
        mask: As in `fused_linear_sparse_kd_loss`, as are the keywords after it; the same on every
            rank.
        temperature: See `fused_linear_sparse_kd_loss`.
        scale_by_temperature_squared: See `fused_linear_sparse_kd_loss`.
        reduction: "mean" or "sum".
        num_items: See `fused_linear_sparse_kd_loss`.
        chunk_rows: Rows of logits that exist at once; by default what the whole vocabulary divided
            by the ranks would be given.
        reduce_hidden_gradient: False leaves the rank's own part of the gradient of `hidden`, for
            sequence parallelism, where a reduce-scatter follows.
        check_shards: See `vocab_parallel_sparse_kd_loss`; False needs `chunk_rows`.

    Returns:
        A scalar, float32 (float64 for float64 inputs), nats, the same on every rank.

    Raises:
        InvalidArgumentError: On every rank, also when the cause lies with one of them.
        VocabularyMismatchError: The shards have fewer rows than the cache's vocabulary.
    """
    hidden, local_weight, local_bias = _autocast(hidden, local_weight, local_bias)
    with_gradient = torch.is_grad_enabled()
    wanted = tuple(
        with_gradient and t is not None and t.requires_grad
        for t in (hidden, local_weight, local_bias)
    )

    def prepare() -> LocalPart:
        flat, leading = flatten_rows(hidden, "hidden")
        check_rows(flat, "hidden", targets, vocab_start)
        _check_head(flat, local_weight, local_bias)
        if chunk_rows is None and not check_shards:
            raise InvalidArgumentError("chunk_rows is None; check_shards=False needs it")
        if chunk_rows is not None and chunk_rows < 1:
            raise InvalidArgumentError(f"chunk_rows is {chunk_rows}; it must be at least 1")
        dtype = compute_dtype(flat.dtype)
        rows = unfold(targets, flatten_mask(mask, leading, flat.device), dtype)
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
        options = (chunk_rows, wanted[0], reduce_hidden_gradient)
        return LocalPart(flat, "hidden", len(local_weight), rows, scaling, options)

    with torch.autocast(hidden.device.type, enabled=False):
        part, columns, vocab_size = enter(
            prepare, targets, vocab_start, hidden.device, group, check_shards
        )
        ranks = dist.get_world_size(group)
        chunk = chunk_rows or default_chunk_rows(
            -(-vocab_size // ranks), hidden.dtype, hidden.device
        )
        run = _Run(part.rows, part.scaling, columns, chunk, reduce_hidden_gradient)
        if any(wanted):
            loss: Tensor = _VocabParallelFusedLoss.apply(  # type: ignore[no-untyped-call]
                part.tensor, local_weight, local_bias, run
            )
        else:
            loss, _ = run(part.tensor, local_weight, local_bias, (False, False, False))
    return loss


@dataclass(frozen=True)
class _Run:
    """The loss and its gradients, chunk by chunk of rows, which are the same on every rank."""

    rows: Rows
    scaling: Scaling
    columns: ShardedColumns
    chunk: int
    reduce_hidden_gradient: bool

    def __call__(
        self, hidden: Tensor, weight: Tensor, bias: Tensor | None, wanted: tuple[bool, ...]
    ) -> tuple[Tensor, list[Tensor | None]]:
        """The reduced loss; gradients of the wanted inputs up to the factor of the scaling."""
        # 0 · NaN is NaN: an ignored row must not reach the gradient of the weight.
        x = hidden.detach().masked_fill(~self.rows.keep[:, None], 0)
        weight = weight.detach()
        scaling, dtype, num_rows = self.scaling, self.rows.total.dtype, len(x)
        chunk = max(1, min(self.chunk, num_rows))
        logits = x.new_empty((chunk, len(weight)))
        losses = torch.zeros_like(self.rows.total)
        grad_hidden = torch.empty_like(x) if wanted[0] else None
        grad_weight = _WeightGradient(weight, dtype, num_rows > chunk) if wanted[1] else None
        grad_bias = losses.new_zeros(len(weight)) if wanted[2] else None
        for start in range(0, num_rows, chunk):
            part = slice(start, min(start + chunk, num_rows))
            z = logits[: part.stop - start]
            _linear(x[part], weight, bias, z)
            losses[part] = self.columns.loss_and_gradient(
                z,
                self.rows.narrow(start, part.stop),
                scaling.temperature,
                scaling.loss_scale,
                scaling.gradient_scale,
                z if any(wanted) else None,
            )
            if grad_hidden is not None:
                torch.mm(z, weight, out=grad_hidden[part])
            if grad_weight is not None:
                grad_weight.add(z, x[part])
            if grad_bias is not None:
                grad_bias += z.sum(0, dtype=dtype)
        if grad_hidden is not None and self.reduce_hidden_gradient:
            dist.all_reduce(grad_hidden, dist.ReduceOp.SUM, group=self.columns.group)
        wide_weight = None if grad_weight is None else grad_weight.result(scaling.defer_count)
        return scaling.reduce(losses), [grad_hidden, wide_weight, grad_bias]


class _VocabParallelFusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, run: _Run) -> Tensor:
        loss, gradients = run(hidden, weight, bias, ctx.needs_input_grad[:3])
        ctx.scaling, ctx.dtype = run.scaling, hidden.dtype
        ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        factor = ctx.scaling.factor(grad_output)
        stored = ctx.saved_tensors
        finished = [t if t is None else finish_gradient(t, factor, ctx.dtype) for t in stored]
        return *finished, None
