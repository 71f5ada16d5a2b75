"""Where reading a value costs nothing, and where it would make the host wait for a device."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch


def is_host(device: torch.device) -> bool:
    """Whether a value there can be read at once; on a device the losses ask for none."""
    return device.type == "cpu"


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """The losses choose the dtype of every operation themselves."""
    if not torch.amp.is_autocast_available(device.type):
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)
