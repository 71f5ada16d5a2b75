"""Objectives that are a sparse target: computed by the sparse losses, at their speed."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparselogits.torch.fused import fused_linear_sparse_kd_loss
from sparselogits.torch.losses import sparse_kd_loss
from sparselogits.torch.objectives.inputs import Inputs
from sparselogits.torch.objectives.objective import Distillation, Objective
from sparselogits.torch.targets import SparseTargets


class SparseObjective(Objective):
    """An objective whose target has few entries a row."""

    @abstractmethod
    def sparse_targets(
        self,
        targets: SparseTargets | None = None,
        *,
        labels: Tensor | None = None,
        teacher_logits: Tensor | None = None,
        temperature: float = 1.0,
    ) -> SparseTargets:
        """The target, without the labels that `alpha` mixes in: the losses do that."""

    def of_head(
        self,
        hidden: Tensor,
        weight: Tensor,
        targets: SparseTargets | None = None,
        *,
        labels: Tensor | None = None,
        teacher_logits: Tensor | None = None,
        temperature: float = 1.0,
        **keywords: Any,
    ) -> Tensor:
        """The objective of `linear(hidden, weight)`, whose logits never exist as a whole.

        Args:
            hidden: (B, S, H) or (R, H), the input of the student's output head.
            weight: (V, H).
            targets, labels, teacher_logits, temperature: As for a call of the objective.
            keywords: Passed on to `fused_linear_sparse_kd_loss`.
        """
        made = self.sparse_targets(
            targets, labels=labels, teacher_logits=teacher_logits, temperature=temperature
        )
        return fused_linear_sparse_kd_loss(
            hidden, weight, made, temperature=temperature, **self._mixed(labels), **keywords
        )

    def _loss(self, inputs: Inputs) -> Tensor:
        keywords = self._mixed(inputs.labels) | inputs.keywords
        if inputs.position_weights is not None:
            keywords["position_weights"] = inputs.position_weights
        return sparse_kd_loss(inputs.logits, self._made(inputs), mask=inputs.mask, **keywords)

    def _entropy(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        made = self._made(inputs)
        return target_entropy(made).to(inputs.dtype), self._kept_rows(
            inputs, made.offsets.diff() > 0
        )

    def _made(self, inputs: Inputs) -> SparseTargets:
        return self.sparse_targets(
            inputs.targets,
            labels=inputs.labels,
            teacher_logits=inputs.teacher_logits,
            temperature=inputs.temperature,
        )

    def _mixed(self, labels: Tensor | None) -> dict[str, Any]:
        if not self.label_share:
            return {}
        return {"labels": self.need(labels, "labels"), "alpha": self.label_share}


@dataclass(frozen=True)
class CrossEntropy(SparseObjective):
    """Cross-entropy against the labels: plain language modelling.

    To the sparse losses it is a mixture of nothing but labels.
    """

    @property
    def label_share(self) -> float:
        """All of it."""
        return 1.0

    def sparse_targets(
        self,
        targets: SparseTargets | None = None,
        *,
        labels: Tensor | None = None,
        teacher_logits: Tensor | None = None,
        temperature: float = 1.0,
    ) -> SparseTargets:
        """Rows without entries: the losses mix the labels in (`label_targets` has them)."""
        given: Tensor = self.need(labels, "labels")
        offsets = torch.zeros(given.numel() + 1, dtype=torch.int64)
        return SparseTargets.with_host_offsets(
            offsets.to(given.device),
            torch.empty(0, dtype=torch.int64, device=given.device),
            torch.empty(0, device=given.device),
            None,
            offsets,
        )


@dataclass(frozen=True)
class SampledKD(Distillation, SparseObjective):
    """Random Sampling KD: cross-entropy against the draws of a cache. Unbiased.

    The expected gradient is that of full KD (Anshumann et al. 2025, section 4). `sampled_targets`
    draws from a live teacher.
    """

    def sparse_targets(
        self,
        targets: SparseTargets | None = None,
        *,
        labels: Tensor | None = None,
        teacher_logits: Tensor | None = None,
        temperature: float = 1.0,
    ) -> SparseTargets:
        """The targets as they are."""
        made: SparseTargets = self.need(targets, "targets")
        return made


def target_entropy(targets: SparseTargets) -> Tensor:
    """(R,) float32 -Σ w log w, nats: by what a cross-entropy exceeds the KL divergence."""
    row = torch.repeat_interleave(targets.offsets.diff(), output_size=targets.num_entries)
    terms = -torch.xlogy(targets.weights, targets.weights)
    return terms.new_zeros(targets.num_rows).index_add_(0, row, terms)
