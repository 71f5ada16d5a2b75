"""Where reading a value costs nothing, and where it would make the host wait for a device."""

from __future__ import annotations

import torch


def is_host(device: torch.device) -> bool:
    """Whether a value there can be read at once; on a device the losses ask for none."""
    return device.type == "cpu"
