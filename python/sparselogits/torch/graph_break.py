"""What `torch.compile` leaves a graph for.

Imported while it traces only: the decorator imports the whole compiler.
"""

from __future__ import annotations

import torch

from sparselogits.torch import fused_recompute

accumulating_loss = torch.compiler.disable(
    fused_recompute.accumulating_loss, reason="accumulate_weight_grad writes into .grad"
)
