"""The losses under `torch.autocast`: they choose the dtype of every operation themselves."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Leaves the autocast that is in force, if any, to what is outside."""
    if not torch.amp.is_autocast_available(device.type):
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


def cast_as_linear(*inputs: Tensor | None) -> list[Any]:
    """The inputs as `F.linear` would take them under the autocast that is in force."""
    first = inputs[0]
    assert first is not None
    device_type = first.device.type
    available = torch.amp.is_autocast_available(device_type)
    if not available or not torch.is_autocast_enabled(device_type):
        return list(inputs)
    dtype = torch.get_autocast_dtype(device_type)
    return [t.to(dtype) if t is not None and t.dtype != torch.float64 else t for t in inputs]
