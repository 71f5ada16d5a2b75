"""What happens to a student's logits before the softmax: soft-cap, then temperature."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sparselogits.torch.reduction import check_positive


@dataclass(frozen=True)
class Finish:
    """z' = softcap(z) / temperature.

    Attributes:
        temperature: T.
        softcap: c of z ← c · tanh(z / c); None: no soft-cap.

    Raises:
        InvalidArgumentError: One of them is not above 0 and finite.
    """

    temperature: float
    softcap: float | None

    def __post_init__(self) -> None:
        check_positive("temperature", self.temperature)
        if self.softcap is not None:
            check_positive("softcap", self.softcap)

    def __call__(self, z: Tensor) -> Tensor:
        """z' of logits z in the compute dtype, in place."""
        if self.softcap is not None:
            z.div_(self.softcap).tanh_().mul_(self.softcap)
        return z if self.temperature == 1.0 else z.div_(self.temperature)

    def cap_slope(self, finished: Tensor) -> Tensor | None:
        """T · dz'/dz, given z'; None where it is 1."""
        if self.softcap is None:
            return None
        return (finished * (self.temperature / self.softcap)).square_().neg_().add_(1)
