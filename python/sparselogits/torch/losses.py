"""sparse_kd_loss: distillation of given logits against sparse targets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparselogits.errors import InvalidArgumentError
from sparselogits.torch import buffers, operators
from sparselogits.torch.arguments import flatten_rows
from sparselogits.torch.autocast import without_autocast
from sparselogits.torch.reduction import Scaling, finish_gradient, once_differentiable
from sparselogits.torch.row_pass import row_losses
from sparselogits.torch.rows import Rows
from sparselogits.torch.targets import SparseTargets
from sparselogits.torch.terms import make_terms


def sparse_kd_loss(
    logits: Tensor,
    targets: SparseTargets,
    *,
    mask: Tensor | None = None,
    position_weights: Tensor | None = None,
    labels: Tensor | None = None,
    alpha: float = 0.0,
    softcap: float | None = None,
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

    Under `torch.compile` this is one operator of the graph, `fullgraph=True` included.

    Args:
        logits: (B, S, V) or (R, V), of a floating dtype. V may exceed the cache's vocabulary (a
            padded head). Rows that cannot be viewed as (R, V) are copied: leave rows out with
            `mask`, not by slicing.
        targets: R = B·S rows, on the same device. A row without entries, and without a label where
            `alpha` is above 0, is ignored.
        mask: (B, S) or (R,) bool, True keeps a row. None keeps every row that has entries. Ignored
            rows get a loss and gradient of exactly zero, whatever their logits hold.
        position_weights: (B, S) or (R,) floating, finite and not negative: multiplies the loss of
            each row, to stress hard tokens for instance. It does not change what a mean divides by,
            and a weight of 0 does not ignore a row: `mask` does. No gradient flows into it.
        labels: (B, S) or (R,) int64, the true next tokens; -100 for none.
        alpha: In [0, 1]. The loss of a row is (1 - alpha) · L_t + alpha · C_t in the same pass: C_t
            is the cross-entropy of its label, at the same temperature and soft-cap. C_t is 0 where
            the label is -100, L_t where there are no entries. An alpha of 0 leaves the labels out
            and one of 1 the entries: rows that have nothing else are then ignored.
        softcap: c > 0 replaces the logits by c · tanh(logits / c) before everything else, as some
            students' heads do; pass the logits from before the head's own soft-cap. None does not.
        temperature: T above; it divides the student's logits. The teacher's temperature is a
            property of the cache.
        scale_by_temperature_squared: Multiply the loss, and so its gradient, by T²; that of the
            labels too.
        reduction: "mean" over the rows that are not ignored (0 with a zero gradient where there are
            none), "sum", or "none" for one loss per row in the leading shape of the logits.
        num_items: Divide by this instead of the number of rows that are not ignored, as gradient
            accumulation over several batches needs.
        inplace: Overwrite `logits` with the gradient during the forward pass, which then costs no
            further memory. They must be contiguous and neither a leaf nor a view of one;
            nothing may read them after. A compiler decides on its own what it overwrites: under
            `torch.compile` this changes nothing.

    Returns:
        float32 (float64 for float64 logits): a scalar, or the leading shape for "none".

    Raises:
        InvalidArgumentError: A shape, dtype or keyword is wrong. Values are checked in host memory
            only.
        VocabularyMismatchError: The logits have fewer columns than the cache's vocabulary, or than
            a label needs.
    """
    flat, leading = flatten_rows(logits, "logits")
    terms = make_terms(
        targets,
        flat,
        "logits",
        leading,
        flat.shape[1],
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
    with_gradient = torch.is_grad_enabled() and logits.requires_grad
    if torch.compiler.is_compiling():
        loss = operators.logits_loss(flat, terms, with_gradient)
        return loss.reshape(leading) if reduction == "none" else loss
    if inplace and with_gradient:
        check_inplace(logits)
    with without_autocast(logits.device):
        rows, scaling = terms.resolve(logits.dtype)
        if with_gradient:
            loss = _SparseKDLoss.apply(  # type: ignore[no-untyped-call]
                flat, rows, scaling, inplace
            )
        else:
            losses = row_losses(flat.detach(), rows, scaling, scaling.gradient_scale, None)
            loss = scaling.reduce(losses)
    return loss.reshape(leading) if reduction == "none" else loss


class _SparseKDLoss(torch.autograd.Function):
    """The gradient is computed with the loss, while a block of logits is still in the cache."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, rows: Rows, scaling: Scaling, inplace: bool) -> Tensor:
        # A detached alias: it shares the version counter, so that an operation that saved these
        # logits for its own backward notices the overwriting and refuses.
        logits = logits.detach()
        gradient = logits if inplace else buffers.empty(tuple(logits.shape), logits)
        loss = scaling.reduce(row_losses(logits, rows, scaling, scaling.gradient_scale, gradient))
        ctx.scaling = scaling
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        factor = ctx.scaling.factor(grad_output)
        return finish_gradient(gradient, factor, gradient.dtype), None, None, None


def check_inplace(logits: Tensor) -> None:
    base = logits if logits._base is None else logits._base
    if base.is_leaf and base.requires_grad:
        raise InvalidArgumentError(
            "inplace would overwrite a leaf of the graph; pass computed logits"
        )
    if not logits.is_contiguous():
        raise InvalidArgumentError("inplace needs contiguous logits")
