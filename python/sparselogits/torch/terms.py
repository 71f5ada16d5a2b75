"""Terms: what a loss was asked to compute, checked by shape and not yet looked into."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparselogits.errors import InvalidArgumentError, VocabularyMismatchError
from sparselogits.torch.arguments import (
    check_position_weights,
    check_targets,
    flatten_labels,
    flatten_mask,
    flatten_position_weights,
)
from sparselogits.torch.batch import IGNORED_LABEL
from sparselogits.torch.host_memory import is_host
from sparselogits.torch.reduction import Scaling, check_reduction, make_scaling
from sparselogits.torch.rows import Rows, compute_dtype, unfold
from sparselogits.torch.targets import SparseTargets


@dataclass(frozen=True)
class Terms:
    """The keywords of a loss over R rows.

    Making one looks at no value, which is what lets a compiler trace it; `resolve` looks.

    Attributes:
        targets: R rows.
        width: V, the columns of the logits.
        mask, position_weights, labels: (R,) or None.
        num_items, alpha, temperature, scale_by_temperature_squared, reduction, softcap: As in
            `sparse_kd_loss`.
    """

    targets: SparseTargets
    width: int
    mask: Tensor | None
    position_weights: Tensor | None
    labels: Tensor | None
    num_items: float | Tensor | None
    alpha: float
    temperature: float
    scale_by_temperature_squared: bool
    reduction: str
    softcap: float | None

    def resolve(self, dtype: torch.dtype) -> tuple[Rows, Scaling]:
        """The targets of logits of `dtype` and every factor on their loss.

        Raises:
            InvalidArgumentError: A keyword, or a value in host memory, that means nothing.
            VocabularyMismatchError: An id in host memory is beyond the logits.
        """
        if is_host(self.targets.device):
            _check_values(self)
        compute = compute_dtype(dtype)
        rows = unfold(
            self.targets,
            self.mask,
            compute,
            width=self.width,
            labels=self.labels,
            alpha=self.alpha,
            position_weights=self.position_weights,
        )
        scaling = make_scaling(
            rows.keep,
            dtype,
            compute,
            temperature=self.temperature,
            scale_by_temperature_squared=self.scale_by_temperature_squared,
            reduction=self.reduction,
            num_items=self.num_items,
            softcap=self.softcap,
        )
        return rows, scaling


def make_terms(
    targets: SparseTargets,
    rows: Tensor,
    name: str,
    leading: torch.Size,
    width: int,
    *,
    mask: Tensor | None,
    position_weights: Tensor | None,
    labels: Tensor | None,
    alpha: float,
    temperature: float,
    scale_by_temperature_squared: bool,
    reduction: str,
    reductions: tuple[str, ...],
    num_items: float | Tensor | None,
    softcap: float | None,
) -> Terms:
    """The terms of a loss over the rows (R, ...) of the argument `name`.

    Raises:
        InvalidArgumentError: A shape, dtype, device or reduction is wrong.
        VocabularyMismatchError: There are fewer columns than the cache's vocabulary.
    """
    check_targets(targets, rows, name, width)
    check_reduction(reduction, reductions)
    return Terms(
        targets=targets,
        width=width,
        mask=flatten_mask(mask, leading, rows.device),
        position_weights=flatten_position_weights(position_weights, leading, rows.device),
        labels=flatten_labels(labels, alpha, leading, rows.device),
        num_items=num_items,
        alpha=alpha,
        temperature=temperature,
        scale_by_temperature_squared=scale_by_temperature_squared,
        reduction=reduction,
        softcap=softcap,
    )


def _check_values(terms: Terms) -> None:
    targets, width = terms.targets, terms.width
    if targets.vocab_size is None and targets.num_entries:
        _check_largest("targets", targets.token_ids, width)
    if terms.labels is not None and terms.labels.numel():
        _check_largest("labels", terms.labels, width)
        bad = ((terms.labels < 0) & (terms.labels != IGNORED_LABEL)).nonzero()
        if bad.numel():
            row = int(bad[0, 0])
            raise InvalidArgumentError(
                f"labels of row {row} is {int(terms.labels[row])}; it must be a token id, or "
                f"{IGNORED_LABEL} for none"
            )
    if terms.position_weights is not None:
        check_position_weights(terms.position_weights)


def _check_largest(name: str, ids: Tensor, width: int) -> None:
    largest = int(ids.max())
    if largest >= width:
        raise VocabularyMismatchError(
            f"{name} holds token id {largest} and the student's head has {width} ids"
        )
