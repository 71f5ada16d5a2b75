"""The losses' arithmetic on a GPU: one Triton kernel, which reads the logits twice."""

from __future__ import annotations

import torch
from torch import Tensor

from sparselogits import triton_support
from sparselogits.torch.rows import Rows

_MAX_COLUMNS = 16_384  # logits of a row at once: with 1,024 threads, 16 each
_ENTRIES = 64
_MAX_WARPS = 32 if torch.version.hip is None else 16  # 1,024 threads


def takes(logits: Tensor) -> bool:
    """Whether `loss_and_gradient` can take these logits; float64 keeps to row_torch."""
    narrow = logits.dtype in (torch.float32, torch.bfloat16, torch.float16)
    return type(logits) is Tensor and narrow and triton_support.supports(logits.device)


def loss_and_gradient(
    logits: Tensor,
    rows: Rows,
    temperature: float,
    loss_scale: float,
    gradient_scale: Tensor,
    out: Tensor | None,
) -> Tensor:
    """See `row_torch.loss_and_gradient`."""
    # Without Triton this module can still be asked what it takes.
    from sparselogits.torch.kernels import row_kernels

    num_rows, width = logits.shape
    losses = torch.empty_like(rows.total)
    if num_rows == 0:
        return losses
    gradient = logits if out is None else out
    columns = min(_MAX_COLUMNS, 1 << (width - 1).bit_length())
    with triton_support.device_of(logits):
        row_kernels.loss_and_gradient[(num_rows,)](
            logits,
            *logits.stride(),
            width,
            rows.keep,
            rows.total,
            _bounds(rows),
            rows.token_id,
            rows.weight,
            temperature,
            loss_scale,
            gradient_scale,
            losses,
            rows.weight if out is None else torch.empty_like(rows.weight),
            gradient,
            *gradient.stride(),
            SCALED=temperature != 1.0,
            WITH_GRADIENT=out is not None,
            COLUMNS=columns,
            ENTRIES=_ENTRIES,
            num_warps=max(1, min(_MAX_WARPS, columns // 512)),
            enable_fp_fusion=True,
        )
    return losses


def _bounds(rows: Rows) -> Tensor:
    """(R + 1,) int64 on the device: counted there, since a transfer could wait for it."""
    numbers = torch.arange(len(rows.total) + 1, device=rows.row.device)
    return torch.searchsorted(rows.row, numbers)
