"""One rank of test_sharded_training.py: runs all cases, prints {case: outcome} as JSON.

python sharded_training_script.py RANK RANKS FILE       (FILE: where the ranks meet)

The ways to compute a loss under DDP and FSDP2 that docs/distributed_training.md describes.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from sharded_students import (
    SEQUENCE,
    VOCAB,
    Batch,
    HeadWithLoss,
    Loss,
    Student,
    StudentWithLoss,
    backward,
    check,
)
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import Partial
from torch.nn.parallel import DistributedDataParallel
from two_ranks import run_rank

from sparselogits.torch import SparseTargets, fused_linear_sparse_kd_loss, sparse_kd_loss
from sparselogits.torch.head_lse_loss import linear_lse_sparse_kd_loss

BFLOAT16 = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)


def ddp_logits(batch: Batch) -> None:
    ddp = DistributedDataParallel(Student())
    loss = sparse_kd_loss(ddp(batch.ids), batch.targets, num_items=batch.num_items)
    check(batch, ddp, backward(loss))


def ddp_loss_in_forward(batch: Batch, loss: Loss) -> None:
    ddp = DistributedDataParallel(StudentWithLoss(loss))
    check(batch, ddp, backward(ddp(batch.ids, batch.targets, batch.num_items)))


def ddp_accumulating_weight_grad(batch: Batch) -> None:
    ddp_loss_in_forward(batch, partial(fused_linear_sparse_kd_loss, accumulate_weight_grad=True))


def fsdp_logits(batch: Batch, inplace: bool) -> None:
    student = Student()
    for module in (student.layer, student.lm_head, student):
        fully_shard(module)
    logits = student(batch.ids)
    loss = sparse_kd_loss(logits, batch.targets, num_items=batch.num_items, inplace=inplace)
    check(batch, student, backward(loss))


def fsdp_loss_in_forward(batch: Batch, loss: Loss) -> None:
    module = StudentWithLoss(loss)
    fully_shard(module.student.layer)
    fully_shard(module)
    check(batch, module, backward(module(batch.ids, batch.targets, batch.num_items)))


def fsdp_loss_in_bfloat16(batch: Batch) -> None:
    module = StudentWithLoss(fused_linear_sparse_kd_loss)
    fully_shard(module.student.layer, mp_policy=BFLOAT16)
    fully_shard(module, mp_policy=dataclasses.replace(BFLOAT16, cast_forward_inputs=False))
    loss = backward(module(batch.ids, batch.targets, batch.num_items))
    assert loss.dtype == torch.float32
    check(batch, module, loss, tolerance=2**-5)


def fsdp_registered_method(batch: Batch, loss: Loss) -> None:
    student = Student()
    fully_shard(student.layer)
    fully_shard(student)
    register_fsdp_forward_method(student, "loss")
    value = student.loss(loss, batch.ids, batch.targets, batch.num_items)
    check(batch, student, backward(value))


def fsdp_head_with_loss(batch: Batch, loss: Loss) -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student = Student()
            self.head = HeadWithLoss(self.student.lm_head, loss)
            del self.student.lm_head

        def forward(self, batch: Batch) -> Tensor:
            hidden = self.student.hidden(batch.ids)
            value: Tensor = self.head(hidden, batch.targets, batch.num_items)
            return value

    root = Root()
    fully_shard(root.head, reshard_after_forward=True)
    fully_shard(root)
    check(batch, root, backward(root(batch)))


def fsdp_full_tensor(batch: Batch, loss: Loss) -> None:
    student = Student()
    student.forward = student.hidden  # type: ignore[method-assign]
    for module in (student.lm_head, student):
        fully_shard(module)
    weight: Any = student.lm_head.weight
    gathered = weight.full_tensor(grad_placements=[Partial("avg")])
    hidden = student(batch.ids)
    value = loss(hidden, gathered, batch.targets, num_items=batch.num_items)
    check(batch, student, backward(value))


def fsdp_summing(batch: Batch) -> None:
    """Without the factor, where FSDP is told to add up."""
    module = StudentWithLoss(fused_linear_sparse_kd_loss)
    fully_shard(module)
    module.set_gradient_divide_factor(1.0)  # type: ignore[operator]
    module.set_force_sum_reduction_for_comms(True)  # type: ignore[operator]  # gloo has no other
    loss = module(batch.ids, batch.targets, batch.num_items)
    loss.backward()
    check(batch, module, loss)


def fsdp_accumulating_batches(batch: Batch) -> None:
    """Two micro-batches of half a window, of which only the last communicates."""
    module = StudentWithLoss(fused_linear_sparse_kd_loss)
    fully_shard(module)
    half, targets = SEQUENCE // 2, batch.targets
    first = int(targets.offsets[half])
    parts = [
        SparseTargets(
            targets.offsets[: half + 1], targets.token_ids[:first], targets.weights[:first], VOCAB
        ),
        SparseTargets(
            targets.offsets[half:] - first,
            targets.token_ids[first:],
            targets.weights[first:],
            VOCAB,
        ),
    ]
    total = torch.zeros(())
    for number, part in enumerate(parts):
        module.set_requires_gradient_sync(number == 1)  # type: ignore[operator]
        ids = batch.ids[:, number * half : (number + 1) * half]
        total += backward(module(ids, part, batch.num_items)).detach()
    check(batch, module, total)


def fsdp_sharded_weight(batch: Batch, loss: Loss) -> None:
    """In the root's forward, but the head is sharded by itself."""
    module = StudentWithLoss(loss)
    fully_shard(module.student.lm_head)
    fully_shard(module)
    module(batch.ids, batch.targets, batch.num_items)


def fsdp_cast_targets(batch: Batch) -> None:
    """The default of FSDP2 is to cast what comes into a forward, and all that is inside it."""
    module = StudentWithLoss(fused_linear_sparse_kd_loss)
    fully_shard(module, mp_policy=BFLOAT16)
    module(batch.ids, batch.targets, batch.num_items)


def cases() -> dict[str, Callable[[Batch], None]]:
    losses: dict[str, Loss] = {
        "fused": fused_linear_sparse_kd_loss,
        "lse": linear_lse_sparse_kd_loss,
    }
    found: dict[str, Callable[[Batch], None]] = {
        f"{run.__name__}, {name}": partial(run, loss=loss)
        for run in (
            ddp_loss_in_forward,
            fsdp_loss_in_forward,
            fsdp_registered_method,
            fsdp_head_with_loss,
            fsdp_full_tensor,
            fsdp_sharded_weight,
        )
        for name, loss in losses.items()
    }
    for inplace in (False, True):
        found[f"fsdp_logits, inplace={inplace}"] = partial(fsdp_logits, inplace=inplace)
    plain = (
        ddp_logits,
        ddp_accumulating_weight_grad,
        fsdp_loss_in_bfloat16,
        fsdp_cast_targets,
        fsdp_summing,
        fsdp_accumulating_batches,
    )
    return found | {run.__name__: run for run in plain}


def on_a_batch(rank: int) -> dict[str, Callable[[], None]]:
    batch = Batch(rank)
    return {name: partial(run, batch) for name, run in cases().items()}


if __name__ == "__main__":
    # FSDP2 on the view that a linear layer returns of its flat result: it warns of operations in
    # place behind autograd's back, which `inplace` is not.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    run_rank(on_a_batch)
