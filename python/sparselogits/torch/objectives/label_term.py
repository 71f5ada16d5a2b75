"""Cross-entropy against a label, and against sparse entries, of a block of rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparselogits.errors import InvalidArgumentError, VocabularyMismatchError
from sparselogits.torch.batch import IGNORED_LABEL
from sparselogits.torch.host_memory import is_host
from sparselogits.torch.rows import Rows


@dataclass(frozen=True)
class LabelTerm:
    """Attributes:
    token_id: (R,) int64, 0 where there is no label.
    weight: (R,), of the compute dtype, 0 where there is no label.
    """

    token_id: Tensor
    weight: Tensor

    def loss(self, z: Tensor, lse: Tensor, rows: slice) -> Tensor:
        """(r,) weight · (lse - z[label]) of the (r, V) rows of a block."""
        at_label = z.gather(-1, self.token_id[rows, None]).squeeze(-1)
        weight = self.weight[rows]
        return torch.where(weight == 0, 0, weight * (lse - at_label))

    def subtract(self, gradient: Tensor, rows: slice) -> None:
        """Takes the weight from the (r, V) gradient at the labels; the softmax has its own part."""
        gradient.scatter_add_(-1, self.token_id[rows, None], -self.weight[rows, None])


def entry_losses(rows: Rows, z: Tensor, lse: Tensor) -> Tensor:
    """(r,) Σ w (lse - z) of (r, V) rows; a weight of 0 adds nothing, whatever its logit."""
    surprise = lse[rows.row] - z[rows.row, rows.token_id]
    terms = torch.where(rows.weight == 0, 0, rows.weight * surprise)
    return torch.zeros_like(lse).index_add_(0, rows.row, terms)


def label_term(labels: Tensor, weight: float, dtype: torch.dtype) -> LabelTerm:
    """Of (R,) labels, -100 where there is none."""
    labelled = labels != IGNORED_LABEL
    return LabelTerm(torch.where(labelled, labels, 0), labelled.to(dtype) * weight)


def check_labels(labels: Tensor, width: int) -> None:
    """Refuses (R,) labels in host memory that the logits have no column for.

    Raises:
        InvalidArgumentError: A negative id other than -100.
        VocabularyMismatchError: An id of `width` or above.
    """
    known = labels[labels != IGNORED_LABEL] if is_host(labels.device) else labels[:0]
    if not known.numel():
        return
    low, high = (int(bound) for bound in torch.aminmax(known))
    if low < 0:
        raise InvalidArgumentError(f"labels holds {low}; it must be a token id or {IGNORED_LABEL}")
    if high >= width:
        raise VocabularyMismatchError(
            f"labels holds token id {high} and the logits have {width} columns"
        )
