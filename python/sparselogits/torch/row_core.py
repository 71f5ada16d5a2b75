"""The losses' arithmetic in the C++ core: float32 and bfloat16 logits in host memory.

One trip over the logits for the exponentials and one for the gradient, tile by tile, with vector
instructions that are chosen at run time (src/sparselogits/loss_rows.h).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparselogits import _core
from sparselogits.torch.rows import Rows


def takes(logits: Tensor) -> bool:
    """Whether these logits lie where the core can read them: not on a device, not wrapped."""
    return (
        type(logits) is Tensor
        and logits.device.type == "cpu"
        and logits.dtype in (torch.float32, torch.bfloat16)
        and logits.is_contiguous()
    )


def loss_and_gradient(
    logits: Tensor,
    rows: Rows,
    temperature: float,
    loss_scale: float,
    gradient_scale: Tensor,
    out: Tensor | None,
    *,
    softcap: float | None = None,
) -> Tensor:
    """As `row_torch.loss_and_gradient`, and through a soft-cap where one is given.

    Requires `takes(logits)`, and `takes(out)` if given.
    """
    losses = _core.sparse_loss_rows(
        _array(logits),
        rows.bounds.numpy(),
        rows.token_id.numpy(),
        rows.weight.numpy(),
        rows.keep.numpy(),
        None if out is None else _array(out),
        softcap=softcap,
        temperature=temperature,
        scale=float(gradient_scale),
        num_threads=torch.get_num_threads(),
    )
    if out is not None:
        torch.autograd.graph.increment_version(out)  # it was written behind torch's back
    return torch.from_numpy(losses).mul_(loss_scale)


def _array(tensor: Tensor) -> Any:
    # NumPy has no bfloat16: its bits travel.
    return tensor.view(torch.uint16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()
