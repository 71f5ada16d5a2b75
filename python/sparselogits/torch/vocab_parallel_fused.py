"""fused_linear_sparse_kd_loss where every rank has a part of the head's matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from sparselogits.errors import InvalidArgumentError
from sparselogits.torch.arguments import check_head, flatten_rows
from sparselogits.torch.autocast import cast_as_linear, without_autocast
from sparselogits.torch.fused_chunks import choose_chunk_rows, detach_head
from sparselogits.torch.fused_gradients import loss_and_gradients
from sparselogits.torch.reduction import Scaling, finish_gradient, once_differentiable
from sparselogits.torch.row_shard import ShardedColumns
from sparselogits.torch.rows import Rows
from sparselogits.torch.targets import SparseTargets
from sparselogits.torch.terms import make_terms
from sparselogits.torch.vocab_parallel_call import LocalPart, enter


def vocab_parallel_fused_linear_sparse_kd_loss(
    hidden: Tensor,
    local_weight: Tensor,
    targets: SparseTargets,
    vocab_start: int,
    group: dist.ProcessGroup | None = None,
    *,
    local_bias: Tensor | None = None,
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
        mask, position_weights, labels, alpha, softcap, temperature, scale_by_temperature_squared,
            num_items: As in `sparse_kd_loss`; the same on every rank.
        reduction: "mean" or "sum".
        chunk_rows: Rows of logits that exist at once; by default as many as `sparselogits` gives a
            head of the whole vocabulary divided by the ranks.
        reduce_hidden_gradient: False leaves the rank's own part of the gradient of `hidden`, for
            sequence parallelism, where a reduce-scatter follows.
        check_shards: See `vocab_parallel_sparse_kd_loss`; False needs `chunk_rows`.

    Returns:
        A scalar, float32 (float64 for float64 inputs), nats, the same on every rank.

    Raises:
        InvalidArgumentError: On every rank, also when the cause lies with one of them.
        VocabularyMismatchError: The shards have fewer rows than the cache's vocabulary.
    """
    hidden, local_weight, local_bias = cast_as_linear(hidden, local_weight, local_bias)
    inputs = (local_weight, local_bias)
    with_gradient = torch.is_grad_enabled()
    wanted = [with_gradient and t is not None and t.requires_grad for t in (hidden, *inputs)]

    def prepare(width: int) -> LocalPart:
        flat, leading = flatten_rows(hidden, "hidden")
        check_head(flat, *inputs)
        if chunk_rows is None and not check_shards:
            raise InvalidArgumentError("chunk_rows is None; check_shards=False needs it")
        terms = make_terms(
            targets,
            flat,
            "hidden",
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
            reductions=("mean", "sum"),
            num_items=num_items,
        )
        # What ranks must agree on, or they would not make the same collectives.
        options = (chunk_rows, any(wanted), wanted[0], reduce_hidden_gradient)
        rows, scaling = terms.resolve(flat.dtype)
        choose_chunk_rows(chunk_rows, None, len(local_weight), flat)  # refuses a wrong one here
        return LocalPart(flat, "hidden", len(local_weight), rows, scaling, options)

    with without_autocast(hidden.device):
        part, columns, vocab_size = enter(
            prepare, targets, vocab_start, hidden.device, group, check_shards
        )
        mean_columns = max(1, -(-vocab_size // dist.get_world_size(group)))
        chunk = choose_chunk_rows(chunk_rows, None, mean_columns, part.tensor)
        call = _Call(part.rows, part.scaling, columns, chunk, reduce_hidden_gradient)
        if any(wanted):
            loss: Tensor = _VocabParallelFusedLoss.apply(  # type: ignore[no-untyped-call]
                part.tensor, *inputs, call
            )
        else:
            loss = call.run(part.tensor, *inputs, (False, False, False))[0]
    return loss


@dataclass(frozen=True)
class _Call:
    """A call that all ranks agree on."""

    rows: Rows
    scaling: Scaling
    columns: ShardedColumns
    chunk: int
    reduce_hidden_gradient: bool

    def run(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        wanted: tuple[bool, bool, bool],
    ) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
        """The loss, and the wanted gradients up to the factor of the scaling."""
        head = detach_head(hidden, weight, bias)
        loss, grad_hidden, grad_weight, grad_bias = loss_and_gradients(
            head, self.rows, self.scaling, self.chunk, wanted, self.columns.row_losses
        )
        if grad_hidden is not None and self.reduce_hidden_gradient:
            dist.all_reduce(grad_hidden, dist.ReduceOp.SUM, group=self.columns.group)
        return loss, grad_hidden, grad_weight, grad_bias


class _VocabParallelFusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, call: _Call
    ) -> Tensor:
        loss, *gradients = call.run(hidden, weight, bias, ctx.needs_input_grad[:3])
        ctx.scaling, ctx.dtype = call.scaling, hidden.dtype
        ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        factor = ctx.scaling.factor(grad_output)
        stored = ctx.saved_tensors
        finished = [t if t is None else finish_gradient(t, factor, ctx.dtype) for t in stored]
        return *finished, None
