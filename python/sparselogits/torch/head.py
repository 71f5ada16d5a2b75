"""The output head of a student, as functions of its inputs take it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sparselogits.torch.finish import Finish


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
