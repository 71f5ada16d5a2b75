"""The share of a row's loss that is cross-entropy against its label."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparselogits.errors import InvalidArgumentError, VocabularyMismatchError
from sparselogits.torch.batch import IGNORED_LABEL


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


def label_term(labels: Tensor, weight: float, dtype: torch.dtype) -> LabelTerm:
    """Of (R,) labels, -100 where there is none."""
    labelled = labels != IGNORED_LABEL
    return LabelTerm(torch.where(labelled, labels, 0), labelled.to(dtype) * weight)


def flatten_labels(labels: Tensor, leading: torch.Size, width: int, device: torch.device) -> Tensor:
    """(B, S) or (R,) labels as (R,) int64; ids are checked in host memory only.

    Raises:
        InvalidArgumentError: A shape, dtype, device or negative id other than -100.
        VocabularyMismatchError: An id that the logits have no column for.
    """
    if labels.dtype not in (torch.int64, torch.int32):
        raise InvalidArgumentError(f"labels is {labels.dtype}; it must be torch.int64 or int32")
    check_row_shape("labels", labels, leading, device)
    flat = labels.reshape(-1).long()
    if flat.device.type == "cpu":
        known = flat[flat != IGNORED_LABEL]
        if known.numel():
            low, high = (int(bound) for bound in torch.aminmax(known))
            if low < 0:
                raise InvalidArgumentError(f"labels holds {low}; it must be an id or -100")
            if high >= width:
                raise VocabularyMismatchError(
                    f"labels holds token id {high} and the logits have {width} columns"
                )
    return flat


def check_row_shape(name: str, tensor: Tensor, leading: torch.Size, device: torch.device) -> None:
    """Refuses a tensor that does not have one element for each row of the logits."""
    if tensor.shape not in (leading, torch.Size([leading.numel()])):
        raise InvalidArgumentError(
            f"{name} has shape {tuple(tensor.shape)}; the rows have shape {tuple(leading)}"
        )
    if tensor.device != device:
        raise InvalidArgumentError(f"{name} is on {tensor.device} and the logits on {device}")
