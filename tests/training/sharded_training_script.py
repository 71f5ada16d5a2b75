"""One rank of test_sharded_training.py: runs all cases, prints {case: outcome} as JSON.

python sharded_training_script.py RANK RANKS FILE       (FILE: where the ranks meet)

A student of embedding, layer and head under DDP and FSDP2, in the ways that
docs/distributed_training.md describes. Each rank has half of the batch.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from dense_reference import error, make_targets
from torch import Tensor, nn
from torch.distributed.fsdp import (
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, Partial
from torch.nn.parallel import DistributedDataParallel

from sparselogits.errors import InvalidArgumentError
from sparselogits.torch import SparseTargets, fused_linear_sparse_kd_loss, sparse_kd_loss
from sparselogits.torch.head_lse_loss import linear_lse_sparse_kd_loss

VOCAB, DEPTH, SEQUENCE = 50, 8, 6
FP32 = 2e-6
BFLOAT16 = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
Loss = Callable[..., Tensor]


class Student(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(VOCAB, DEPTH)
        self.layer = nn.Linear(DEPTH, DEPTH)
        self.lm_head = nn.Linear(DEPTH, VOCAB, bias=False)

    def hidden(self, ids: Tensor) -> Tensor:
        return torch.tanh(self.layer(self.embedding(ids)))

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.lm_head(self.hidden(ids))
        return logits

    def loss(self, loss: Loss, ids: Tensor, targets: SparseTargets, num_items: Tensor) -> Tensor:
        return loss(self.hidden(ids), self.lm_head.weight, targets, num_items=num_items)


class StudentWithLoss(nn.Module):
    """The loss is in the forward of the module that is wrapped."""

    def __init__(self, loss: Loss) -> None:
        super().__init__()
        self.student = Student()
        self.loss = loss

    def forward(self, ids: Tensor, targets: SparseTargets, num_items: Tensor) -> Tensor:
        return self.student.loss(self.loss, ids, targets, num_items)


class HeadWithLoss(nn.Module):
    """A head that is sharded by itself, and released between the passes."""

    def __init__(self, head: nn.Linear, loss: Loss) -> None:
        super().__init__()
        self.weight, self.loss = head.weight, loss

    def forward(self, hidden: Tensor, targets: SparseTargets, num_items: Tensor) -> Tensor:
        return self.loss(hidden, self.weight, targets, num_items=num_items)


class Batch:
    """Of 2 windows, the one that is this rank's; unequal numbers of rows are empty."""

    def __init__(self, rank: int) -> None:
        ids, targets = (
            torch.arange(2 * SEQUENCE).view(2, SEQUENCE),
            make_targets(2 * SEQUENCE, VOCAB, seed=5),
        )
        start = rank * SEQUENCE
        first, last = targets.offsets[start], targets.offsets[start + SEQUENCE]
        self.ids = ids[rank : rank + 1]
        self.targets = SparseTargets(
            targets.offsets[start : start + SEQUENCE + 1] - first,
            targets.token_ids[first:last],
            targets.weights[first:last],
            VOCAB,
        )
        self.num_items = (self.targets.offsets.diff() > 0).sum()
        dist.all_reduce(self.num_items)
        student = Student().double()
        hidden, weight = student.hidden(ids), student.lm_head.weight
        self.whole_loss = fused_linear_sparse_kd_loss(hidden, weight, targets)
        self.whole_loss.backward()
        self.gradients = [p.grad for p in student.parameters() if p.grad is not None]


def check(batch: Batch, module: nn.Module, loss: Tensor, tolerance: float = FP32) -> None:
    """The ranks' losses add up to that of the whole batch; the gradients are those of it."""
    total = loss.detach().clone()
    dist.all_reduce(total)
    difference = error(total, batch.whole_loss.detach())
    assert difference < tolerance, difference
    for parameter, wanted in zip(module.parameters(), batch.gradients, strict=True):
        gradient = parameter.grad
        assert gradient is not None
        whole = gradient.full_tensor() if isinstance(gradient, DTensor) else gradient
        difference = error(whole, wanted)
        assert difference < tolerance, difference


def backward(loss: Tensor) -> Tensor:
    """DDP and FSDP take the mean over the ranks of gradients that are to be added up."""
    (loss * dist.get_world_size()).backward()
    return loss


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


def cases(rank: int) -> dict[str, Callable[[Batch], None]]:
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


def outcome(run: Callable[[Batch], None], batch: Batch) -> str:
    try:
        run(batch)
    except (AssertionError, InvalidArgumentError) as error:
        return f"{type(error).__name__}: {error}"
    return "equal"


def main() -> None:
    rank, ranks = int(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    # FSDP2 on the view that a linear layer returns of its flat result: it warns of operations in
    # place behind autograd's back, which `inplace` is not.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    dist.init_process_group(
        "gloo",
        init_method=f"file://{sys.argv[3]}",
        rank=rank,
        world_size=ranks,
        timeout=datetime.timedelta(seconds=60),
    )
    batch = Batch(rank)
    print(json.dumps({name: outcome(run, batch) for name, run in cases(rank).items()}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
