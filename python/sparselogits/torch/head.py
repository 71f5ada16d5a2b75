"""The output head of a student, as functions of its inputs take it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sparselogits.errors import InvalidArgumentError


@dataclass(frozen=True)
class Head:
    """z' = softcap(weight · x + bias) / temperature.

    Attributes:
        weight: (V, H).
        bias: (V,) or None.
        temperature: T.
        softcap: c of z ← c · tanh(z / c), before the temperature; None: no soft-cap.
    """

    weight: Tensor
    bias: Tensor | None
    temperature: float
    softcap: float | None

    def narrow(self, columns: slice) -> Head:
        """The columns of a part of the vocabulary."""
        bias = None if self.bias is None else self.bias[columns]
        return Head(self.weight[columns], bias, self.temperature, self.softcap)

    def finish(self, z: Tensor) -> Tensor:
        """z' of logits z, in place."""
        if self.softcap is not None:
            z.div_(self.softcap).tanh_().mul_(self.softcap)
        return z if self.temperature == 1.0 else z.div_(self.temperature)

    def slope(self, finished: Tensor) -> Tensor | float:
        """dz'/dz, given z'."""
        if self.softcap is None:
            return 1 / self.temperature
        tanh = finished * (self.temperature / self.softcap)
        return (1 - tanh * tanh) / self.temperature


def check_softcap(softcap: float | None) -> None:
    """A soft-cap is a positive number."""
    if softcap is not None and not (isinstance(softcap, (int, float)) and softcap > 0):
        raise InvalidArgumentError(f"softcap is {softcap!r}; it must be above 0")
