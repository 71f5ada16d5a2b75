"""Large buffers that a loss fills from end to end."""

from __future__ import annotations

import torch
from torch import Tensor

from sparselogits import _core

# Below this torch's allocator mostly has memory that was touched before.
_LEAST_BYTES = 8 << 20


def empty(shape: tuple[int, ...], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """An uninitialised contiguous tensor of the kind of `like`.

    In host memory its pages are asked for as huge ones: the first touch of 400 MB in pages of 4 KiB
    takes a CPU as long as the loss itself.
    """
    tensor = torch.empty(shape, dtype=dtype or like.dtype, device=like.device)
    if type(tensor) is Tensor and tensor.device.type == "cpu" and tensor.nbytes >= _LEAST_BYTES:
        _core.advise_huge_pages(tensor.view(torch.uint8).numpy())
    return tensor
