"""The sparse loss by Apple's Cut Cross-Entropy (cut-cross-entropy; tested with 25.1.1).

The tests run its "torch_compile" implementation uncompiled and its "cce" kernels in Triton's
interpreter (with their log1p written out, which the interpreter has not), on small inputs. They
were not run on a GPU.
"""

from __future__ import annotations

from typing import cast

from cut_cross_entropy import linear_cross_entropy
from torch import Tensor

from sparselogits.torch.plug_in import IGNORED, plug_in_sparse_kd_loss
from sparselogits.torch.targets import SparseTargets


def cut_cross_entropy_sparse_kd_loss(
    hidden: Tensor,
    weight: Tensor,
    targets: SparseTargets,
    *,
    mask: Tensor | None = None,
    temperature: float = 1.0,
    scale_by_temperature_squared: bool = False,
    reduction: str = "mean",
    num_items: float | Tensor | None = None,
    impl: str = "cce",
    filter_eps: float | str | None = "high",
) -> Tensor:
    """`plug_in_sparse_kd_loss` over `cut_cross_entropy.linear_cross_entropy`, which has no bias.

    Rows may have any sum of weights: the kernel is asked for one loss per row.

    Args:
        hidden: See `plug_in_sparse_kd_loss`, as for all that is not below.
        weight: See `plug_in_sparse_kd_loss`.
        targets: See `plug_in_sparse_kd_loss`.
        mask: See `plug_in_sparse_kd_loss`.
        temperature: See `plug_in_sparse_kd_loss`.
        scale_by_temperature_squared: See `plug_in_sparse_kd_loss`.
        reduction: "mean", "sum" or "none".
        num_items: See `plug_in_sparse_kd_loss`.
        impl: "cce", whose gradients need bfloat16 or float16 inputs, or "torch_compile".
        filter_eps: "cce" leaves out of the gradient whole blocks of probabilities below this, by
            default 1/32 of the epsilon of the dtype. None leaves out nothing.
    """

    def cross_entropy(x: Tensor, matrix: Tensor, labels: Tensor, shift: Tensor | None) -> Tensor:
        loss = linear_cross_entropy(
            x,
            matrix,
            labels,
            ignore_index=IGNORED,
            reduction="none",
            impl=impl,
            filter_eps=filter_eps,
        )
        return cast(Tensor, loss)

    return plug_in_sparse_kd_loss(
        cross_entropy,
        hidden,
        weight,
        targets,
        mask=mask,
        temperature=temperature,
        scale_by_temperature_squared=scale_by_temperature_squared,
        reduction=reduction,
        num_items=num_items,
        per_row=True,
    )
