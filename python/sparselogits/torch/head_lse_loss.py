"""linear_lse_sparse_kd_loss: the loss of the head as W · lse less K logits a row."""

from __future__ import annotations

import torch
from torch import Tensor

from sparselogits.torch.arguments import check_head, flatten_rows
from sparselogits.torch.autocast import cast_as_linear, without_autocast
from sparselogits.torch.finish import Finish
from sparselogits.torch.head import Head
from sparselogits.torch.head_lse import lse_and_logits
from sparselogits.torch.targets import SparseTargets
from sparselogits.torch.terms import make_terms


def linear_lse_sparse_kd_loss(
    hidden: Tensor,
    weight: Tensor,
    targets: SparseTargets,
    *,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    position_weights: Tensor | None = None,
    labels: Tensor | None = None,
    alpha: float = 0.0,
    softcap: float | None = None,
    temperature: float = 1.0,
    scale_by_temperature_squared: bool = False,
    reduction: str = "mean",
    num_items: float | Tensor | None = None,
    part_columns: int | None = None,
) -> Tensor:
    """`fused_linear_sparse_kd_loss` that computes logits twice instead of keeping gradients.

    L_t = W_t · lse_t - Σ_k w_tk z_tk, with `linear_lse` for the first term and single dot products
    for the second. Nothing of the size of the head is kept between the passes, and no gradient is
    made in the forward pass: take it where those two buffers hurt (heads that are checkpointed,
    losses whose gradient is often not asked for), or for one loss per row. Otherwise the fused loss
    is faster: it multiplies three times and not four.

    Args:
        hidden: (B, S, H) or (R, H), the input of the student's output head.
        weight: (V, H), the head's matrix; V may exceed the cache's vocabulary.
        targets: R = B·S rows, on the same device.
        bias: (V,) or None.
        mask, position_weights, labels, alpha, softcap, temperature, scale_by_temperature_squared,
            num_items: As in `sparse_kd_loss`.
        reduction: "mean", "sum", or "none" for one loss per row.
        part_columns: See `linear_lse`.

    Returns:
        float32 (float64 for float64 inputs), nats: a scalar, or the leading shape for "none".

    Raises:
        InvalidArgumentError: A shape, dtype, device or keyword is wrong.
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
        softcap=softcap,
        temperature=temperature,
        scale_by_temperature_squared=scale_by_temperature_squared,
        reduction=reduction,
        reductions=("mean", "sum", "none"),
        num_items=num_items,
    )
    with without_autocast(hidden.device):
        rows, scaling = terms.resolve(flat.dtype)
        # 0 · NaN is NaN: an ignored row must not reach the gradient of the weight.
        x = flat.masked_fill(~rows.keep[:, None], 0)
        head = Head(weight, bias, Finish(scaling.temperature, scaling.softcap))
        lse, logits = lse_and_logits(x, head, rows.row, rows.token_id, part_columns)
        # A weight of 0 asks for nothing, where 0 · inf would be NaN.
        surprise = torch.where(rows.weight > 0, lse[rows.row] - logits, 0) * rows.weight
        losses = torch.zeros_like(rows.total).index_add_(0, rows.row, surprise)
        loss = scaling.reduce(torch.where(rows.keep, losses * scaling.loss_scale, 0))
    return loss.reshape(leading) if reduction == "none" else loss
