"""Runs the Triton kernels of the losses: on a GPU, or in the interpreter where there is none."""

from __future__ import annotations

import torch

from sparselogits.torch import SparseTargets
from sparselogits.torch.rows import Rows, compute_dtype, unfold

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def rows_of(targets: SparseTargets, dtype: torch.dtype, mask: torch.Tensor | None = None) -> Rows:
    """The targets as a backend takes them, on DEVICE."""
    mask = None if mask is None else mask.to(DEVICE)
    return unfold(targets.to(DEVICE), mask, compute_dtype(dtype))
