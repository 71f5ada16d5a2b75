"""linear_lse and the loss on it: torch and Triton against autograd through dense float64 logits."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from dense_reference import error, make_targets, of_head
from loss_backends import DEVICE
from test_fused import LargestTensor

from sparselogits import errors
from sparselogits.torch import (
    SparseTargets,
    fused_linear_sparse_kd_loss,
    head_lse,
    head_torch,
    head_triton,
)
from sparselogits.torch.head import default_part_columns
from sparselogits.torch.head_lse import linear_lse
from sparselogits.torch.head_lse_loss import linear_lse_sparse_kd_loss

ROWS, DEPTH, VOCAB = 30, 20, 203
GRADIENT = 4e-6  # exp turns the roundings of logits around 15 into relative errors
BACKENDS = [head_torch, head_triton]
TOLERANCE = {torch.float32: GRADIENT, torch.bfloat16: 2**-6, torch.float16: 2**-9}


@pytest.fixture(params=BACKENDS, ids=["torch", "triton"])
def backend(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ModuleType]:
    chosen: ModuleType = request.param
    monkeypatch.setattr(head_lse, "_backend", lambda x: chosen)
    monkeypatch.setattr(head_torch, "default_part_columns", lambda *_: 64)
    monkeypatch.setattr(
        head_triton,
        "_tile",
        lambda dtype: {"ROWS": 16, "COLUMNS": 32, "INNER": 16, "num_warps": 4, "num_stages": 2},
    )
    monkeypatch.setattr(head_triton, "_PARTS", 3)
    # The interpreter computes with NumPy, which warns of inf - inf.
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        yield chosen


def make_inputs(dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = ((3, 10, DEPTH), (VOCAB, DEPTH), (VOCAB,))
    return [torch.randn(s, generator=generator).to(DEVICE, dtype) for s in shapes]


def leaves(inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    return [t.clone().requires_grad_() for t in inputs]


def dense_lse(
    inputs: list[torch.Tensor], temperature: float, softcap: float | None
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The lse, and the gradients of Σ_r (r + 1) lse_r."""
    wide = [t.detach().double().cpu().requires_grad_() for t in inputs]
    z = torch.nn.functional.linear(*wide)
    if softcap is not None:
        z = softcap * torch.tanh(z / softcap)
    lse = torch.logsumexp(z / temperature, -1)
    (lse.flatten() * torch.arange(1, lse.numel() + 1)).sum().backward()
    return lse.detach(), [t.grad for t in wide if t.grad is not None]


def weighted_sum(lse: torch.Tensor) -> torch.Tensor:
    return (lse.flatten() * torch.arange(1, lse.numel() + 1, device=DEVICE)).sum()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("with_bias", [False, True])
def test_value_and_gradients(
    backend: ModuleType,
    dtype: torch.dtype,
    softcap: float | None,
    temperature: float,
    with_bias: bool,
) -> None:
    inputs = make_inputs(dtype)[: 3 if with_bias else 2]
    expected, gradients = dense_lse(inputs, temperature, softcap)
    found = leaves(inputs)
    lse = linear_lse(*found, temperature=temperature, softcap=softcap, part_columns=50)
    weighted_sum(lse).backward()
    assert lse.shape == (3, 10)
    assert lse.dtype == torch.float32
    assert error(lse.cpu(), expected) < 1e-6  # no logit was rounded to a narrow dtype
    for leaf, wanted in zip(found, gradients, strict=True):
        assert leaf.grad is not None
        assert leaf.grad.dtype == dtype
        assert error(leaf.grad.cpu(), wanted) < TOLERANCE[dtype]


@pytest.mark.parametrize("vocab", [1, 31, 32, 33, 95, 97])
@pytest.mark.parametrize("rows", [1, 16, 17])
def test_any_size(backend: ModuleType, vocab: int, rows: int) -> None:
    generator = torch.Generator().manual_seed(vocab)
    inputs = [torch.randn(s, generator=generator).to(DEVICE) for s in ((rows, 33), (vocab, 33))]
    expected, gradients = dense_lse(inputs, 1.0, None)
    found = leaves(inputs)
    lse = linear_lse(*found, part_columns=40)
    weighted_sum(lse).backward()
    assert error(lse.cpu(), expected) < 1e-6
    for leaf, wanted in zip(found, gradients, strict=True):
        assert leaf.grad is not None
        assert error(leaf.grad.cpu(), wanted) < GRADIENT


def test_flat_rows_are_exact(backend: ModuleType) -> None:
    """A naive sum over so many equal terms would be off by more."""
    vocab = 3000
    lse = linear_lse(torch.zeros(2, 16, device=DEVICE), torch.zeros(vocab, 16, device=DEVICE))
    assert error(lse.cpu(), torch.full((2,), vocab).double().log()) < 1e-7


def test_logits_of_minus_infinity_count_for_nothing(backend: ModuleType) -> None:
    """Also where whole tiles and parts are masked."""
    inputs = make_inputs()
    inputs[2][:70] = inputs[2][150:] = -torch.inf
    expected, gradients = dense_lse(inputs, 1.0, None)
    found = leaves(inputs)
    lse = linear_lse(*found, part_columns=50)
    weighted_sum(lse).backward()
    assert error(lse.cpu(), expected) < 1e-6
    for leaf, wanted in zip(found, gradients, strict=True):
        assert leaf.grad is not None
        assert error(leaf.grad.cpu(), wanted) < GRADIENT


@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")  # of the interpreter's maximum
def test_nan_reaches_its_row_alone(backend: ModuleType) -> None:
    x, weight, bias = make_inputs()
    x[1, 2, 3] = torch.nan
    lse = linear_lse(x, weight, bias).flatten()
    assert lse.isnan().nonzero().flatten().tolist() == [12]


def test_memory_layout_changes_nothing(backend: ModuleType) -> None:
    x, weight, bias = make_inputs()
    strided = weight.t().contiguous().t()
    found = linear_lse(x.transpose(0, 1).contiguous().transpose(0, 1), strided, bias)
    assert error(found.cpu(), linear_lse(x, weight, bias).double().cpu()) < 1e-6


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_a_compiler_leaves_the_graph_for_it() -> None:
    def loss(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return linear_lse(x * 2, weight).sum() + 1

    x, weight = leaves([t.cpu() for t in make_inputs()[:2]])
    expected = torch.autograd.grad(loss(x, weight), [x, weight])
    compiled = torch.compile(loss, backend="eager")
    for ours, theirs in zip(
        torch.autograd.grad(compiled(x, weight), [x, weight]), expected, strict=True
    ):
        assert torch.equal(ours, theirs)


def test_parts_hold_few_logits() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert default_part_columns(2048, torch.float32, cpu) == 4096
    assert default_part_columns(100_000, torch.float32, cpu) == 1024
    assert default_part_columns(8192, torch.bfloat16, cuda) == 16_384


def test_all_logits_never_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    """In torch; the tiles of the Triton kernels live in registers."""
    monkeypatch.setattr(head_lse, "_backend", lambda x: head_torch)
    monkeypatch.setattr(head_torch, "default_part_columns", lambda *_: 64)
    x, weight, bias = leaves(make_inputs())
    with LargestTensor() as seen:
        weighted_sum(linear_lse(x, weight, bias, part_columns=40)).backward()
    # Not even in the gradient of the weight, which is the largest that has to be.
    assert seen.largest <= max(weight.numel(), ROWS * 64)
    assert 1.4 * seen.largest < ROWS * VOCAB


def test_gradcheck_in_float64() -> None:
    generator = torch.Generator().manual_seed(5)
    inputs = [
        torch.randn(s, generator=generator, dtype=torch.float64) for s in ((4, 3), (9, 3), (9,))
    ]
    assert torch.autograd.gradcheck(
        lambda x, w, b: linear_lse(x, w, b, temperature=1.3, softcap=2.0, part_columns=4),
        leaves(inputs),
    )


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
def test_loss_equals_the_fused_loss(
    backend: ModuleType, reduction: str, masked: bool, with_bias: bool
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
def test_loss_of_narrow_inputs(backend: ModuleType, dtype: torch.dtype) -> None:
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
def test_all_that_the_fused_loss_takes(backend: ModuleType, keywords: dict[str, Any]) -> None:
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


def test_one_loss_per_row(backend: ModuleType) -> None:
    targets = make_targets(ROWS, VOCAB)
    hidden, weight, _ = make_inputs()
    losses = linear_lse_sparse_kd_loss(hidden, weight, targets.to(DEVICE), reduction="none")
    assert losses.shape == (3, 10)
    expected = of_head(hidden.cpu(), weight.cpu(), None, targets, reduction="none")
    assert error(losses.flatten().cpu(), expected.loss) < 1e-6


def test_ignored_rows_may_hold_anything(backend: ModuleType) -> None:
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


def test_an_entry_without_weight_asks_for_nothing(backend: ModuleType) -> None:
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


def test_autocast_casts_as_linear_does(backend: ModuleType) -> None:
    inputs = make_inputs()
    narrow = [t.bfloat16() for t in inputs]
    with torch.autocast(DEVICE.type, torch.bfloat16):
        found = linear_lse(*inputs)
    assert torch.equal(found, linear_lse(*narrow))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": torch.zeros(VOCAB, DEPTH + 1)}, "weight has shape"),
        ({"bias": torch.zeros(VOCAB - 1)}, "bias has shape"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"softcap": -1.0}, "softcap is -1.0"),
        ({"part_columns": 0}, "part_columns is 0"),
    ],
)
def test_wrong_arguments(change: dict[str, Any], message: str) -> None:
    x, weight, bias = (t.cpu() for t in make_inputs())
    arguments = {"x": x, "weight": weight, "bias": bias}
    with pytest.raises(errors.InvalidArgumentError, match=message):
        linear_lse(**{**arguments, **change})


def test_head_smaller_than_the_vocabulary() -> None:
    hidden, weight, _ = (t.cpu() for t in make_inputs())
    targets = SparseTargets(torch.arange(31), torch.zeros(30).long(), torch.ones(30), VOCAB + 1)
    with pytest.raises(errors.VocabularyMismatchError, match="only 203"):
        linear_lse_sparse_kd_loss(hidden, weight, targets)
