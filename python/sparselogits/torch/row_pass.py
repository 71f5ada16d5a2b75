"""The arithmetic that both losses share: rows of logits against sparse targets.

For a row of logits x, z = x / T or, with a soft-cap c, z = c · tanh(x / c) / T; for entries
(k, w_k), W = Σ w_k and p = softmax(z):

    L = s · Σ_k w_k (lse(z) - z_k)        dL/dx_j = (s / T) · (W p_j - w_j) · (1 - tanh²(x_j / c))

with s = T² where that is asked for, else 1. Everything here is computed in float32 (float64 for
float64 logits), and only the finished gradient is rounded to the dtype of the logits.
"""

from __future__ import annotations

from torch import Tensor

from sparselogits.torch import row_core, row_torch, row_triton
from sparselogits.torch.reduction import Scaling
from sparselogits.torch.rows import Rows
from sparselogits.torch.softcap import through_softcap


def row_losses(
    logits: Tensor, rows: Rows, scaling: Scaling, gradient_scale: Tensor, out: Tensor | None
) -> Tensor:
    """Losses of R rows, and their gradient in the same pass.

    Args:
        logits: (R, V).
        rows: The targets of these R rows.
        scaling: Soft-cap, temperature and the factor on each loss: c, T and s above.
        gradient_scale: 0-dimensional, in the compute dtype: what multiplies W p - w.
        out: (R, V) in the dtype of the logits, receives the gradient; it may be `logits` itself.
            None computes the losses only.

    Returns:
        (R,) losses in the compute dtype, 0 in rows that are not kept.
    """
    cap, temperature, loss_scale = scaling.softcap, scaling.temperature, scaling.loss_scale
    if row_triton.takes(logits):
        backend = row_triton.loss_and_gradient
    elif row_core.takes(logits) and (out is None or row_core.takes(out)):
        return row_core.loss_and_gradient(
            logits, rows, temperature, loss_scale, gradient_scale, out, softcap=cap
        )
    else:
        backend = row_torch.loss_and_gradient
    if cap is not None:
        return through_softcap(
            backend, cap, logits, rows, temperature, loss_scale, gradient_scale, out
        )
    return backend(logits, rows, temperature, loss_scale, gradient_scale, out)
