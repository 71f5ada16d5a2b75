"""What both losses check of their arguments: shapes, dtypes and devices, never values."""

from __future__ import annotations

import torch
from torch import Tensor

from sparselogits.errors import InvalidArgumentError, VocabularyMismatchError
from sparselogits.torch.sharded import refuse_sharded
from sparselogits.torch.targets import SparseTargets


def flatten_rows(tensor: Tensor, name: str) -> tuple[Tensor, torch.Size]:
    """(B, S, N) or (R, N) as (R, N), and the leading shape."""
    refuse_sharded(name, tensor)
    if tensor.dim() not in (2, 3):
        raise InvalidArgumentError(
            f"{name} has shape {tuple(tensor.shape)}; it must have 2 or 3 dimensions"
        )
    if not tensor.is_floating_point():
        raise InvalidArgumentError(f"{name} is {tensor.dtype}; it must be a floating dtype")
    if tensor.shape[-1] == 0:
        raise InvalidArgumentError(f"{name} has shape {tuple(tensor.shape)}; no column is left")
    leading = tensor.shape[:-1]
    return tensor.reshape(leading.numel(), tensor.shape[-1]), leading


def flatten_mask(mask: Tensor | None, leading: torch.Size, device: torch.device) -> Tensor | None:
    """(B, S) or (R,) bool as (R,), checked against the rows of the loss."""
    if mask is not None and mask.dtype != torch.bool:
        raise InvalidArgumentError(f"mask is {mask.dtype}; it must be torch.bool, True to keep")
    return _flatten_per_row(mask, "mask", leading, device)


def flatten_labels(
    labels: Tensor | None, alpha: float, leading: torch.Size, device: torch.device
) -> Tensor | None:
    """(B, S) or (R,) int64 as (R,), and an alpha that goes with them."""
    if not 0.0 <= alpha <= 1.0:
        raise InvalidArgumentError(f"alpha is {alpha}; it must lie in [0, 1]")
    if labels is None:
        if alpha != 0.0:
            raise InvalidArgumentError(f"alpha is {alpha}, but there are no labels to weigh by it")
        return None
    if labels.dtype != torch.int64:
        raise InvalidArgumentError(f"labels is {labels.dtype}; it must be torch.int64")
    return _flatten_per_row(labels, "labels", leading, device)


def flatten_position_weights(
    weights: Tensor | None, leading: torch.Size, device: torch.device
) -> Tensor | None:
    """(B, S) or (R,) floating as (R,)."""
    if weights is not None:
        if not weights.is_floating_point():
            raise InvalidArgumentError(
                f"position_weights is {weights.dtype}; it must be a floating dtype"
            )
        if weights.requires_grad:
            raise InvalidArgumentError(
                "position_weights requires grad, but the losses treat it as constant; detach it"
            )
    return _flatten_per_row(weights, "position_weights", leading, device)


def _flatten_per_row(
    tensor: Tensor | None, name: str, leading: torch.Size, device: torch.device
) -> Tensor | None:
    if tensor is None:
        return None
    if tensor.shape not in (leading, torch.Size([leading.numel()])):
        raise InvalidArgumentError(
            f"{name} has shape {tuple(tensor.shape)}; the rows have shape {tuple(leading)}"
        )
    if tensor.device != device:
        raise InvalidArgumentError(f"{name} is on {tensor.device} and the rows on {device}")
    return tensor.reshape(-1)


def check_targets(targets: SparseTargets, rows: Tensor, name: str, width: int) -> None:
    """Targets fit R rows (R, ...) of the tensor `name`, scored over `width` columns."""
    if targets.num_rows != rows.shape[0]:
        raise InvalidArgumentError(
            f"targets has {targets.num_rows} rows and {name} has {rows.shape[0]}"
        )
    if targets.device != rows.device:
        raise InvalidArgumentError(f"targets is on {targets.device} and {name} on {rows.device}")
    if targets.vocab_size is not None and targets.vocab_size > width:
        raise VocabularyMismatchError(
            f"the cache's vocabulary has {targets.vocab_size} ids and the student's head "
            f"only {width}"
        )


def check_head(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """An output head (V, H) and (V,) fits hidden states (R, H)."""
    refuse_sharded("weight", weight)
    if weight.dim() != 2 or weight.shape[0] == 0 or weight.shape[1] != hidden.shape[1]:
        raise InvalidArgumentError(
            f"weight has shape {tuple(weight.shape)}; it must be (V, {hidden.shape[1]}), "
            "as hidden is that wide"
        )
    if bias is not None and bias.shape != (weight.shape[0],):
        raise InvalidArgumentError(
            f"bias has shape {tuple(bias.shape)}; it must be ({weight.shape[0]},)"
        )
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is None:
            continue
        if tensor.dtype != hidden.dtype:
            raise InvalidArgumentError(f"{name} is {tensor.dtype} and hidden is {hidden.dtype}")
        if tensor.device != hidden.device:
            raise InvalidArgumentError(f"{name} is on {tensor.device} and hidden {hidden.device}")


def check_position_weights(weights: Tensor) -> None:
    """Refuses (R,) weights in host memory that are negative or not finite."""
    bad = (~(torch.isfinite(weights) & (weights >= 0))).nonzero()
    if bad.numel():
        row = int(bad[0, 0])
        raise InvalidArgumentError(
            f"position_weights of row {row} is {float(weights[row])}; it must be finite and not "
            "negative"
        )
