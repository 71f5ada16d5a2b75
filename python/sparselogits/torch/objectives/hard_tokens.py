"""Per-token weights: more of the learning for tokens that the teacher finds hard."""

from __future__ import annotations

import torch
from torch import Tensor

from sparselogits.errors import InvalidArgumentError
from sparselogits.torch.arguments import flatten_labels, flatten_mask, flatten_rows
from sparselogits.torch.batch import IGNORED_LABEL
from sparselogits.torch.objectives.label_term import check_labels
from sparselogits.torch.row_blocks import row_blocks, scaled
from sparselogits.torch.rows import compute_dtype
from sparselogits.torch.targets import SparseTargets


def label_confidence(teacher: SparseTargets | Tensor, labels: Tensor) -> Tensor:
    """What the teacher gives to the next token of the text.

    Args:
        teacher: R rows of a cache: the label's weight there, an unbiased estimate, 0 where it was
            not drawn. Or (B, S, V) or (R, V) logits: its probability.
        labels: (B, S) or (R,) int64.

    Returns:
        float32 in the shape of the labels; 0 where the label is -100.
    """
    if isinstance(teacher, SparseTargets):
        leading = torch.Size([teacher.num_rows])
        flat = _flat(labels.reshape(-1), leading, teacher.device)
        row = torch.repeat_interleave(teacher.offsets.diff(), output_size=teacher.num_entries)
        of_label = torch.where(teacher.token_ids == flat[row], teacher.weights, 0)
        found = of_label.new_zeros(len(flat)).index_add_(0, row, of_label)
        return found.reshape(labels.shape)
    logits, leading = flatten_rows(teacher, "teacher")
    flat = _flat(labels, leading, logits.device)
    check_labels(flat, logits.shape[1])
    known = flat != IGNORED_LABEL
    confidence = torch.empty(len(flat), dtype=torch.float32, device=logits.device)
    for rows in row_blocks(logits, compute_dtype(logits.dtype)):
        z = scaled(logits[rows].detach(), 1.0, compute_dtype(logits.dtype))
        at_label = z.gather(-1, torch.where(known[rows], flat[rows], 0)[:, None]).squeeze(-1)
        confidence[rows] = torch.exp(at_label - z.logsumexp(-1)).float()
    return torch.where(known, confidence, 0).reshape(labels.shape)


def hard_token_weights(
    confidence: Tensor, *, ratio: float = 2.0, share: float = 0.5, mask: Tensor | None = None
) -> Tensor:
    """Weights for `position_weights`: hard rows count `ratio` times as much as easy ones.

    Hard is the `share` of the rows in which the teacher is least confident of the label. The idea
    of learning rates per token is that of Anshumann et al. 2025; the rule is the one written here.
    The mean weight is 1, so that the learning rate of a batch does not change. Rows of equal
    confidence are taken in their order.

    Args:
        confidence: (B, S) or (R,), as `label_confidence` gives it.
        ratio: Weight of a hard row over that of an easy one; above 0.
        share: Of the rows that count, how many are hard; 0 to 1.
        mask: Same shape or (R,), bool. The rows that count; others have weight 0.

    Returns:
        float32 in the shape of `confidence`.

    Raises:
        InvalidArgumentError: A ratio or share out of range, a mask that does not fit.
    """
    if not 0 < ratio < float("inf"):
        raise InvalidArgumentError(f"ratio is {ratio!r}; it must be above 0 and finite")
    if not 0 <= share <= 1:
        raise InvalidArgumentError(f"share is {share!r}; it must be from 0 to 1")
    flat = confidence.reshape(-1).float()
    keep = flatten_mask(mask, confidence.shape, flat.device)
    if keep is None:
        keep = torch.ones_like(flat, dtype=torch.bool)
    count = keep.sum()
    order = torch.where(keep, flat, torch.inf).argsort(stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    hard = keep & (rank < (count * share).round())
    weights = torch.where(hard, ratio, 1.0) * keep
    mean = weights.sum() / count  # NaN where no row counts, and then nothing is divided by it
    return torch.where(keep, weights / mean, 0).reshape(confidence.shape)


def _flat(labels: Tensor, leading: torch.Size, device: torch.device) -> Tensor:
    flat = flatten_labels(labels, 0.0, leading, device)
    assert flat is not None
    return flat
