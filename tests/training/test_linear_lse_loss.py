"""The loss on linear_lse against the dense float64 reference and the fused loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from dense_reference import error, make_targets, of_head
from head_backends import (
    BACKENDS,
    DEPTH,
    GRADIENT,
    ROWS,
    TOLERANCE,
    VOCAB,
    choose,
    leaves,
    make_inputs,
)
from loss_backends import DEVICE

from sparselogits import errors
from sparselogits.torch import SparseTargets, fused_linear_sparse_kd_loss
from sparselogits.torch.head_lse_loss import linear_lse_sparse_kd_loss


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    choose(request.param, monkeypatch)
    # The interpreter computes with NumPy, which warns of inf - inf.
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        yield request.param


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
def test_loss_equals_the_fused_loss(
    backend: str, reduction: str, masked: bool, with_bias: bool
) -> None:
    targets = make_targets(ROWS, VOCAB)
    inputs = make_inputs()[: 3 if with_bias else 2]
    mask = torch.arange(ROWS).view(3, 10) % 4 != 1 if masked else None
    keywords: dict[str, Any] = {
        "temperature": 1.5,
        "scale_by_temperature_squared": True,
        "reduction": reduction,
    }
    bias = inputs[2].cpu() if with_bias else None
    dense = of_head(inputs[0].cpu(), inputs[1].cpu(), bias, targets, mask=mask, **keywords)
    keywords["mask"] = None if mask is None else mask.to(DEVICE)
    losses, gradients = [], []
    for loss_of, options in (
        (linear_lse_sparse_kd_loss, {"part_columns": 50}),
        (fused_linear_sparse_kd_loss, {}),
    ):
        found = leaves(inputs)
        loss = loss_of(
            found[0],
            found[1],
            targets.to(DEVICE),
            bias=found[2] if with_bias else None,
            **keywords,
            **options,
        )
        (3 * loss).backward()
        losses.append(loss.detach().cpu())
        gradients.append([leaf.grad.cpu() for leaf in found if leaf.grad is not None])
    assert error(losses[0], dense.loss) < 1e-6
    assert error(losses[0], losses[1].double()) < 1e-6
    for ours, theirs, wanted in zip(*gradients, dense.gradients, strict=True):
        assert error(ours, 3 * wanted) < GRADIENT
        assert error(ours, theirs.double()) < GRADIENT


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_loss_of_narrow_inputs(backend: str, dtype: torch.dtype) -> None:
    targets = make_targets(ROWS, VOCAB)
    inputs = make_inputs(dtype)
    found = leaves(inputs)
    loss = linear_lse_sparse_kd_loss(
        found[0], found[1], targets.to(DEVICE), bias=found[2], part_columns=50
    )
    (loss * 1024).backward()
    expected = of_head(*(t.cpu() for t in inputs), targets)
    assert error(loss.cpu(), expected.loss) < 1e-6
    for leaf, wanted in zip(found, expected.gradients, strict=True):
        assert leaf.grad is not None
        assert error(leaf.grad.cpu(), 1024 * wanted) < TOLERANCE[dtype]


@pytest.mark.parametrize(
    "keywords",
    [
        {"softcap": 3.0, "temperature": 0.8},
        {
            "labels": torch.where(torch.arange(ROWS) % 5 == 0, -100, torch.arange(ROWS) * 6),
            "alpha": 0.3,
            "position_weights": torch.linspace(0, 2, ROWS),
        },
    ],
    ids=["softcap", "labels and weights"],
)
def test_all_that_the_fused_loss_takes(backend: str, keywords: dict[str, Any]) -> None:
    targets = make_targets(ROWS, VOCAB)
    inputs = make_inputs()
    expected = of_head(*(t.cpu() for t in inputs), targets, **keywords)
    found = leaves(inputs)
    there = {k: v.to(DEVICE) if isinstance(v, torch.Tensor) else v for k, v in keywords.items()}
    loss = linear_lse_sparse_kd_loss(found[0], found[1], targets.to(DEVICE), bias=found[2], **there)
    loss.backward()
    assert error(loss.cpu(), expected.loss) < 1e-6
    for leaf, wanted in zip(found, expected.gradients, strict=True):
        assert leaf.grad is not None
        assert error(leaf.grad.cpu(), wanted) < GRADIENT


def test_one_loss_per_row(backend: str) -> None:
    targets = make_targets(ROWS, VOCAB)
    hidden, weight, _ = make_inputs()
    losses = linear_lse_sparse_kd_loss(hidden, weight, targets.to(DEVICE), reduction="none")
    assert losses.shape == (3, 10)
    expected = of_head(hidden.cpu(), weight.cpu(), None, targets, reduction="none")
    assert error(losses.flatten().cpu(), expected.loss) < 1e-6


def test_ignored_rows_may_hold_anything(backend: str) -> None:
    targets = make_targets(ROWS, VOCAB)
    mask = torch.arange(ROWS) % 3 != 0
    hidden, weight, bias = make_inputs()
    ignored = ~mask | (targets.offsets.diff() == 0)
    expected = of_head(hidden.cpu(), weight.cpu(), bias.cpu(), targets, mask=mask)
    hidden.view(ROWS, DEPTH)[ignored.to(DEVICE)] = torch.nan
    found = leaves([hidden, weight, bias])
    loss = linear_lse_sparse_kd_loss(
        found[0], found[1], targets.to(DEVICE), bias=found[2], mask=mask.to(DEVICE)
    )
    loss.backward()
    assert error(loss.cpu(), expected.loss) < 1e-6
    for leaf, wanted in zip(found, expected.gradients, strict=True):
        assert leaf.grad is not None
        assert error(leaf.grad.cpu(), wanted) < GRADIENT


def test_an_entry_without_weight_asks_for_nothing(backend: str) -> None:
    """Its logit may be -inf: 0 · inf would be NaN."""
    x, weight, bias = make_inputs()
    bias[7] = -torch.inf
    rows = torch.arange(ROWS)
    ids = torch.stack([torch.full((ROWS,), 7), 8 + rows], 1).flatten()
    weights = torch.tensor([0.0, 1.0]).repeat(ROWS)
    targets = SparseTargets(torch.arange(0, 2 * ROWS + 1, 2), ids, weights, VOCAB)
    found = leaves([x, weight, bias])
    loss = linear_lse_sparse_kd_loss(found[0], found[1], targets.to(DEVICE), bias=found[2])
    loss.backward()
    wide = [t.double().requires_grad_() for t in (x, weight, bias)]
    logits = torch.nn.functional.linear(*wide).flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(logits, (8 + rows).to(DEVICE))
    expected.backward()
    assert error(loss, expected.detach()) < 1e-6
    for leaf, wanted in zip(found, wide, strict=True):
        assert wanted.grad is not None
        assert error(leaf.grad, wanted.grad) < GRADIENT


def test_head_smaller_than_the_vocabulary() -> None:
    hidden, weight, _ = (t.cpu() for t in make_inputs())
    targets = SparseTargets(torch.arange(31), torch.zeros(30).long(), torch.ones(30), VOCAB + 1)
    with pytest.raises(errors.VocabularyMismatchError, match="only 203"):
        linear_lse_sparse_kd_loss(hidden, weight, targets)
