"""The losses as a textbook writes them: float64, dense targets, autograd through every step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparselogits.torch import SparseTargets


def make_targets(
    rows: int, vocab: int, *, seed: int = 0, most: int = 6, normalised: bool = False
) -> SparseTargets:
    """Random targets: rows of 0 to `most` entries, in no order, weights that sum to anything."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, min(most, vocab) + 1, (rows,), generator=generator)
    ids = [torch.randperm(vocab, generator=generator)[:n] for n in lengths.tolist()]
    weights = [torch.rand(n, generator=generator) + 0.01 for n in lengths.tolist()]
    if normalised:
        weights = [w / w.sum() for w in weights]
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    empty = torch.empty(0)
    return SparseTargets(
        offsets, torch.cat([empty.long(), *ids]), torch.cat([empty, *weights]), vocab
    )


def make_labels(rows: int, vocab: int, targets: SparseTargets, *, seed: int = 0) -> Tensor:
    """(R,) labels: about a third -100, a third drawn ids where the row has some, a third any."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(vocab, (rows,), generator=generator)
    kind = torch.randint(3, (rows,), generator=generator)
    filled = (kind == 1) & (targets.offsets.diff() > 0)
    labels[filled] = targets.token_ids[targets.offsets[:-1][filled]].long()
    labels[kind == 0] = -100
    return labels


def row_losses(
    logits: Tensor,
    targets: SparseTargets,
    *,
    mask: Tensor | None = None,
    position_weights: Tensor | None = None,
    labels: Tensor | None = None,
    alpha: float = 0.0,
    softcap: float | None = None,
    temperature: float = 1.0,
    scale_by_temperature_squared: bool = False,
) -> tuple[Tensor, Tensor]:
    """(R,) losses of (R, V) logits, and which rows count."""
    lengths = targets.offsets.diff()
    row = torch.repeat_interleave(lengths)
    dense = torch.zeros(logits.shape, dtype=torch.float64)
    dense[row, targets.token_ids.long()] = targets.weights.double()
    z = logits.double()
    if softcap is not None:
        z = softcap * torch.tanh(z / softcap)
    z = z / temperature
    losses = (1 - alpha) * -(dense * torch.log_softmax(z, dim=-1)).sum(-1)
    keep = (lengths > 0) & (alpha < 1)
    if labels is not None and alpha > 0:
        flat = labels.flatten()
        losses = losses + alpha * torch.nn.functional.cross_entropy(z, flat, reduction="none")
        keep = keep | (flat != -100)
    if position_weights is not None:
        losses = losses * position_weights.flatten().double()
    if mask is not None:
        keep = keep & mask.flatten()
    losses = torch.where(keep, losses, 0.0)
    return losses * (temperature**2 if scale_by_temperature_squared else 1.0), keep


@dataclass
class Reference:
    """A loss and the gradients of its inputs, all float64."""

    loss: Tensor
    gradients: list[Tensor]


def _differentiate(
    logits: Tensor,
    inputs: list[Tensor],
    targets: SparseTargets,
    reduction: str,
    num_items: float | None,
    keywords: dict[str, object],
) -> Reference:
    losses, keep = row_losses(logits, targets, **keywords)  # type: ignore[arg-type]
    total = losses.sum()
    if reduction == "mean":
        total = total / (num_items or max(1, int(keep.sum())))
    gradients = list(torch.autograd.grad(total, inputs))
    return Reference((losses if reduction == "none" else total).detach(), gradients)


def of_logits(
    logits: Tensor,
    targets: SparseTargets,
    *,
    reduction: str = "mean",
    num_items: float | None = None,
    **keywords: object,
) -> Reference:
    """The loss of logits (..., V); the gradient of "none" is that of the sum."""
    z = logits.detach().double().requires_grad_()
    flat = z.reshape(-1, z.shape[-1])
    return _differentiate(flat, [z], targets, reduction, num_items, keywords)


def of_head(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: SparseTargets,
    *,
    reduction: str = "mean",
    num_items: float | None = None,
    **keywords: object,
) -> Reference:
    """The loss of a linear head."""
    inputs = [t.detach().double().requires_grad_() for t in (hidden, weight, bias) if t is not None]
    z = torch.nn.functional.linear(*inputs)
    flat = z.reshape(-1, z.shape[-1])
    return _differentiate(flat, inputs, targets, reduction, num_items, keywords)


def error(found: Tensor | None, expected: Tensor) -> float:
    """The largest difference, relative to the largest element of what is expected.

    Elementwise relative errors mean nothing where W p and w cancel; this one is the accuracy that
    an optimiser step sees.
    """
    assert found is not None
    assert found.shape == expected.shape
    scale = float(expected.abs().max())
    difference = float((found.detach().double() - expected).abs().max())
    return difference / scale if scale else difference
