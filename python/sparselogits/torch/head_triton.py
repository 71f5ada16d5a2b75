"""Parts of the logits of a linear head on a GPU, by the kernels of Triton."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparselogits import triton_support
from sparselogits.torch.head import Head

_PARTS = 16  # of the vocabulary: a row's partial sums; enough programs where rows are few


def takes(x: Tensor) -> bool:
    """Whether these functions can take (R, H) inputs `x`; float64 keeps to head_torch."""
    narrow = x.dtype in (torch.float32, torch.bfloat16, torch.float16)
    return type(x) is Tensor and narrow and triton_support.supports(x.device)


def lse(x: Tensor, head: Head) -> Tensor:
    """See head_torch.py."""
    # Without Triton this module can still be asked what it takes.
    from sparselogits.torch.kernels import head_kernels

    tile = _tile(x.dtype)
    tiles = -(-len(head.weight) // tile["COLUMNS"])
    parts = min(_PARTS, tiles)
    partial = torch.empty((parts, len(x)), dtype=torch.float32, device=x.device)
    if len(x):
        with triton_support.device_of(x):
            head_kernels.partial_lse[(-(-len(x) // tile["ROWS"]), parts)](
                *_inputs(x, head), -(-tiles // parts), partial, **_options(x, head), **tile
            )
    return torch.logsumexp(partial, 0)


def softmax_gradient(x: Tensor, head: Head, lse: Tensor, coefficient: Tensor, out: Tensor) -> None:
    """See head_torch.py."""
    from sparselogits.torch.kernels import head_kernels

    tile = _tile(x.dtype)
    grid = (-(-len(x) // tile["ROWS"]), -(-len(head.weight) // tile["COLUMNS"]))
    if len(x):
        with triton_support.device_of(x):
            head_kernels.softmax_gradient[grid](
                *_inputs(x, head),
                lse.contiguous(),
                coefficient.contiguous(),
                out,
                out.stride(0),
                **_options(x, head),
                **tile,
            )


def gradient_dtype(x: Tensor) -> torch.dtype:
    """See head_torch.py."""
    return x.dtype


def _tile(dtype: torch.dtype) -> dict[str, int]:
    fusion = {"enable_fp_fusion": True}  # Triton warns of launches that do not say
    # float32 products run on no tensor core: less of them fits into registers at once.
    if dtype == torch.float32:
        return {"ROWS": 64, "COLUMNS": 64, "INNER": 32, "num_warps": 8, "num_stages": 2, **fusion}
    return {"ROWS": 128, "COLUMNS": 128, "INNER": 64, "num_warps": 8, "num_stages": 3, **fusion}


def _inputs(x: Tensor, head: Head) -> tuple[Any, ...]:
    return (
        x,
        *x.stride(),
        head.weight,
        *head.weight.stride(),
        head.weight if head.bias is None else head.bias,
        head.finish.temperature,
        1.0 if head.finish.softcap is None else head.finish.softcap,
        len(x),
        *head.weight.shape,
    )


def _options(x: Tensor, head: Head) -> dict[str, bool]:
    return {
        "HAS_BIAS": head.bias is not None,
        "HAS_SOFTCAP": head.finish.softcap is not None,
        # The interpreter, the only one to take host memory, has no products of bfloat16.
        "WIDEN": x.device.type == "cpu",
    }
