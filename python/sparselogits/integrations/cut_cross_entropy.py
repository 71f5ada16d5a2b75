"""The sparse loss by Apple's Cut Cross-Entropy (cut-cross-entropy; tested with 25.1.1).

The tests run its "torch_compile" implementation uncompiled and its "cce" kernels in Triton's
interpreter (with their log1p written out, which the interpreter has not), on small inputs. They
were not run on a GPU.
"""

from __future__ import annotations

from typing import Any, cast

from cut_cross_entropy import linear_cross_entropy
from torch import Tensor

from sparselogits.errors import InvalidArgumentError
from sparselogits.torch.batch import IGNORED_LABEL
from sparselogits.torch.plug_in import plug_in_sparse_kd_loss
from sparselogits.torch.targets import SparseTargets


def cut_cross_entropy_sparse_kd_loss(
    hidden: Tensor,
    weight: Tensor,
    targets: SparseTargets,
    *,
    impl: str = "cce",
    filter_eps: float | str | None = "high",
    **keywords: Any,
) -> Tensor:
    """`plug_in_sparse_kd_loss` over `cut_cross_entropy.linear_cross_entropy`, which has no bias.

    Rows may have any sum of weights: the kernel is asked for one loss per row.

    Args:
        hidden: See `plug_in_sparse_kd_loss`.
        weight: See `plug_in_sparse_kd_loss`.
        targets: See `plug_in_sparse_kd_loss`.
        impl: "cce", whose gradients need bfloat16 or float16 inputs, or "torch_compile".
        filter_eps: "cce" leaves out of the gradient whole blocks of probabilities below this, by
            default 1/32 of the epsilon of the dtype. None leaves out nothing.
        **keywords: Those of `plug_in_sparse_kd_loss` but `bias`.

    Raises:
        InvalidArgumentError: There is a bias; or see `plug_in_sparse_kd_loss`.
    """

    if keywords.get("bias") is not None:
        raise InvalidArgumentError("bias is given, and Cut Cross-Entropy takes none")

    def cross_entropy(x: Tensor, matrix: Tensor, labels: Tensor, shift: Tensor | None) -> Tensor:
        loss = linear_cross_entropy(
            x,
            matrix,
            labels,
            ignore_index=IGNORED_LABEL,
            reduction="none",
            impl=impl,
            filter_eps=filter_eps,
        )
        return cast(Tensor, loss)

    return plug_in_sparse_kd_loss(cross_entropy, hidden, weight, targets, per_row=True, **keywords)
