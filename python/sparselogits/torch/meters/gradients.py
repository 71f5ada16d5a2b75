"""Gradient angle: where one target sends a student, against another.

The measure of the RS-KD paper (Anshumann et al. 2025, section 3): the angle between two gradients
over one batch and the ratio of their norms. Unbiased targets differ from full distillation by noise
that averages out over a batch; a biased target points elsewhere for ever.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparselogits.errors import InvalidArgumentError
from sparselogits.torch.meters.acceptance import standard_error
from sparselogits.torch.meters.meter import Meter, check_positive

Gradients = Sequence[Tensor]


@dataclass(frozen=True)
class GradientAngle:
    """Attributes:
    degrees: Angle to the reference, 0 to 180; NaN where one of the two is zero.
    norm_ratio: Norm over that of the reference.
    """

    degrees: float
    norm_ratio: float


@dataclass(frozen=True)
class MeanGradientAngle:
    """Means over batches.

    Attributes:
        degrees, norm_ratio: See `GradientAngle`.
        degrees_error, norm_error: Standard errors; NaN for a single batch.
        batches: How many.
    """

    degrees: float
    degrees_error: float
    norm_ratio: float
    norm_error: float
    batches: int


def gradient_of(loss: Tensor, inputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Gradients of a scalar loss by its inputs; the graph stays, and `.grad` is left alone.

    Args:
        loss: A scalar.
        inputs: The parameters of a backbone, or the logits themselves. An input that the loss does
            not depend on has a gradient of zero.
    """
    wanted = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    if not wanted:
        raise InvalidArgumentError("inputs is empty; there is no gradient by nothing")
    return torch.autograd.grad(
        loss, wanted, retain_graph=True, allow_unused=True, materialize_grads=True
    )


def compare_gradients(gradients: Gradients, reference: Gradients) -> GradientAngle:
    """Angle and norm ratio of two gradients, each a sequence of tensors of the same shapes."""
    degrees, norm_ratio = _angle(gradients, reference)
    return GradientAngle(float(degrees), float(norm_ratio))


def gradient_angle(
    loss: Tensor, reference: Tensor, inputs: Tensor | Sequence[Tensor]
) -> GradientAngle:
    """Angle and norm ratio of the gradients of two losses of one forward pass.

    Args:
        loss: A scalar: of draws, of Top-K, ...
        reference: A scalar: of full KD, as a rule.
        inputs: What to differentiate by; see `gradient_of`.
    """
    return compare_gradients(gradient_of(loss, inputs), gradient_of(reference, inputs))


class GradientAngleMeter(Meter):
    """Mean gradient angle and norm ratio over batches, with their standard errors."""

    def __init__(self) -> None:
        zero = torch.zeros((), dtype=torch.float64)
        names = ("degrees", "degrees_squares", "norm_ratio", "norm_ratio_squares")
        super().__init__({}, {**dict.fromkeys(names, zero), "count": zero.long()})

    def update(self, gradients: Gradients, reference: Gradients) -> None:
        """Counts one batch: the gradients of its loss and of the reference (`gradient_of`)."""
        degrees, norm_ratio = _angle(gradients, reference)
        self._add(
            degrees=degrees,
            degrees_squares=degrees.square(),
            norm_ratio=norm_ratio,
            norm_ratio_squares=norm_ratio.square(),
            count=torch.ones((), dtype=torch.int64, device=degrees.device),
        )

    def compute(self) -> MeanGradientAngle:
        """Over all batches so far.

        Raises:
            InvalidArgumentError: There was no batch.
        """
        sums = {name: value.item() for name, value in self._sums.items()}
        count = int(sums["count"])
        check_positive(count, type(self).__name__)
        degrees, norm_ratio = (
            (sums[name] / count, standard_error(sums[name], sums[f"{name}_squares"], count))
            for name in ("degrees", "norm_ratio")
        )
        return MeanGradientAngle(*degrees, *norm_ratio, count)


def _angle(gradients: Gradients, reference: Gradients) -> tuple[Tensor, Tensor]:
    """0-dimensional float64 degrees and norm ratio."""
    shapes, of_reference = ([tuple(t.shape) for t in g] for g in (gradients, reference))
    if shapes != of_reference:
        raise InvalidArgumentError(f"gradients have shapes {shapes}; the reference {of_reference}")
    products = [_products(a, b) for a, b in zip(gradients, reference, strict=True)]
    product, square, square_of_reference = torch.stack(products).sum(0)
    norm, of_reference_norm = square.sqrt(), square_of_reference.sqrt()
    cosine = (product / (norm * of_reference_norm)).clamp(-1, 1)
    return torch.acos(cosine) * (180 / math.pi), norm / of_reference_norm


def _products(a: Tensor, b: Tensor) -> Tensor:
    """(3,) float64 a·b, a·a, b·b; one parameter at a time is widened."""
    a, b = a.double().flatten(), b.double().flatten()
    return torch.stack([a @ b, a @ a, b @ b])
