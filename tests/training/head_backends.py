"""The two backends of linear_lse, in small tiles and parts."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from loss_backends import DEVICE

from sparselogits.torch import head_lse, head_torch, head_triton

ROWS, DEPTH, VOCAB = 30, 20, 203
GRADIENT = 4e-6  # exp turns the roundings of logits around 15 into relative errors
TOLERANCE = {torch.float32: GRADIENT, torch.bfloat16: 2**-6, torch.float16: 2**-9}
BACKENDS: dict[str, ModuleType] = {"torch": head_torch, "triton": head_triton}


def choose(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Makes all functions of a head use this backend."""
    tile = {"ROWS": 16, "COLUMNS": 32, "INNER": 16, "num_warps": 4, "num_stages": 2}
    monkeypatch.setattr(head_lse, "_backend", lambda x: BACKENDS[name])
    monkeypatch.setattr(head_torch, "default_part_columns", lambda *_: 64)
    monkeypatch.setattr(head_triton, "_tile", lambda dtype: tile)
    monkeypatch.setattr(head_triton, "_PARTS", 3)
    return BACKENDS[name]


def make_inputs(dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """Hidden states (3, 10, DEPTH), weight and bias."""
    generator = torch.Generator().manual_seed(3)
    shapes = ((3, 10, DEPTH), (VOCAB, DEPTH), (VOCAB,))
    return [torch.randn(s, generator=generator).to(DEVICE, dtype) for s in shapes]


def leaves(inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """Copies that take gradients."""
    return [t.clone().requires_grad_() for t in inputs]
