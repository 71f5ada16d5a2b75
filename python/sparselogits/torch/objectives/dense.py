"""Objectives whose target has an entry for every token: full KD, reverse KL, label smoothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sparselogits.errors import InvalidArgumentError
from sparselogits.torch.batch import IGNORED_LABEL
from sparselogits.torch.objectives.inputs import Inputs
from sparselogits.torch.objectives.label_term import label_term
from sparselogits.torch.objectives.linear_rows import LinearRows
from sparselogits.torch.objectives.objective import Distillation, Objective
from sparselogits.torch.objectives.reverse_rows import ReverseRows
from sparselogits.torch.objectives.row_loss import row_loss
from sparselogits.torch.row_blocks import row_blocks, scaled, softmax


@dataclass(frozen=True)
class FullKD(Distillation):
    """Cross-entropy against every probability of a live teacher: what RS-KD estimates."""

    def _loss(self, inputs: Inputs) -> Tensor:
        kernel = LinearRows(
            self._label_term(inputs),
            teacher_logits=self.need(inputs.teacher_logits, "teacher_logits"),
            teacher_weight=1 - self.alpha,
        )
        return row_loss(
            inputs.logits,
            kernel,
            self._kept_rows(inputs),
            inputs.position_weights,
            **inputs.keywords,
        )

    def _entropy(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        teacher = self.need(inputs.teacher_logits, "teacher_logits")
        entropies = torch.zeros(len(teacher), dtype=inputs.dtype, device=teacher.device)
        for rows in row_blocks(teacher, inputs.dtype):
            p, _ = softmax(scaled(teacher[rows], inputs.temperature, inputs.dtype))
            entropies[rows] = -torch.xlogy(p, p).sum(-1)
        return entropies, self._kept_rows(inputs)


@dataclass(frozen=True)
class ReverseKD(Distillation):
    """Reverse KL divergence KL(student ‖ teacher) from a live teacher.

    Its gradient is not linear in the teacher, so draws of a cache would make it biased, and it
    takes none. It is a divergence already: there is no entropy of a target to subtract. A token
    that the teacher cannot say (-inf) makes it infinite.
    """

    biased: ClassVar[bool] = True

    def _loss(self, inputs: Inputs) -> Tensor:
        teacher = self.need(inputs.teacher_logits, "teacher_logits")
        if teacher.shape[1] != inputs.logits.shape[1]:
            raise InvalidArgumentError(
                f"teacher_logits has {teacher.shape[1]} columns and logits "
                f"{inputs.logits.shape[1]}; reverse KL needs the same"
            )
        kernel = ReverseRows(teacher, 1 - self.alpha, self._label_term(inputs))
        return row_loss(
            inputs.logits,
            kernel,
            self._kept_rows(inputs),
            inputs.position_weights,
            **inputs.keywords,
        )

    def _entropy(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        raise InvalidArgumentError("ReverseKD is a KL divergence already; drop subtract_entropy")


@dataclass(frozen=True)
class LabelSmoothing(Objective):
    """Cross-entropy against (1 - epsilon) of the label and epsilon of all tokens alike.

    Biased: the tail of a language model is not uniform (Anshumann et al. 2025, section 3). What
    `F.cross_entropy(label_smoothing=epsilon)` computes. `TopK(rest="uniform")` smooths the residual
    of a teacher's top tokens instead.

    Attributes:
        epsilon: 0 to 1.
        vocab_size: Spread over the first that many columns; None: over all columns of the logits.
    """

    epsilon: float = 0.1
    vocab_size: int | None = None

    biased: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon <= 1:
            raise InvalidArgumentError(f"epsilon is {self.epsilon!r}; it must be from 0 to 1")

    def _loss(self, inputs: Inputs) -> Tensor:
        labels = self.need(inputs.labels, "labels")
        columns = self._columns(inputs)
        share = torch.full((len(labels),), self.epsilon / columns, device=labels.device)
        kernel = LinearRows(
            label_term(labels, 1 - self.epsilon, inputs.dtype),
            uniform=share.to(inputs.dtype),
            uniform_columns=columns,
        )
        keep = inputs.kept(labels != IGNORED_LABEL)
        return row_loss(inputs.logits, kernel, keep, inputs.position_weights, **inputs.keywords)

    def _entropy(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        labels = self.need(inputs.labels, "labels")
        columns = self._columns(inputs)
        each = self.epsilon / columns
        at_label = 1 - self.epsilon + each
        entropy = -sum(n * t * math.log(t) for n, t in ((1, at_label), (columns - 1, each)) if t)
        keep = inputs.kept(labels != IGNORED_LABEL)
        return torch.full_like(keep, entropy, dtype=inputs.dtype), keep

    def _columns(self, inputs: Inputs) -> int:
        width = inputs.logits.shape[1]
        if self.vocab_size is not None and not 1 <= self.vocab_size <= width:
            raise InvalidArgumentError(
                f"vocab_size is {self.vocab_size}; the logits have {width} columns"
            )
        return width if self.vocab_size is None else self.vocab_size
