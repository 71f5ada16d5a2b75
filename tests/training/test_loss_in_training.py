"""The losses inside what training loops wrap around them: checkpointing, autocast, loss scaling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from dense_reference import error, make_labels, make_targets, of_head
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sparselogits.torch import fused_linear_sparse_kd_loss, sparse_kd_loss

ROWS, VOCAB, WIDTH = 30, 203, 16
TARGETS = make_targets(ROWS, VOCAB)
KEYWORDS: dict[str, Any] = {
    "labels": make_labels(ROWS, VOCAB, TARGETS),
    "alpha": 0.3,
    "softcap": 5.0,
    "temperature": 1.5,
    "mask": torch.arange(ROWS) % 4 != 1,
}


def make_inputs() -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = ((ROWS, WIDTH), (VOCAB, WIDTH), (VOCAB,))
    return [torch.randn(shape, generator=generator) for shape in shapes]


def make_leaves() -> list[Tensor]:
    return [t.requires_grad_() for t in make_inputs()]


def fused(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return fused_linear_sparse_kd_loss(hidden, weight, TARGETS, bias=bias, chunk_rows=8, **KEYWORDS)


def fused_into_grad(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return fused_linear_sparse_kd_loss(
        hidden, weight, TARGETS, bias=bias, chunk_rows=8, accumulate_weight_grad=True, **KEYWORDS
    )


def unfused(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return sparse_kd_loss(torch.nn.functional.linear(hidden, weight, bias), TARGETS, **KEYWORDS)


def unfused_inplace(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    logits = torch.nn.functional.linear(hidden, weight, bias)
    return sparse_kd_loss(logits, TARGETS, inplace=True, **KEYWORDS)


FORMS = [fused, fused_into_grad, unfused, unfused_inplace]
Form = Callable[[Tensor, Tensor, Tensor], Tensor]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_activation_checkpointing(form: Form, use_reentrant: bool) -> None:
    """What runs twice is counted once."""
    leaves = make_leaves()
    for leaf in leaves:
        leaf.grad = torch.ones_like(leaf)
    loss = checkpoint(form, *leaves, use_reentrant=use_reentrant)
    (3 * loss).backward()
    expected = of_head(*make_inputs(), TARGETS, **KEYWORDS)
    assert error(loss, expected.loss) < 1e-6
    for leaf, wanted in zip(leaves, expected.gradients, strict=True):
        assert error(leaf.grad, 3 * wanted + 1) < 1e-6


@pytest.mark.parametrize("form", FORMS)
def test_autocast_in_bfloat16(form: Form) -> None:
    leaves = make_leaves()
    with torch.autocast("cpu", torch.bfloat16):
        loss = form(*leaves)
    loss.backward()
    expected = of_head(*make_inputs(), TARGETS, **KEYWORDS)
    assert loss.dtype == torch.float32
    assert error(loss, expected.loss) < 2**-8
    for leaf, wanted in zip(leaves, expected.gradients, strict=True):
        assert leaf.grad is not None
        assert leaf.grad.dtype == torch.float32
        assert error(leaf.grad, wanted) < 2**-5


@pytest.mark.parametrize("form", FORMS)
def test_a_backward_pass_inside_autocast(form: Form) -> None:
    """Not what torch recommends, but what loops do."""
    inside, outside = make_leaves(), make_leaves()
    with torch.autocast("cpu", torch.bfloat16):
        form(*inside).backward()
        loss = form(*outside)
    loss.backward()
    for a, b in zip(inside, outside, strict=True):
        assert a.grad is not None
        assert torch.equal(a.grad, b.grad)


@pytest.mark.parametrize("form", [fused, fused_into_grad])
def test_autocast_around_the_backward_pass_alone_changes_nothing(form: Form) -> None:
    """The head's products take the dtype that the forward pass chose."""
    inside, outside = make_leaves(), make_leaves()
    loss = form(*inside)
    with torch.autocast("cpu", torch.bfloat16):
        loss.backward()
    form(*outside).backward()
    for a, b in zip(inside, outside, strict=True):
        assert a.grad is not None
        assert torch.equal(a.grad, b.grad)


@pytest.mark.parametrize("form", FORMS)
def test_a_loss_scaler_with_float16(form: Form) -> None:
    """The scale arrives before gradients of about 1 / num_items round to zero."""
    leaves = make_leaves()
    optimizer = torch.optim.SGD(leaves, lr=1.0)
    before = [leaf.detach().clone() for leaf in leaves]
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    with torch.autocast("cpu", torch.float16):
        loss = form(*leaves)
    scaler.scale(loss * 1e-5).backward()
    scaler.unscale_(optimizer)
    expected = of_head(*make_inputs(), TARGETS, **KEYWORDS)
    for leaf, wanted in zip(leaves, expected.gradients, strict=True):
        assert float(wanted.abs().median()) * 1e-5 < 2**-24  # zero in float16
        assert error(leaf.grad, 1e-5 * wanted) < 2**-7
    scaler.step(optimizer)
    for leaf, old in zip(leaves, before, strict=True):
        assert not torch.equal(leaf, old)


@pytest.mark.parametrize("form", FORMS)
def test_a_loss_scale_that_overflows_is_noticed(form: Form) -> None:
    """An infinite gradient must reach the scaler as such, not as a finite one or as zero."""
    leaves = make_leaves()
    optimizer = torch.optim.SGD(leaves, lr=1.0)
    before = [leaf.detach().clone() for leaf in leaves]
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    with torch.autocast("cpu", torch.float16):
        loss = form(*leaves)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2.0**39
    for leaf, old in zip(leaves, before, strict=True):
        assert torch.equal(leaf, old)
