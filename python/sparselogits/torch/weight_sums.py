"""Gradients of a head's weight and bias, summed over chunks in buffers of their own."""

from __future__ import annotations

import torch
from torch import Tensor

from sparselogits.torch import buffers


class WeightGradient:
    """The sum over chunks of gradientᵀ · x.

    With several chunks of a narrow dtype the sum is kept in float32; the product of one chunk is
    rounded once to the narrow dtype, which is what the matrix product delivers.
    """

    def __init__(self, weight: Tensor, wide: torch.dtype, several: bool) -> None:
        # A float16 gradient stays wide until the count divides it: its sum could overflow.
        self._wide = wide if several or weight.dtype == torch.float16 else weight.dtype
        self._sum = (
            torch.zeros_like(weight, dtype=self._wide) if self._wide != weight.dtype else None
        )
        self._product = buffers.empty(tuple(weight.shape), weight)
        self._empty = True

    def add(self, gradient: Tensor, x: Tensor) -> None:
        """gradient: (r, V); x: (r, H)."""
        if self._sum is not None:
            self._sum += torch.mm(gradient.t(), x, out=self._product)
        elif self._empty:
            torch.mm(gradient.t(), x, out=self._product)
        else:
            self._product.addmm_(gradient.t(), x)
        self._empty = False

    def result(self, wide: bool) -> Tensor:
        """(V, H): the sum as it was kept if `wide`, else in the dtype of the weight."""
        if self._sum is None:
            return self._product.zero_() if self._empty else self._product
        return self._sum if wide else self._product.copy_(self._sum)


class BiasGradient:
    """The sum over rows of the gradient, in the compute dtype."""

    def __init__(self, bias: Tensor, wide: torch.dtype) -> None:
        self._dtype = bias.dtype
        self._sum = torch.zeros_like(bias, dtype=wide)

    def add(self, gradient: Tensor) -> None:
        """gradient: (r, V)."""
        self._sum += gradient.sum(0, dtype=self._sum.dtype)

    def result(self, wide: bool) -> Tensor:
        """(V,): the sum as it was kept if `wide`, else in the dtype of the bias."""
        return self._sum if wide else self._sum.to(self._dtype)
