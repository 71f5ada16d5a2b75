"""The losses' arithmetic in C++ and in torch operations: the same numbers."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from dense_reference import error, make_targets
from torch import Tensor

from sparselogits.torch import row_core, row_torch, sparse_kd_loss
from sparselogits.torch.rows import unfold
from sparselogits.torch.softcap import through_softcap

FP32 = torch.float32
BF16 = torch.bfloat16


def both(
    logits: Tensor, temperature: float, mask: Tensor | None = None, softcap: float | None = None
) -> list[tuple[Tensor, Tensor]]:
    """Losses and gradients of both backends."""
    rows = unfold(make_targets(*logits.shape, seed=3), mask, FP32)
    found = []
    in_torch = row_torch.loss_and_gradient
    if softcap is not None:
        in_torch = partial(through_softcap, in_torch, softcap)
    in_core = partial(row_core.loss_and_gradient, softcap=softcap)
    for backend in (in_torch, in_core):
        out = torch.full_like(logits, 7)
        losses = backend(logits, rows, temperature, 2.0, torch.tensor(0.25), out)
        found.append((losses, out))
    return found


@pytest.mark.parametrize("dtype", [FP32, BF16])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("width", [1, 37, 2048, 5003])
@pytest.mark.parametrize("softcap", [None, 0.5, 6.0, 500.0])
def test_core_equals_torch(
    dtype: torch.dtype, temperature: float, width: int, softcap: float | None
) -> None:
    torch.manual_seed(width)
    logits = (4 * torch.randn(23, width)).to(dtype)
    mask = torch.rand(23) < 0.8
    (losses, gradient), (core_losses, core_gradient) = both(logits, temperature, mask, softcap)
    assert error(core_losses, losses.double()) < 2e-6
    # One bfloat16 may be rounded to either of two neighbours.
    assert error(core_gradient, gradient.double()) < (2e-6 if dtype == FP32 else 2**-8)
    assert bool((core_gradient[~mask] == 0).all())


@pytest.mark.parametrize("softcap", [None, 6.0])
def test_narrow_gradients_are_rounded_once(softcap: float | None) -> None:
    logits = (3 * torch.randn(16, 3000)).to(BF16)
    (_, _), (wide_losses, wide) = both(logits.float(), 1.0, softcap=softcap)
    (_, _), (losses, narrow) = both(logits, 1.0, softcap=softcap)
    assert torch.equal(narrow, wide.to(BF16))
    assert torch.equal(losses, wide_losses)


@pytest.mark.parametrize("softcap", [None, 6.0])
def test_losses_alone_need_no_gradient_buffer(softcap: float | None) -> None:
    logits = torch.randn(9, 400)
    rows = unfold(make_targets(9, 400, seed=3), None, FP32)
    alone = row_core.loss_and_gradient(
        logits, rows, 1.0, 2.0, torch.tensor(0.25), None, softcap=softcap
    )
    assert torch.equal(alone, both(logits, 1.0, softcap=softcap)[1][0])


@pytest.mark.parametrize("softcap, narrow", [(1e-46, "0.000000"), (1e39, "inf")])
def test_a_soft_cap_that_float32_does_not_have_is_refused(softcap: float, narrow: str) -> None:
    logits = torch.randn(9, 400)
    said = f"softcap must be above 0 and finite in float32, where it is {narrow}"
    with pytest.raises(ValueError, match=said):
        sparse_kd_loss(logits, make_targets(9, 400, seed=3), softcap=softcap)


class Wrapped(Tensor):
    """What the core cannot look into."""


@pytest.mark.parametrize(
    "logits",
    [
        torch.randn(4, 9).double(),
        torch.randn(4, 9).half(),
        torch.randn(9, 4).t(),
        torch.randn(4, 9).as_subclass(Wrapped),
        torch.empty(4, 9, device="meta"),
    ],
    ids=["float64", "float16", "strided", "subclass", "device"],
)
def test_what_the_core_cannot_read_is_left_to_torch(logits: Tensor) -> None:
    assert not row_core.takes(logits)


def test_the_core_is_used_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Tensor:
        raise AssertionError("torch operations were used")

    monkeypatch.setattr(row_torch, "loss_and_gradient", refuse)
    targets = make_targets(5, 60)
    for dtype in (FP32, BF16):
        for softcap in (None, 30.0):
            logits = torch.randn(5, 60, dtype=dtype, requires_grad=True)
            sparse_kd_loss(logits, targets, softcap=softcap).backward()
