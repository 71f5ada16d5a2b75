"""Whether Triton can compile for a device, and launches on the right one. Imports torch."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec

import torch


def supports(device: torch.device) -> bool:
    """Triton is installed and made for the device."""
    if device.type != "cuda" or find_spec("triton") is None:
        return False
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)


def device_of(tensor: torch.Tensor) -> AbstractContextManager[object]:
    """Makes the tensor's device the current one, which Triton launches on."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
