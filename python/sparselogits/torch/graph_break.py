"""What `torch.compile` leaves a graph for.

Imported while it traces only: the decorator imports the whole compiler.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from sparselogits.torch import fused_recompute, head_lse

accumulating_loss = cast(
    "Callable[..., Tensor]",
    torch.compiler.disable(  # type: ignore[no-untyped-call]
        fused_recompute.accumulating_loss, reason="accumulate_weight_grad writes into .grad"
    ),
)
apply_lse_and_logits = cast(
    "Callable[..., tuple[Tensor, Tensor]]",
    torch.compiler.disable(  # type: ignore[no-untyped-call]
        head_lse.apply_lse_and_logits, reason="the logits of a head are computed twice"
    ),
)
