"""linear_lse_sparse_kd_loss: the loss of the head as W · lse less K logits a row."""

from __future__ import annotations

import torch
from torch import Tensor

from sparselogits.torch.fused import _autocast
from sparselogits.torch.head_lse import lse_and_logits, make_head
from sparselogits.torch.losses import check_targets, flatten_mask, flatten_rows
from sparselogits.torch.reduction import make_scaling
from sparselogits.torch.rows import compute_dtype, unfold
from sparselogits.torch.targets import SparseTargets


def linear_lse_sparse_kd_loss(
    hidden: Tensor,
    weight: Tensor,
    targets: SparseTargets,
    *,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    temperature: float = 1.0,
    scale_by_temperature_squared: bool = False,
    softcap: float | None = None,
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
        targets: R = B·S rows, on the same device. An empty row is ignored.
        bias: (V,) or None.
        mask, temperature, scale_by_temperature_squared, num_items: As in `sparse_kd_loss`.
        softcap: See `linear_lse`.
        reduction: "mean", "sum", or "none" for one loss per row.
        part_columns: See `linear_lse`.

    Returns:
        float32 (float64 for float64 inputs), nats: a scalar, or the leading shape for "none".

    Raises:
        InvalidArgumentError: A shape, dtype, device or keyword is wrong.
        VocabularyMismatchError: The head has fewer rows than the cache's vocabulary.
    """
    hidden, weight, bias = _autocast(hidden, weight, bias)
    flat, leading = flatten_rows(hidden, "hidden")
    head = make_head(flat, weight, bias, temperature, softcap)
    check_targets(targets, flat, "hidden", weight.shape[0])
    with torch.autocast(hidden.device.type, enabled=False):
        dtype = compute_dtype(flat.dtype)
        rows = unfold(targets, flatten_mask(mask, leading, hidden.device), dtype)
        scaling = make_scaling(
            rows.keep,
            flat.dtype,
            dtype,
            temperature=temperature,
            scale_by_temperature_squared=scale_by_temperature_squared,
            reduction=reduction,
            num_items=num_items,
            reductions=("mean", "sum", "none"),
        )
        # 0 · NaN is NaN: an ignored row must not reach the gradient of the weight.
        x = flat.masked_fill(~rows.keep[:, None], 0)
        lse, logits = lse_and_logits(x, head, rows.row, rows.token_id, part_columns)
        surprise = rows.weight * (lse[rows.row] - logits)
        losses = torch.zeros_like(rows.total).index_add_(0, rows.row, surprise)
        loss = scaling.reduce(torch.where(rows.keep, losses * scaling.loss_scale, 0))
    return loss.reshape(leading) if reduction == "none" else loss
