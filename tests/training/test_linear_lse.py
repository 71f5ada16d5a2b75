"""linear_lse: torch and Triton against autograd through dense float64 logits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from dense_reference import error
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
from test_fused import LargestTensor

from sparselogits import errors
from sparselogits.torch.head import default_part_columns
from sparselogits.torch.head_lse import linear_lse


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    choose(request.param, monkeypatch)
    # The interpreter computes with NumPy, which warns of inf - inf.
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        yield request.param


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
    backend: str,
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
def test_any_size(backend: str, vocab: int, rows: int) -> None:
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


def test_flat_rows_are_exact(backend: str) -> None:
    """A naive sum over so many equal terms would be off by more."""
    vocab = 3000
    lse = linear_lse(torch.zeros(2, 16, device=DEVICE), torch.zeros(vocab, 16, device=DEVICE))
    assert error(lse.cpu(), torch.full((2,), vocab).double().log()) < 1e-7


def test_logits_of_minus_infinity_count_for_nothing(backend: str) -> None:
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
def test_nan_reaches_its_row_alone(backend: str) -> None:
    x, weight, bias = make_inputs()
    x[1, 2, 3] = torch.nan
    lse = linear_lse(x, weight, bias).flatten()
    assert lse.isnan().nonzero().flatten().tolist() == [12]


def test_memory_layout_changes_nothing(backend: str) -> None:
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
    choose("torch", monkeypatch)
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


def test_autocast_casts_as_linear_does(backend: str) -> None:
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
