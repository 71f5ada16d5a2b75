"""What the vocab-parallel losses are tested on: shards, keywords, logits, heads and targets."""

from __future__ import annotations

from typing import Any

import torch
from dense_reference import error, make_targets
from torch import Tensor

from sparselogits.torch import SparseTargets

ROWS, DEPTH = 12, 7
SHARDS = {"halves": [50, 50], "uneven": [13, 87], "one token": [99, 1]}
FP32 = 2e-6
KEYWORDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "temperature": {"temperature": 1.7, "scale_by_temperature_squared": True},
    "sum": {"reduction": "sum", "temperature": 0.6},
    "num_items": {"num_items": 77},
    "mask": {"mask": torch.arange(ROWS).view(3, 4) % 3 != 1},
    "softcap": {"softcap": 2.5, "temperature": 0.8},
    "labels and weights": {
        # None in the row where half of the probabilities are 0.
        "labels": torch.tensor([3, -100, 99, 50, 49, 12, 13, 0, 98, -100, 77, 31]).view(3, 4),
        "alpha": 0.3,
        "position_weights": torch.linspace(0, 2, ROWS).view(3, 4),
    },
}


def make_logits(vocab_size: int = 100) -> Tensor:
    generator = torch.Generator().manual_seed(vocab_size)
    logits = 3 * torch.randn((3, 4, vocab_size), generator=generator)
    # All that the first of two equal shards has; the dense reference cannot take -inf.
    logits[0, 1, : vocab_size // 2] = -1e30
    return logits


def make_head(vocab_size: int = 100) -> list[Tensor]:
    generator = torch.Generator().manual_seed(vocab_size)
    shapes = ((3, 4, DEPTH), (vocab_size, DEPTH), (vocab_size,))
    return [torch.randn(s, generator=generator) for s in shapes]


def shard_of(tensor: Tensor, columns: list[int], rank: int, dim: int) -> tuple[Tensor, int]:
    start = sum(columns[:rank])
    return tensor.narrow(dim, start, columns[rank]).clone(), start


def check(found: Tensor | None, expected: Tensor, tolerance: float = FP32) -> None:
    difference = error(found, expected)
    assert difference < tolerance, difference


def finite_targets() -> SparseTargets:
    """No target where a probability is 0: its loss would be infinite."""
    targets = make_targets(ROWS, 100, seed=1)
    row = torch.repeat_interleave(targets.offsets.diff())
    keep = (row != 1) | (targets.token_ids >= 50)
    lengths = torch.bincount(row[keep], minlength=ROWS)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    return SparseTargets(offsets, targets.token_ids[keep], targets.weights[keep], 100)
