"""A student that two ranks train, each with half of the batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from dense_reference import error, make_targets
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from sparselogits.torch import SparseTargets, fused_linear_sparse_kd_loss

VOCAB, DEPTH, SEQUENCE = 50, 8, 6
FP32 = 2e-6
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
