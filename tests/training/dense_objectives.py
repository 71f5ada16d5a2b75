"""Every objective as its formula says: float64, dense targets, autograd through every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sparselogits.torch import objectives

ROWS, VOCABULARY = 24, 61

OPTIONS: dict[str, dict[str, Any]] = {
    "cross_entropy": {},
    "label_smoothing": {"epsilon": 0.1},
    "full_kd": {},
    "reverse_kd": {},
    "top_k": {"k": 5},
    "top_k_dropped": {"k": 5, "rest": "drop"},
    "top_p": {"p": 0.7},
    "naive_fix": {"k": 5},
    "ghost_token": {"k": 5},
    "smoothed_residual": {"k": 5},
}

Target = Callable[[Tensor, Tensor], Tensor]
"""(R, V) float64 teacher probabilities, (R,) labels -> (R, V) dense target."""


def make_rows(dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Student's and teacher's logits, and labels with a few -100."""
    generator = torch.Generator().manual_seed(seed)
    student = (2 * torch.randn(ROWS, VOCABULARY, generator=generator)).to(dtype)
    teacher = 2.5 * torch.randn(ROWS, VOCABULARY, generator=generator)
    labels = torch.randint(0, VOCABULARY, (ROWS,), generator=generator)
    labels[::7] = -100
    # Rows whose label is surely kept, and rows whose label surely is not.
    labels[1], labels[2] = teacher[1].argmax(), teacher[2].argmin()
    return student, teacher, labels


def one_hot(labels: Tensor, width: int = VOCABULARY) -> Tensor:
    """(R, V) float64; rows of zeros where the label is -100."""
    known = labels != -100
    hot = torch.nn.functional.one_hot(torch.where(known, labels, 0), width).double()
    return hot * known[:, None]


def kept(p: Tensor, k: int | None = None, mass: float | None = None) -> Tensor:
    """(R, V) bool: the k most likely tokens, or the fewest that hold the mass."""
    order = p.sort(-1, descending=True)
    rank = order.indices.argsort(-1)
    if k is not None:
        return rank < k
    before = (order.values.cumsum(-1) - order.values).gather(-1, rank)
    return before < mass


def top(p: Tensor, **how: Any) -> Tensor:
    return p * kept(p, **how)


def residual(target: Tensor) -> Tensor:
    return 1 - target.sum(-1, keepdim=True)


TARGETS: dict[str, Target] = {
    "cross_entropy": lambda p, y: one_hot(y),
    "label_smoothing": lambda p, y: (0.9 * one_hot(y) + 0.1 / VOCABULARY) * (y != -100)[:, None],
    "full_kd": lambda p, y: p,
    "top_k": lambda p, y: top(p, k=5) / top(p, k=5).sum(-1, keepdim=True),
    "top_k_dropped": lambda p, y: top(p, k=5),
    "top_p": lambda p, y: top(p, mass=0.7) / top(p, mass=0.7).sum(-1, keepdim=True),
    "naive_fix": lambda p, y: (
        (top(p, k=5) + residual(top(p, k=5)) * one_hot(y)) * (y != -100)[:, None]
    ),
    "smoothed_residual": lambda p, y: top(p, k=5) + residual(top(p, k=5)) / VOCABULARY,
}


def linear_loss(target: Tensor, z: Tensor, subtract_entropy: bool) -> Tensor:
    """(R,) -Σ t log q, less the entropy of t where asked for."""
    losses = -(target * torch.log_softmax(z, -1)).sum(-1)
    return losses + torch.xlogy(target, target).sum(-1) if subtract_entropy else losses


def ghost_loss(p: Tensor, z: Tensor, subtract_entropy: bool, **how: Any) -> Tensor:
    """(R,) Σ p log(p / q) + (1 - Σp) log((1 - Σp) / (1 - Σq)), or without the entropy."""
    chosen, q = kept(p, **how), torch.softmax(z, -1)
    p_rest = 1 - (p * chosen).sum(-1)
    q_rest = (q * ~chosen).sum(-1)
    cross = -(p * chosen * torch.log_softmax(z, -1)).sum(-1) - torch.xlogy(p_rest, q_rest)
    if not subtract_entropy:
        return cross
    return cross + torch.xlogy(p * chosen, p * chosen).sum(-1) + torch.xlogy(p_rest, p_rest)


def reverse_loss(p: Tensor, z: Tensor) -> Tensor:
    q = torch.softmax(z, -1)
    return (q * (torch.log_softmax(z, -1) - p.log())).sum(-1)


def losses_of(
    name: str, z: Tensor, p: Tensor, labels: Tensor, *, subtract_entropy: bool = False
) -> Tensor:
    """(R,) losses of (R, V) divided logits."""
    if name == "ghost_token":
        return ghost_loss(p, z, subtract_entropy, k=5)
    if name == "reverse_kd":
        return reverse_loss(p, z)
    return linear_loss(TARGETS[name](p, labels), z, subtract_entropy)


def make(name: str, **more: Any) -> objectives.Objective:
    return objectives.make_objective(name.removesuffix("_dropped"), **OPTIONS[name], **more)
