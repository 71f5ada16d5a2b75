"""Top-K and Top-p, and what becomes of the mass that they leave out. All of them are biased."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from sparselogits.errors import InvalidArgumentError
from sparselogits.torch.objectives.ghost_rows import GhostRows
from sparselogits.torch.objectives.inputs import Inputs
from sparselogits.torch.objectives.linear_rows import LinearRows
from sparselogits.torch.objectives.objective import Distillation
from sparselogits.torch.objectives.residual import give_to_labels, missing_mass, renormalised
from sparselogits.torch.objectives.row_loss import row_loss
from sparselogits.torch.objectives.sparse_objective import SparseObjective, target_entropy
from sparselogits.torch.objectives.targets import top_k_targets, top_p_targets
from sparselogits.torch.rows import unfold
from sparselogits.torch.targets import SparseTargets

REST = ("renormalise", "drop", "label")


@dataclass(frozen=True)
class KeptTokens(Distillation):
    """A teacher's most likely tokens: stored ones (`targets`), or those of a live teacher.

    Attributes:
        k: Keep the k most likely tokens of a live teacher.
        p: Or the fewest that hold the mass p. Neither: the tokens are stored.
    """

    k: int | None = None
    p: float | None = None

    biased: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k is not None and self.p is not None:
            raise InvalidArgumentError(f"k is {self.k} and p is {self.p}; one of them chooses")

    def kept(
        self,
        targets: SparseTargets | None = None,
        teacher_logits: Tensor | None = None,
        temperature: float = 1.0,
    ) -> SparseTargets:
        """The kept probabilities as they are.

        Raises:
            InvalidArgumentError: There are no stored tokens, and nothing to choose from or by.
        """
        if self.k is None and self.p is None:
            stored: SparseTargets = self.need(targets, "targets, or k or p")
            return stored
        teacher = self.need(teacher_logits, "teacher_logits to choose tokens from")
        if self.k is not None:
            return top_k_targets(teacher, self.k, temperature=temperature)
        assert self.p is not None
        return top_p_targets(teacher, self.p, temperature=temperature)

    def _kept_of(self, inputs: Inputs) -> tuple[SparseTargets, Tensor]:
        """The kept probabilities of one call, and (R,) bool which rows the loss is about."""
        kept = self.kept(inputs.targets, inputs.teacher_logits, inputs.temperature)
        return kept, self._kept_rows(inputs, kept.offsets.diff() > 0)


@dataclass(frozen=True)
class TopTokens(KeptTokens, SparseObjective):
    """Top-K (Top-p) KD. Biased (Anshumann et al. 2025, section 3).

    A student of the kept tokens alone scales them up and learns nothing of the tail.

    Attributes:
        rest: What becomes of the missing mass 1 - Σ p. "renormalise": the kept probabilities are
            divided by their sum. "drop": they are used as they are, and the gradient is
            (Σ p) q - p. "label": it goes to the label (the paper's naive fix); rows without a label
            are ignored.
    """

    rest: str = field(default="renormalise", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rest not in REST:
            raise InvalidArgumentError(f"rest is {self.rest!r}; it must be one of {REST}")

    def sparse_targets(
        self,
        targets: SparseTargets | None = None,
        *,
        labels: Tensor | None = None,
        teacher_logits: Tensor | None = None,
        temperature: float = 1.0,
    ) -> SparseTargets:
        """The kept tokens, with the missing mass where `rest` says."""
        kept = self.kept(targets, teacher_logits, temperature)
        if self.rest == "renormalise":
            return renormalised(kept)
        return give_to_labels(kept, self.need(labels, "labels")) if self.rest == "label" else kept


@dataclass(frozen=True)
class GhostToken(KeptTokens):
    """The kept tokens and one class more, "none of them", which both models have.

        L = Σ p log(p / q) + (1 - Σ p) log((1 - Σ p) / (1 - Σ q))        up to the entropy of p

    Biased: nothing says how the rest is shared out (Anshumann et al. 2025, section 3).
    """

    def _loss(self, inputs: Inputs) -> Tensor:
        kept, keep = self._kept_of(inputs)
        entries = unfold(kept, None, inputs.dtype)
        missing = missing_mass(kept).to(inputs.dtype)
        kernel = GhostRows(entries, missing, 1 - self.alpha, self._label_term(inputs))
        return row_loss(inputs.logits, kernel, keep, inputs.position_weights, **inputs.keywords)

    def _entropy(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        kept, keep = self._kept_of(inputs)
        missing = missing_mass(kept)
        entropy = target_entropy(kept) - torch.xlogy(missing, missing)
        return entropy.to(inputs.dtype), keep


@dataclass(frozen=True)
class SmoothedResidual(KeptTokens):
    """The kept tokens, and the missing mass spread over the whole vocabulary.

    The paper's label smoothing for Top-K. Biased: the tail of a language model is not uniform
    (Anshumann et al. 2025, section 3). The vocabulary is that of the targets or of the teacher,
    else all columns of the logits.
    """

    def _loss(self, inputs: Inputs) -> Tensor:
        kept, keep = self._kept_of(inputs)
        entries = unfold(kept, None, inputs.dtype)
        share, columns = 1 - self.alpha, self._columns(kept, inputs)
        kernel = LinearRows(
            self._label_term(inputs),
            uniform=share * _each(kept, columns).to(inputs.dtype),
            uniform_columns=columns,
            entries=replace(entries, weight=share * entries.weight, total=share * entries.total),
        )
        return row_loss(inputs.logits, kernel, keep, inputs.position_weights, **inputs.keywords)

    def _entropy(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        kept, keep = self._kept_of(inputs)
        columns = self._columns(kept, inputs)
        each, lengths = _each(kept, columns), kept.offsets.diff()
        row = torch.repeat_interleave(lengths, output_size=kept.num_entries)
        raised = kept.weights + each[row]
        entropy = -(columns - lengths) * torch.xlogy(each, each)
        entropy = entropy.index_add_(0, row, -torch.xlogy(raised, raised))
        return entropy.to(inputs.dtype), keep

    def _columns(self, kept: SparseTargets, inputs: Inputs) -> int:
        return inputs.logits.shape[1] if kept.vocab_size is None else kept.vocab_size


def _each(kept: SparseTargets, columns: int) -> Tensor:
    """(R,) what every token gets of the missing mass; nothing in rows that are empty."""
    return torch.where(kept.offsets.diff() > 0, missing_mass(kept) / columns, 0)
