"""Rows of probabilities, and sparse targets drawn from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Block:
    """R rows of a regime. Columns are token ids, or stand for the ids in `token_ids`, ascending.

    Attributes:
        p: (R, C) probabilities.
        logits: (R, C) float32, of which p is the softmax.
        token_ids: (R, C) of the columns; None: column i is token i.
        labels: (R,) the text's next tokens.
        first_row: Of this block in the regime: what keys its draws.
    """

    p: Floats
    logits: npt.NDArray[np.float32]
    token_ids: Ids | None
    labels: Ids
    first_row: int

    def ids_of(self, rows: Ids, columns: Ids) -> Ids:
        return columns if self.token_ids is None else self.token_ids[rows, columns]


@dataclass(frozen=True)
class Target:
    """Sparse rows: entry e says that row `rows[e]` gives weight `weights[e]` to a token.

    Attributes:
        rows, columns, token_ids, weights: (E,), rows ascending.
        num_rows: R.
        value_bits: What the values of one position take, ideally coded, beside the ids.
    """

    rows: Ids
    columns: Ids
    token_ids: Ids
    weights: Floats
    num_rows: int
    value_bits: float


def entropy(values: Ids) -> float:
    """Bits of one of these values, coded with their own frequencies."""
    _, counts = np.unique(values, return_counts=True)
    share = counts / counts.sum()
    return float(-(share * np.log2(share)).sum())


def most_likely(p: Floats, count: int) -> Ids:
    """(R, count) columns of the largest values, descending: torch's is four times NumPy's speed."""
    columns: Ids = torch.from_numpy(p).topk(count, dim=1).indices.numpy()
    return columns


def softmax(logits: npt.NDArray[np.float32]) -> Floats:
    p = logits.astype(np.float64)
    p -= p.max(axis=1, keepdims=True)
    np.exp(p, out=p)
    p /= p.sum(axis=1, keepdims=True)
    return p
