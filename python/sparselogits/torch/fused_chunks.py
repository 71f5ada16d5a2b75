"""The rows of a fused loss, one chunk of logits at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sparselogits.errors import InvalidArgumentError
from sparselogits.torch import buffers
from sparselogits.torch.host_memory import is_host
from sparselogits.torch.reduction import Scaling
from sparselogits.torch.row_pass import row_losses
from sparselogits.torch.rows import Rows

# Logits of one chunk. Fewer rows starve the matrix products; more only cost memory.
_CPU_CHUNK_BYTES = 256 << 20
_CPU_CHUNK_ROWS = (256, 512)
_DEVICE_CHUNK_BYTES = 512 << 20
_DEVICE_MIN_CHUNK_ROWS = 1024


@dataclass(frozen=True)
class Head:
    """hidden (R, H), weight (V, H) and bias (V,) or None, all detached and of one dtype."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None


def detach_head(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Head:
    """The head with weight and bias in the dtype of the hidden states, apart from any graph."""
    dtype = hidden.dtype
    return Head(
        hidden.detach(),
        weight.detach().to(dtype),
        None if bias is None else bias.detach().to(dtype),
    )


class WeightSum(Protocol):
    """Collects Σ gradientᵀ · x over the chunks: the gradient of the weight."""

    def add(self, gradient: Tensor, x: Tensor) -> None:
        """gradient: (r, V); x: (r, H)."""


class BiasSum(Protocol):
    """Collects Σ gradient over the rows: the gradient of the bias."""

    def add(self, gradient: Tensor) -> None:
        """gradient: (r, V)."""


class RowLosses(Protocol):
    """See `row_pass.row_losses`."""

    def __call__(
        self,
        logits: Tensor,
        rows: Rows,
        scaling: Scaling,
        gradient_scale: Tensor,
        out: Tensor | None,
    ) -> Tensor: ...


@dataclass(frozen=True)
class Sinks:
    """Where the gradients of a head go; None for those that nobody wants."""

    hidden: bool
    weight: WeightSum | None
    bias: BiasSum | None


def run_chunks(
    head: Head,
    rows: Rows,
    scaling: Scaling,
    gradient_scale: Tensor,
    chunk: int,
    sinks: Sinks | None,
    losses_of: RowLosses = row_losses,
) -> tuple[Tensor, Tensor | None]:
    """The losses, and the gradient of the hidden states if it is wanted.

    Args:
        head: R rows.
        rows: Their targets.
        scaling: Of the loss.
        gradient_scale: 0-dimensional: what multiplies W p - w in the gradients.
        chunk: Rows of logits that exist at once.
        sinks: None computes the losses only.
        losses_of: What turns logits into losses and their gradient.

    Returns:
        Losses in the compute dtype, of the kept rows in host memory and of all R on a device; and
        (R, H) in the dtype of the hidden states or None.
    """
    kept = _kept_rows(rows)
    x = head.hidden if kept is None else head.hidden[kept]
    if kept is not None:
        rows = rows.select(kept)
    num_rows = x.shape[0]
    chunk = max(1, min(chunk, num_rows))
    logits = buffers.empty((chunk, head.weight.shape[0]), x)
    losses = torch.zeros_like(rows.total)
    grad_hidden = torch.empty_like(x) if sinks is not None and sinks.hidden else None
    for start in range(0, num_rows, chunk):
        part = slice(start, min(start + chunk, num_rows))
        z = logits[: part.stop - start]
        x_part, part_rows = x[part], rows.narrow(start, part.stop)
        if not is_host(x.device):
            # 0 · NaN is NaN: an ignored row must not reach the gradient of the weight.
            x_part = x_part.masked_fill(~part_rows.keep[:, None], 0)
        _linear(x_part, head, z)
        out = None if sinks is None else z
        losses[part] = losses_of(z, part_rows, scaling, gradient_scale, out)
        if grad_hidden is not None:
            torch.mm(z, head.weight, out=grad_hidden[part])
        if sinks is not None and sinks.weight is not None:
            sinks.weight.add(z, x_part)
        if sinks is not None and sinks.bias is not None:
            sinks.bias.add(z)
    if grad_hidden is not None and kept is not None:
        grad_hidden = torch.zeros_like(head.hidden).index_copy_(0, kept, grad_hidden)
    return losses, grad_hidden


def choose_chunk_rows(
    chunk_rows: int | None, chunk_bytes: int | None, width: int, hidden: Tensor
) -> int:
    """Rows of logits (·, width) that exist at once, by the keywords of the fused loss.

    Raises:
        InvalidArgumentError: A keyword below 1, or both.
    """
    for name, value in (("chunk_rows", chunk_rows), ("chunk_bytes", chunk_bytes)):
        if value is not None and value < 1:
            raise InvalidArgumentError(f"{name} is {value}; it must be at least 1")
    if chunk_rows is not None:
        if chunk_bytes is not None:
            raise InvalidArgumentError(
                f"chunk_rows is {chunk_rows} and chunk_bytes is {chunk_bytes}; give one of them"
            )
        return chunk_rows
    if chunk_bytes is not None:
        return max(1, chunk_bytes // (width * hidden.dtype.itemsize))
    return default_chunk_rows(width, hidden.dtype, hidden.device)


def default_chunk_rows(vocab_size: int, dtype: torch.dtype, device: torch.device) -> int:
    """Rows of logits that the fused loss holds at once."""
    row_bytes = vocab_size * dtype.itemsize
    if is_host(device):
        low, high = _CPU_CHUNK_ROWS
        return max(low, min(high, _CPU_CHUNK_BYTES // row_bytes))
    return max(_DEVICE_MIN_CHUNK_ROWS, _DEVICE_CHUNK_BYTES // row_bytes)


def _kept_rows(rows: Rows) -> Tensor | None:
    """Indices of the rows to compute, or None for all of them: asking a device would stall it."""
    if not is_host(rows.keep.device) or bool(rows.keep.all()):
        return None
    return rows.keep.nonzero().squeeze(1)


def _linear(x: Tensor, head: Head, out: Tensor) -> None:
    if head.bias is None:
        torch.mm(x, head.weight.t(), out=out)
    else:
        torch.addmm(head.bias, x, head.weight.t(), out=out)
