"""Objective: what every training objective can be asked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from sparselogits.errors import InvalidArgumentError
from sparselogits.torch.batch import IGNORED_LABEL
from sparselogits.torch.objectives.inputs import Inputs, check_inputs
from sparselogits.torch.objectives.label_term import LabelTerm, label_term
from sparselogits.torch.targets import SparseTargets


@dataclass(frozen=True)
class Objective(ABC):
    """A loss of the student's logits, made from what a cache, a text or a live teacher says."""

    biased: ClassVar[bool] = False
    """Whether the expected gradient, without labels mixed in, differs from that of full KD."""

    @property
    def label_share(self) -> float:
        """Share of the loss that is cross-entropy against the labels, beside the rest."""
        return 0.0

    def __call__(
        self,
        logits: Tensor,
        targets: SparseTargets | None = None,
        *,
        labels: Tensor | None = None,
        teacher_logits: Tensor | None = None,
        mask: Tensor | None = None,
        position_weights: Tensor | None = None,
        temperature: float = 1.0,
        scale_by_temperature_squared: bool = False,
        reduction: str = "mean",
        num_items: float | Tensor | None = None,
        subtract_entropy: bool = False,
    ) -> Tensor:
        """The loss, in nats; its gradient is computed with it.

        What an objective has no use for is accepted and not read, so that one training loop can
        call any of them; what it needs and was not given is refused. Losses are cross-entropies
        against the objective's target, as `sparse_kd_loss` gives them; KL divergences differ by the
        target's entropy, which no gradient sees. `torch.compile` leaves its graph for a call;
        `sparse_kd_loss` with `sparse_targets` it keeps in one.

        Args:
            logits: (B, S, V) or (R, V), of the student.
            targets: R = B·S rows, of a cache.
            labels: (B, S) or (R,) next tokens, -100 where there is none.
            teacher_logits: (B, S, V') or (R, V') of a live teacher, V' ≤ V, constant. Logarithms of
                probabilities are logits too.
            mask: (B, S) or (R,) bool, True keeps a row. Padding of a live teacher has to be left
                out by it. Ignored rows have a loss and gradient of zero, whatever they hold.
            position_weights: (B, S) or (R,), at least 0; they multiply the losses of rows and do
                not change what a mean is divided by.
            temperature: Divides the logits of the student, and those of a live teacher (Hinton et
                al. 2015). Targets of a cache keep the temperature that they were drawn at.
            scale_by_temperature_squared: Multiply the loss, and so its gradient, by T².
            reduction: "mean" over the rows that are not ignored, "sum", or "none".
            num_items: Divide by this instead of the number of rows that are not ignored.
            subtract_entropy: Take off the target's entropy (where labels are mixed in, that of the
                unmixed target times its share): a KL divergence, with the same gradient.

        Returns:
            float32 (float64 for float64 logits): a scalar, or the leading shape for "none".

        Raises:
            InvalidArgumentError: Something that the objective needs is missing; a shape, dtype,
                device or keyword is wrong.
            VocabularyMismatchError: The logits have fewer columns than there are tokens.
        """
        keywords: dict[str, Any] = {
            "temperature": temperature,
            "scale_by_temperature_squared": scale_by_temperature_squared,
            "reduction": reduction,
            "num_items": num_items,
        }
        given = (logits, targets, labels, teacher_logits, mask, position_weights, keywords)
        if torch.compiler.is_compiling():
            from sparselogits.torch.objectives import graph_break

            return graph_break.evaluate(self, given, subtract_entropy)
        return self.evaluate(given, subtract_entropy)

    def evaluate(self, given: tuple[Any, ...], subtract_entropy: bool) -> Tensor:
        """What a call does with its arguments, those of `check_inputs`; see there."""
        inputs = check_inputs(*given)
        if self.label_share:
            self.need(inputs.labels, "labels")
        loss = self._loss(inputs)
        if subtract_entropy:
            entropy, keep = self._entropy(inputs)
            loss = loss - inputs.reduced((1 - self.label_share) * entropy, keep)
        return loss.reshape(inputs.leading) if inputs.keywords["reduction"] == "none" else loss

    @abstractmethod
    def _loss(self, inputs: Inputs) -> Tensor:
        """The reduced loss; (R,) for "none"."""

    @abstractmethod
    def _entropy(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """(R,) entropies of the unmixed target, and which rows count."""

    def need(self, given: Any, name: str) -> Any:
        """`given`, refused where it is missing."""
        if given is None:
            raise InvalidArgumentError(f"{type(self).__name__} needs {name}")
        return given

    def _label_term(self, inputs: Inputs) -> LabelTerm:
        """`label_share` of cross-entropy against the labels."""
        labels = inputs.labels if self.label_share else None
        if labels is None:
            labels = inputs.logits.new_full((len(inputs.logits),), IGNORED_LABEL, dtype=torch.int64)
        return label_term(labels, self.label_share, inputs.dtype)

    def _kept_rows(self, inputs: Inputs, taught: Tensor | None = None) -> Tensor:
        """(R,) bool: rows that are `taught` (None: all) or have a label, as far as that counts."""
        if taught is None:
            taught = torch.ones_like(inputs.logits[:, 0], dtype=torch.bool)
        if self.label_share == 1:
            taught = torch.zeros_like(taught)
        return inputs.kept(taught | (self._label_term(inputs).weight > 0))


@dataclass(frozen=True)
class Distillation(Objective):
    """An objective that teaches a distribution and may have labels mixed in.

    Attributes:
        alpha: (1 - alpha) of the loss is distillation and alpha cross-entropy against the labels,
            0 to 1. A row whose label is -100 has no second part; with alpha = 1 it is ignored.
    """

    alpha: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise InvalidArgumentError(f"alpha is {self.alpha!r}; it must be from 0 to 1")

    @property
    def label_share(self) -> float:
        """alpha."""
        return self.alpha
