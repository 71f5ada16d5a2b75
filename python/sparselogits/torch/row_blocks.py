"""Rows of logits a block at a time, in the compute dtype: no float32 copy of all of them exists."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sparselogits.torch.host_memory import is_host

# Scratch of one block in the compute dtype. Small enough to save trips to memory in the caches of a
# CPU, large enough that its threads seldom wait for each other, and to hide a device's launches.
_CPU_BLOCK_BYTES = 12 << 20
_DEVICE_BLOCK_BYTES = 128 << 20


def block_rows(num_rows: int, width: int, dtype: torch.dtype, device: torch.device) -> int:
    """Rows that are worked on at once: 1 to `num_rows`."""
    block_bytes = _CPU_BLOCK_BYTES if is_host(device) else _DEVICE_BLOCK_BYTES
    return max(1, min(num_rows, block_bytes // (width * dtype.itemsize)))


def row_blocks(logits: Tensor, dtype: torch.dtype) -> Iterator[slice]:
    """Slices of consecutive rows that cover (R, V) logits, each some megabytes wide in `dtype`."""
    num_rows, width = logits.shape
    block = block_rows(num_rows, width, dtype, logits.device)
    for start in range(0, num_rows, block):
        yield slice(start, min(start + block, num_rows))


def scaled(logits: Tensor, temperature: float, dtype: torch.dtype) -> Tensor:
    """A new (r, V) tensor of `dtype`: logits / temperature."""
    copied = logits.to(dtype, copy=True)
    return copied if temperature == 1.0 else copied.div_(temperature)


def softmax(z: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Softmax and log-sum-exp of (r, V) rows.

    The sums are pairwise: those of `torch.softmax` are naive, and at V = 151,936 off by 1e-5.

    Args:
        z: (r, V), of the compute dtype.
        out: Receives the softmax; it may be `z` itself.

    Returns:
        (r, V) and (r,). A row that is -inf everywhere is NaN in both.
    """
    largest = z.amax(-1, keepdim=True)
    powers = torch.sub(z, largest, out=out).exp_()
    sums = powers.sum(-1, keepdim=True)
    return powers.div_(sums), (largest + sums.log()).squeeze(-1)
