"""What is timed: our losses, and the ways in which the same gradient is computed elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sparselogits.torch import SparseTargets, fused_linear_sparse_kd_loss, sparse_kd_loss

Loss = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Form:
    """A loss of one tensor, and the limits that it promises to keep, as ratios to its group."""

    loss: Loss
    time_limit: float | None = None
    memory_limit: float | None = None


Forms = dict[str, Form]


def make_targets(rows: int, vocab: int, entries: int) -> SparseTargets:
    """Rows of `entries` distinct ids with weights that sum to one."""
    ids = torch.stack([torch.randperm(vocab)[:entries].sort().values for _ in range(rows)])
    weights = torch.rand(rows, entries).softmax(-1)
    offsets = torch.arange(0, rows * entries + 1, entries)
    return SparseTargets(offsets, ids.flatten(), weights.flatten(), vocab)


def gather(values: Tensor, targets: SparseTargets) -> tuple[Tensor, Tensor]:
    """Values at the entries and their weights, (R, entries)."""
    entries = targets.num_entries // targets.num_rows
    return values.gather(1, targets.token_ids.view(-1, entries)), targets.weights.view(-1, entries)


def log_softmax_gather(logits: Tensor, targets: SparseTargets) -> Tensor:
    """The same loss as most libraries ship it."""
    picked, weights = gather(F.log_softmax(logits, -1), targets)
    return -(weights * picked).sum(-1).mean()


def logsumexp_gather(logits: Tensor, targets: SparseTargets) -> Tensor:
    """The same loss without a vector of log-probabilities."""
    picked, weights = gather(logits, targets)
    return (weights.sum(-1) * logits.logsumexp(-1) - (weights * picked).sum(-1)).mean()


def dense_kl(logits: Tensor, targets: SparseTargets) -> Tensor:
    """The same gradient through a dense target."""
    entries = targets.num_entries // targets.num_rows
    dense = torch.zeros_like(logits)
    dense.scatter_(1, targets.token_ids.view(-1, entries), targets.weights.view(-1, entries))
    return F.kl_div(F.log_softmax(logits, -1), dense, reduction="batchmean")


def full_kd(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Distillation from all of the teacher's logits, which somebody else has computed."""
    log_q = F.log_softmax(teacher_logits, -1)
    return F.kl_div(F.log_softmax(logits, -1), log_q, reduction="batchmean", log_target=True)


def logit_forms(labels: Tensor, targets: SparseTargets, teacher_logits: Tensor) -> Forms:
    """Losses of given logits; the first is what the others are compared with."""
    mixed = {"labels": labels, "alpha": 0.5, "position_weights": torch.rand(len(labels))}
    return {
        "F.cross_entropy": Form(lambda z: F.cross_entropy(z, labels)),
        "sparse_kd_loss": Form(lambda z: sparse_kd_loss(z, targets), 0.60, 0.34),
        "sparse_kd_loss, inplace": Form(
            lambda z: sparse_kd_loss(z, targets, inplace=True), 0.45, 0.01
        ),
        "sparse_kd_loss, labels + weights": Form(lambda z: sparse_kd_loss(z, targets, **mixed)),
        "sparse_kd_loss, softcap": Form(lambda z: sparse_kd_loss(z, targets, softcap=30.0)),
        "log_softmax + gather": Form(lambda z: log_softmax_gather(z, targets)),
        "logsumexp - gather": Form(lambda z: logsumexp_gather(z, targets)),
        "dense target + kl_div": Form(lambda z: dense_kl(z, targets)),
        "full KD, teacher logits given": Form(lambda z: full_kd(z, teacher_logits)),
    }


def head_forms(weight: Tensor, labels: Tensor, targets: SparseTargets) -> Forms:
    """The output head together with its loss, of given hidden states."""
    forms = {
        "linear + F.cross_entropy": Form(lambda x: F.cross_entropy(F.linear(x, weight), labels)),
        "linear + sparse_kd_loss": Form(lambda x: sparse_kd_loss(F.linear(x, weight), targets)),
        "fused_linear_sparse_kd_loss": Form(
            lambda x: fused_linear_sparse_kd_loss(x, weight, targets), 1.00, 0.12
        ),
        "fused, softcap": Form(
            lambda x: fused_linear_sparse_kd_loss(x, weight, targets, softcap=30.0)
        ),
    }
    if hasattr(F, "linear_cross_entropy"):
        options = torch.nn.LinearCrossEntropyOptions()
        forms["F.linear_cross_entropy, chunked"] = Form(
            lambda x: F.linear_cross_entropy(x, weight, labels, options=options)
        )
    return forms


def accumulating_forms(weight: Tensor, labels: Tensor, targets: SparseTargets) -> Forms:
    """Head and loss where `weight.grad` holds the sum of earlier batches."""

    def fused(x: Tensor, accumulate_weight_grad: bool) -> Tensor:
        return fused_linear_sparse_kd_loss(
            x, weight, targets, accumulate_weight_grad=accumulate_weight_grad
        )

    return {
        "linear + F.cross_entropy": Form(lambda x: F.cross_entropy(F.linear(x, weight), labels)),
        "fused_linear_sparse_kd_loss": Form(lambda x: fused(x, False)),
        "fused, accumulate_weight_grad": Form(lambda x: fused(x, True)),
    }
