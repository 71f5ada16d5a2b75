"""What `torch.compile` leaves a graph for.

Imported while it traces only: wrapping a function imports the whole compiler.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from sparselogits.torch.objectives.objective import Objective

evaluate = cast(
    "Callable[..., Tensor]",
    torch.compiler.disable(  # type: ignore[no-untyped-call]
        Objective.evaluate, reason="an objective looks at its arguments"
    ),
)
