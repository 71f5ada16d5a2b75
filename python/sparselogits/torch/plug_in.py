"""The sparse loss on top of a cross-entropy kernel that one already has."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sparselogits.errors import InvalidArgumentError
from sparselogits.torch.arguments import check_head, flatten_rows
from sparselogits.torch.autocast import cast_as_linear, without_autocast
from sparselogits.torch.batch import IGNORED_LABEL
from sparselogits.torch.head_entries import differentiable_logits_at
from sparselogits.torch.rows import Rows
from sparselogits.torch.targets import SparseTargets
from sparselogits.torch.terms import make_terms

_WEIGHT_TOLERANCE = 1e-5  # of a sum of float32 weights that are counts / rounds

CrossEntropy = Callable[[Tensor, Tensor, Tensor, "Tensor | None"], Tensor]


def plug_in_sparse_kd_loss(
    cross_entropy: CrossEntropy,
    hidden: Tensor,
    weight: Tensor,
    targets: SparseTargets,
    *,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    position_weights: Tensor | None = None,
    labels: Tensor | None = None,
    alpha: float = 0.0,
    temperature: float = 1.0,
    scale_by_temperature_squared: bool = False,
    reduction: str = "mean",
    num_items: float | Tensor | None = None,
    per_row: bool = False,
) -> Tensor:
    """`fused_linear_sparse_kd_loss`, with all that is as large as the vocabulary left to a kernel.

    With y the heaviest id of a row, W its weights' sum and z its logits,

        Σ_k w_k (lse - z_k) = W · CE(z, y) + W · z_y - Σ_k w_k z_k.

    The kernel computes CE; the rest are dot products of K rows of the head's matrix with the hidden
    state, which are made here in float32. Autograd adds the gradients of both parts in the dtype of
    the inputs, so at target ids of narrow inputs they carry one rounding more than those of the
    fused loss. A soft-cap is not linear and has no such form.

    Args:
        cross_entropy: Takes x (R, H), weight (V, H), labels (R,) int64 where -100 is to be ignored,
            and bias (V,) or None. Returns the sum of the rows' losses, or with `per_row` a loss
            for each, 0 where ignored. Differentiable in x, weight and bias.
        hidden: (B, S, H) or (R, H), the input of the student's output head.
        weight: (V, H), the head's matrix; V may exceed the cache's vocabulary.
        targets: R = B·S rows, on the same device. An empty row is ignored.
        bias: (V,) or None.
        mask, position_weights, labels, alpha: As in `sparse_kd_loss`. Position weights and ignored
            labels make sums W other than 1.
        temperature: As in `sparse_kd_loss`; hidden states and bias are divided by it, and so
            rounded once more.
        scale_by_temperature_squared: As in `sparse_kd_loss`.
        reduction: "mean" or "sum", with `per_row` also "none".
        num_items: As in `sparse_kd_loss`.
        per_row: The kernel returns a loss for each row, which are then multiplied with W. Without
            it all rows that are not ignored must have W = 1, which is checked and waits for the
            device.

    Returns:
        float32 (float64 for float64 inputs), nats: a scalar, or the leading shape for "none".

    Raises:
        InvalidArgumentError: A shape, dtype, device or keyword is wrong; W is not 1, or the kernel
            returned another shape than `per_row` says.
        VocabularyMismatchError: The head has fewer rows than the cache's vocabulary.
    """
    hidden, weight, bias = cast_as_linear(hidden, weight, bias)
    flat, leading = flatten_rows(hidden, "hidden")
    check_head(flat, weight, bias)
    terms = make_terms(
        targets,
        flat,
        "hidden",
        leading,
        weight.shape[0],
        mask=mask,
        position_weights=position_weights,
        labels=labels,
        alpha=alpha,
        softcap=None,
        temperature=temperature,
        scale_by_temperature_squared=scale_by_temperature_squared,
        reduction=reduction,
        reductions=("mean", "sum", "none") if per_row else ("mean", "sum"),
        num_items=num_items,
    )
    with without_autocast(hidden.device):
        rows, scaling = terms.resolve(flat.dtype)
        dtype = rows.total.dtype
        if not per_row:
            _check_totals(rows)
        # 0 · NaN is NaN: an ignored row must not reach the gradient of the weight.
        x = flat.masked_fill(~rows.keep[:, None], 0)
        if temperature != 1.0:
            x, bias = x / temperature, None if bias is None else bias / temperature
        place, label = heaviest(rows)
        entropy = cross_entropy(x, weight, torch.where(rows.keep, label, IGNORED_LABEL), bias)
        shape = (len(x),) if per_row else ()
        if entropy.shape != shape:
            raise InvalidArgumentError(
                f"cross_entropy returned shape {tuple(entropy.shape)}; with per_row={per_row} it "
                f"must be {shape}"
            )
        total = rows.total if per_row else torch.ones_like(rows.total)
        coefficient = torch.where(place, total[rows.row], 0) - rows.weight
        coefficient = torch.where(rows.keep[rows.row], coefficient, 0)
        logits = differentiable_logits_at(x, weight, bias, rows.row, rows.token_id)
        # A weight of 0 asks for nothing, where 0 · inf would be NaN.
        products = torch.where(coefficient != 0, coefficient * logits, 0)
        rest = torch.zeros_like(total).index_add_(0, rows.row, products)
        if per_row:
            losses = torch.where(rows.keep, total * entropy.to(dtype) + rest, 0)
            loss = scaling.reduce(losses * scaling.loss_scale)
            return loss.reshape(leading) if reduction == "none" else loss
        whole = entropy.to(dtype) + rest.sum()
        return whole * scaling.loss_scale * scaling.inverse_count


def heaviest(rows: Rows) -> tuple[Tensor, Tensor]:
    """Which entry of each row has the most weight, the first of equals, as (E,) bool; its ids (R,).

    The id of a row without entries is 0.
    """
    num_rows, num_entries = len(rows.total), len(rows.row)
    numbers = torch.arange(num_entries, device=rows.row.device)
    most = torch.zeros_like(rows.total).scatter_reduce_(0, rows.row, rows.weight, "amax")
    candidates = torch.where(rows.weight == most[rows.row], numbers, num_entries)
    first = numbers.new_full((num_rows,), num_entries)
    first.scatter_reduce_(0, rows.row, candidates, "amin")
    place = numbers == first[rows.row]
    ids = torch.zeros_like(first).index_add_(0, rows.row, torch.where(place, rows.token_id, 0))
    return place, ids


def _check_totals(rows: Rows) -> None:
    bad = rows.keep & ((rows.total - 1).abs() > _WEIGHT_TOLERANCE)
    if bool(bad.any()):
        row = int(bad.nonzero()[0, 0])
        raise InvalidArgumentError(
            f"the weights of row {row} sum to {float(rows.total[row])}; without per_row they must "
            f"sum to 1 within {_WEIGHT_TOLERANCE}"
        )
