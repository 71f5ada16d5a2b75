"""sparse_kd_loss: distillation of given logits against sparse targets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparselogits.errors import InvalidArgumentError, VocabularyMismatchError
from sparselogits.torch import buffers
from sparselogits.torch.functional import loss_and_gradient
from sparselogits.torch.reduction import Scaling, finish_gradient, make_scaling, once_differentiable
from sparselogits.torch.rows import Rows, compute_dtype, unfold
from sparselogits.torch.targets import SparseTargets


def sparse_kd_loss(
    logits: Tensor,
    targets: SparseTargets,
    *,
    mask: Tensor | None = None,
    temperature: float = 1.0,
    scale_by_temperature_squared: bool = False,
    reduction: str = "mean",
    num_items: float | Tensor | None = None,
    inplace: bool = False,
) -> Tensor:
    """Cross-entropy of the student against a sparse teacher, in nats.

    The loss of row t with entries (k, w_tk) and student logits z_t is

        L_t = Σ_k w_tk (logsumexp(z_t / T) - z_tk / T),

    which is the KL divergence up to the constant -Σ_k w_tk log w_tk, so that their gradients agree:
    dL_t/dz_t = (W_t softmax(z_t / T) - scatter(w_t)) / T with W_t = Σ_k w_tk. Weights are used as
    they are, never renormalised: with draws from the teacher the expected gradient is that of full
    distillation (Anshumann et al. 2025, "Sparse Logit Sampling", section 4).

    No dense target is built. The logits are read once more than by a softmax, and one buffer of
    their size is kept for the backward pass: the gradient itself. Reductions and the gathered
    logits are float32 whatever the dtype of the logits (float64 for float64).

    Args:
        logits: (B, S, V) or (R, V), of a floating dtype. V may exceed the cache's vocabulary (a
            padded head). Rows that cannot be viewed as (R, V) are copied: leave rows out with
            `mask`, not by slicing.
        targets: R = B·S rows, on the same device. An empty row is ignored.
        mask: (B, S) or (R,) bool, True keeps a row. None keeps every row that has entries. Ignored
            rows get a loss and gradient of exactly zero, whatever their logits hold.
        temperature: T above; it divides the student's logits. The teacher's temperature is a
            property of the cache.
        scale_by_temperature_squared: Multiply the loss, and so its gradient, by T².
        reduction: "mean" over the rows that are not ignored (0 with a zero gradient where there are
            none), "sum", or "none" for one loss per row in the leading shape of the logits.
        num_items: Divide by this instead of the number of rows that are not ignored, as gradient
            accumulation over several batches needs.
        inplace: Overwrite `logits` with the gradient during the forward pass, which then costs no
            further memory. They must be contiguous and neither a leaf nor a view of one;
            nothing may read them after.

    Returns:
        float32 (float64 for float64 logits): a scalar, or the leading shape for "none".

    Raises:
        InvalidArgumentError: A shape, dtype or keyword is wrong.
        VocabularyMismatchError: The logits have fewer columns than the cache's vocabulary.
    """
    flat, leading = flatten_rows(logits, "logits")
    check_targets(targets, flat, "logits", flat.shape[1])
    with_gradient = torch.is_grad_enabled() and logits.requires_grad
    if inplace and with_gradient:
        _check_inplace(logits)
    with torch.autocast(logits.device.type, enabled=False):
        dtype = compute_dtype(logits.dtype)
        rows = unfold(targets, flatten_mask(mask, leading, logits.device), dtype)
        scaling = make_scaling(
            rows.keep,
            logits.dtype,
            dtype,
            temperature=temperature,
            scale_by_temperature_squared=scale_by_temperature_squared,
            reduction=reduction,
            num_items=num_items,
            reductions=("mean", "sum", "none"),
        )
        if with_gradient:
            loss: Tensor = _SparseKDLoss.apply(  # type: ignore[no-untyped-call]
                flat, rows, scaling, inplace
            )
        else:
            loss = scaling.reduce(_run(flat.detach(), rows, scaling, None))
    return loss.reshape(leading) if reduction == "none" else loss


class _SparseKDLoss(torch.autograd.Function):
    """The gradient is computed with the loss, while a block of logits is still in the cache."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, rows: Rows, scaling: Scaling, inplace: bool) -> Tensor:
        # A detached alias: it shares the version counter, so that an operation that saved these
        # logits for its own backward notices the overwriting and refuses.
        logits = logits.detach()
        gradient = logits if inplace else buffers.empty(tuple(logits.shape), logits)
        loss = scaling.reduce(_run(logits, rows, scaling, gradient))
        ctx.scaling = scaling
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        factor = ctx.scaling.factor(grad_output)
        return finish_gradient(gradient, factor, gradient.dtype), None, None, None


def _run(logits: Tensor, rows: Rows, scaling: Scaling, out: Tensor | None) -> Tensor:
    return loss_and_gradient(
        logits, rows, scaling.temperature, scaling.loss_scale, scaling.gradient_scale, out
    )


def flatten_rows(tensor: Tensor, name: str) -> tuple[Tensor, torch.Size]:
    """(B, S, N) or (R, N) as (R, N), and the leading shape."""
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
    if mask is None:
        return None
    if mask.dtype != torch.bool:
        raise InvalidArgumentError(f"mask is {mask.dtype}; it must be torch.bool, True to keep")
    if mask.shape not in (leading, torch.Size([leading.numel()])):
        raise InvalidArgumentError(
            f"mask has shape {tuple(mask.shape)}; the rows have shape {tuple(leading)}"
        )
    if mask.device != device:
        raise InvalidArgumentError(f"mask is on {mask.device} and the rows on {device}")
    return mask.reshape(-1)


def check_targets(targets: SparseTargets, rows: Tensor, name: str, width: int) -> None:
    """Targets fit R rows (R, ...) of the tensor `name`, scored over `width` columns."""
    if targets.num_rows != rows.shape[0]:
        raise InvalidArgumentError(
            f"targets has {targets.num_rows} rows and {name} has {rows.shape[0]}"
        )
    if targets.device != rows.device:
        raise InvalidArgumentError(f"targets is on {targets.device} and {name} on {rows.device}")
    if targets.vocab_size is not None:
        if targets.vocab_size > width:
            raise VocabularyMismatchError(
                f"the cache's vocabulary has {targets.vocab_size} ids and the student's head "
                f"only {width}"
            )
    elif targets.device.type == "cpu" and targets.num_entries:
        largest = int(targets.token_ids.max())
        if largest >= width:
            raise VocabularyMismatchError(
                f"targets holds token id {largest} and the student's head has {width} ids"
            )


def _check_inplace(logits: Tensor) -> None:
    base = logits if logits._base is None else logits._base
    if base.is_leaf and base.requires_grad:
        raise InvalidArgumentError(
            "inplace would overwrite a leaf of the graph; pass computed logits"
        )
    if not logits.is_contiguous():
        raise InvalidArgumentError("inplace needs contiguous logits")
