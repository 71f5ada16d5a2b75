"""Rows of a live teacher beside those of its student."""

from __future__ import annotations

import torch
from torch import Tensor

from sparselogits.errors import InvalidArgumentError
from sparselogits.torch.arguments import flatten_rows


def teacher_rows(teacher_logits: Tensor, student: Tensor) -> Tensor:
    """(R, V') without a graph, of as many rows as the student's (R, V).

    V and V' may differ by the padding of a head; a token that one of them lacks has no probability
    there.
    """
    flat, _ = flatten_rows(teacher_logits, "teacher_logits")
    if flat.shape[0] != student.shape[0]:
        raise InvalidArgumentError(
            f"teacher_logits has {flat.shape[0]} rows and logits has {student.shape[0]}"
        )
    if flat.device != student.device:
        raise InvalidArgumentError(
            f"teacher_logits is on {flat.device}, logits on {student.device}"
        )
    return flat.detach()


def probability_of(logits: Tensor, token_id: Tensor) -> Tensor:
    """(r,) softmax(logits)[token_id] of (r, V) rows; 0 for an id that has no column."""
    inside = token_id < logits.shape[1]
    at = logits.gather(-1, torch.where(inside, token_id, 0)[:, None]).squeeze(-1)
    return torch.where(inside, torch.exp(at - logits.logsumexp(-1)), 0)
