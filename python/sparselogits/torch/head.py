"""The output head of a student, as functions of its inputs take it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparselogits.torch.finish import Finish
from sparselogits.torch.host_memory import is_host

# Logits of one part of the vocabulary. Narrow parts starve the products.
_HOST_PART_BYTES = 32 << 20
_DEVICE_PART_BYTES = 256 << 20
_MIN_PART_COLUMNS = 1024


@dataclass(frozen=True)
class Head:
    """z' = finish(weight · x + bias): weight (V, H), bias (V,) or None."""

    weight: Tensor
    bias: Tensor | None
    finish: Finish

    def narrow(self, columns: slice) -> Head:
        """The columns of a part of the vocabulary."""
        bias = None if self.bias is None else self.bias[columns]
        return Head(self.weight[columns], bias, self.finish)


def default_part_columns(num_rows: int, dtype: torch.dtype, device: torch.device) -> int:
    """Columns of the vocabulary whose logits, of `dtype`, exist at once."""
    part_bytes = _HOST_PART_BYTES if is_host(device) else _DEVICE_PART_BYTES
    return max(_MIN_PART_COLUMNS, part_bytes // (max(1, num_rows) * dtype.itemsize))
