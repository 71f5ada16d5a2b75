"""The arithmetic that both losses share: rows of logits against sparse targets.

For a row z of logits, z' = z / T, entries (k, w_k), W = Σ w_k and p = softmax(z'):

    L = c · Σ_k w_k (lse(z') - z'_k)          dL/dz_j = (c / T) · (W p_j - w_j)

with c = T² where that is asked for, else 1. Everything here is computed in float32 (float64 for
float64 logits), and only the finished gradient is rounded to the dtype of the logits.
"""

from __future__ import annotations

from torch import Tensor

from sparselogits.torch import row_core, row_torch, row_triton
from sparselogits.torch.rows import Rows


def loss_and_gradient(
    logits: Tensor,
    rows: Rows,
    temperature: float,
    loss_scale: float,
    gradient_scale: Tensor,
    out: Tensor | None,
) -> Tensor:
    """Losses of R rows, and their gradient in the same pass.

    Args:
        logits: (R, V).
        rows: The targets of these R rows.
        temperature: T above.
        loss_scale: c above.
        gradient_scale: 0-dimensional, in the compute dtype: what multiplies W p - w.
        out: (R, V) in the dtype of the logits, receives the gradient; it may be `logits` itself.
            None computes the losses only.

    Returns:
        (R,) losses in the compute dtype, 0 in rows that are not kept.
    """
    if row_triton.takes(logits):
        run = row_triton.loss_and_gradient
    elif row_core.takes(logits) and (out is None or row_core.takes(out)):
        run = row_core.loss_and_gradient
    else:
        run = row_torch.loss_and_gradient
    return run(logits, rows, temperature, loss_scale, gradient_scale, out)
