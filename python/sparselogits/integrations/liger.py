"""The sparse loss by Liger's fused linear cross-entropy (liger-kernel; tested with 0.8.5).

The tests run Liger's kernels in Triton's interpreter on small inputs; they were not run on a GPU.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy
from torch import Tensor

from sparselogits.torch.batch import IGNORED_LABEL
from sparselogits.torch.plug_in import plug_in_sparse_kd_loss
from sparselogits.torch.targets import SparseTargets


def liger_sparse_kd_loss(
    hidden: Tensor,
    weight: Tensor,
    targets: SparseTargets,
    *,
    per_row: bool = False,
    accum_dtype: torch.dtype | None = torch.float32,
    **keywords: Any,
) -> Tensor:
    """`plug_in_sparse_kd_loss` over `liger_fused_linear_cross_entropy`.

    Args:
        hidden: See `plug_in_sparse_kd_loss`.
        weight: See `plug_in_sparse_kd_loss`.
        targets: See `plug_in_sparse_kd_loss`.
        per_row: For rows whose weights do not sum to 1. Liger then makes its gradients in the
            backward pass and computes the logits twice.
        accum_dtype: In which Liger adds up the gradients of weight and bias over its chunks. None,
            its own default, is the dtype of the inputs, which loses digits in bfloat16.
        **keywords: Those of `plug_in_sparse_kd_loss`.
    """

    def cross_entropy(x: Tensor, matrix: Tensor, labels: Tensor, shift: Tensor | None) -> Tensor:
        loss = liger_fused_linear_cross_entropy(
            x,
            matrix,
            labels,
            bias=shift,
            ignore_index=IGNORED_LABEL,
            reduction="none" if per_row else "sum",
            accum_dtype=accum_dtype,
        )
        return cast(Tensor, loss)

    return plug_in_sparse_kd_loss(
        cross_entropy, hidden, weight, targets, per_row=per_row, **keywords
    )
