"""fused_linear_sparse_kd_loss against the dense float64 reference and the unfused loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from dense_reference import error, make_targets, of_head
from torch.utils._python_dispatch import TorchDispatchMode

from sparselogits import errors
from sparselogits.torch import SparseTargets, fused_linear_sparse_kd_loss, sparse_kd_loss
from sparselogits.torch.fused_chunks import default_chunk_rows

ROWS, WIDTH, VOCAB = 30, 16, 203


def make_inputs(dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = ((3, 10, WIDTH), (VOCAB, WIDTH), (VOCAB,))
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


def leaves(inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    return [t.clone().requires_grad_() for t in inputs]


@pytest.mark.parametrize("chunk_rows", [1, 7, 30, None])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("masked", [False, True])
def test_value_and_gradients(
    chunk_rows: int | None, with_bias: bool, reduction: str, masked: bool
) -> None:
    targets = make_targets(ROWS, VOCAB)
    inputs = make_inputs()
    mask = torch.arange(ROWS).view(3, 10) % 4 != 1 if masked else None
    keywords = {
        "mask": mask,
        "temperature": 1.5,
        "scale_by_temperature_squared": True,
        "reduction": reduction,
    }
    expected = of_head(*inputs[:2], inputs[2] if with_bias else None, targets, **keywords)
    hidden, weight, bias = leaves(inputs)
    loss = fused_linear_sparse_kd_loss(
        hidden, weight, targets, bias=bias if with_bias else None, chunk_rows=chunk_rows, **keywords
    )
    (3 * loss).backward()
    assert error(loss, expected.loss) < 1e-6
    found = [hidden.grad, weight.grad] + ([bias.grad] if with_bias else [])
    for gradient, wanted in zip(found, expected.gradients, strict=True):
        assert error(gradient, 3 * wanted) < 1e-6


def test_equals_the_unfused_loss() -> None:
    targets = make_targets(ROWS, VOCAB)
    one, two = leaves(make_inputs()), leaves(make_inputs())
    fused = fused_linear_sparse_kd_loss(one[0], one[1], targets, bias=one[2], chunk_rows=8)
    plain = sparse_kd_loss(torch.nn.functional.linear(*two), targets)
    fused.backward()
    plain.backward()
    torch.testing.assert_close(fused, plain, rtol=1e-6, atol=0)
    for a, b in zip(one, two, strict=True):
        assert b.grad is not None
        assert error(a.grad, b.grad.double()) < 1e-6


@pytest.mark.parametrize("chunk_rows", [7, 30])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_dtypes(dtype: torch.dtype, chunk_rows: int) -> None:
    targets = make_targets(ROWS, VOCAB)
    inputs = make_inputs(dtype)
    hidden, weight, bias = leaves(inputs)
    loss = fused_linear_sparse_kd_loss(hidden, weight, targets, bias=bias, chunk_rows=chunk_rows)
    loss.backward()
    expected = of_head(*inputs, targets)
    rounding = torch.finfo(dtype).eps
    assert loss.dtype == torch.float32
    assert error(loss, expected.loss) < rounding
    for leaf, wanted in zip((hidden, weight, bias), expected.gradients, strict=True):
        assert leaf.grad is not None
        assert leaf.grad.dtype == dtype
        assert error(leaf.grad, wanted) < 4 * rounding


def test_many_chunks_of_bfloat16_lose_no_more_than_one() -> None:
    rows = 2000
    targets = make_targets(rows, 50, most=3)
    generator = torch.Generator().manual_seed(4)
    hidden = torch.rand(rows, 8, generator=generator).bfloat16()
    weight = torch.randn(50, 8, generator=generator).bfloat16()
    expected = of_head(hidden, weight, None, targets).gradients[1]
    found = []
    for chunk_rows in (5, rows):
        leaf = weight.clone().requires_grad_()
        fused_linear_sparse_kd_loss(hidden, leaf, targets, chunk_rows=chunk_rows).backward()
        found.append(error(leaf.grad, expected))
    assert found[0] < 2**-7
    assert found[0] < 2 * found[1]


@pytest.mark.parametrize("chunk_rows", [7, 30])
def test_float16_gradient_waits_for_the_loss_scale(chunk_rows: int) -> None:
    targets = make_targets(ROWS, VOCAB)
    inputs = make_inputs(torch.float16)
    found = leaves(inputs)
    hidden, weight, bias = found
    loss = fused_linear_sparse_kd_loss(
        hidden, weight, targets, bias=bias, chunk_rows=chunk_rows, num_items=10**8
    )
    (loss * 65536).backward()
    for leaf, wanted in zip(
        found, of_head(*inputs, targets, num_items=10**8).gradients, strict=True
    ):
        assert float(wanted.abs().max()) < 2**-22  # four steps of float16 at most, unscaled
        assert error(leaf.grad, 65536 * wanted) < 5e-3


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements that any operation returned or wrote."""

    largest = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, torch.Tensor):
                self.largest = max(self.largest, value.numel())
        return result


def test_all_logits_never_exist() -> None:
    targets = make_targets(ROWS, VOCAB)
    hidden, weight, bias = leaves(make_inputs())
    with LargestTensor() as fused:
        fused_linear_sparse_kd_loss(hidden, weight, targets, bias=bias, chunk_rows=4).backward()
    assert fused.largest == VOCAB * WIDTH  # the gradient of the weight
    assert fused.largest < ROWS * VOCAB
    with LargestTensor() as plain:  # the measure itself sees them where they exist
        sparse_kd_loss(torch.nn.functional.linear(hidden, weight, bias), targets).backward()
    assert plain.largest == ROWS * VOCAB


@pytest.mark.parametrize("wanted", range(1, 8))
def test_only_the_gradients_that_are_wanted(wanted: int) -> None:
    targets = make_targets(ROWS, VOCAB)
    inputs = make_inputs()
    for i, t in enumerate(inputs):
        t.requires_grad_(bool(wanted >> i & 1))
    hidden, weight, bias = inputs
    loss = fused_linear_sparse_kd_loss(hidden, weight, targets, bias=bias, chunk_rows=8)
    loss.backward()
    expected = of_head(*inputs, targets)
    for t, gradient in zip(inputs, expected.gradients, strict=True):
        if t.requires_grad:
            assert error(t.grad, gradient) < 1e-6
        else:
            assert t.grad is None


def test_without_gradients_nothing_is_kept() -> None:
    targets = make_targets(ROWS, VOCAB)
    hidden, weight, bias = leaves(make_inputs())
    trained = fused_linear_sparse_kd_loss(hidden, weight, targets, bias=bias)
    with torch.no_grad(), LargestTensor() as seen:
        loss = fused_linear_sparse_kd_loss(hidden, weight, targets, bias=bias, chunk_rows=4)
    assert seen.largest <= VOCAB * WIDTH
    assert not loss.requires_grad
    torch.testing.assert_close(loss, trained.detach(), rtol=1e-6, atol=0)


def test_ignored_rows_may_hold_anything() -> None:
    targets = make_targets(ROWS, VOCAB)
    inputs = make_inputs()
    mask = torch.arange(ROWS) % 3 != 0
    expected = of_head(*inputs, targets, mask=mask)
    dirty = [inputs[0].clone(), *inputs[1:]]
    dirty[0].view(ROWS, WIDTH)[~mask] = float("nan")
    hidden, weight, bias = leaves(dirty)
    loss = fused_linear_sparse_kd_loss(hidden, weight, targets, bias=bias, mask=mask, chunk_rows=6)
    loss.backward()
    assert error(loss, expected.loss) < 1e-6
    for leaf, wanted in zip((hidden, weight, bias), expected.gradients, strict=True):
        assert error(leaf.grad, wanted) < 1e-6


def test_nothing_to_learn_is_zero() -> None:
    none = torch.zeros(ROWS, dtype=torch.bool)
    inputs = leaves(make_inputs())
    loss = fused_linear_sparse_kd_loss(
        *inputs[:2], make_targets(ROWS, VOCAB), bias=inputs[2], mask=none
    )
    loss.backward()
    assert loss.item() == 0
    for leaf in inputs:
        assert leaf.grad is not None
        assert not leaf.grad.any()


def test_backward_twice_and_accumulation() -> None:
    targets = make_targets(ROWS, VOCAB)
    inputs = make_inputs()
    expected = of_head(*inputs, targets, num_items=77)
    hidden, weight, bias = leaves(inputs)
    loss = fused_linear_sparse_kd_loss(hidden, weight, targets, bias=bias, num_items=77)
    loss.backward(retain_graph=True)
    (2 * loss).backward()
    for leaf, wanted in zip((hidden, weight, bias), expected.gradients, strict=True):
        assert error(leaf.grad, 3 * wanted) < 1e-6


def test_tied_weight_gets_both_gradients() -> None:
    targets = make_targets(ROWS, VOCAB)
    table = make_inputs()[1].requires_grad_()
    ids = torch.arange(ROWS) * 5
    fused_linear_sparse_kd_loss(table[ids], table, targets, chunk_rows=8).backward()
    other = make_inputs()[1].requires_grad_()
    sparse_kd_loss(torch.nn.functional.linear(other[ids], other), targets).backward()
    assert other.grad is not None
    assert error(table.grad, other.grad.double()) < 1e-6


def test_autocast_casts_as_linear_does() -> None:
    targets = make_targets(ROWS, VOCAB)
    one, two = leaves(make_inputs()), leaves(make_inputs())
    with torch.autocast("cpu", torch.bfloat16):
        fused = fused_linear_sparse_kd_loss(one[0], one[1], targets, bias=one[2], chunk_rows=8)
        plain = sparse_kd_loss(torch.nn.functional.linear(*two), targets)
    fused.backward()
    plain.backward()
    assert error(fused, plain.detach().double()) < 2**-8
    for a, b in zip(one, two, strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert a.grad.dtype == torch.float32
        assert error(a.grad, b.grad.double()) < 2**-6


def test_gradcheck() -> None:
    targets = make_targets(4, 9)
    generator = torch.Generator().manual_seed(5)
    shapes = ((4, 3), (9, 3), (9,))
    inputs = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    assert torch.autograd.gradcheck(
        lambda x, w, b: fused_linear_sparse_kd_loss(x, w, targets, bias=b, chunk_rows=3),
        leaves(inputs),
    )


def test_chunk_rule() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert default_chunk_rows(49_152, torch.float32, cpu) == 512
    assert default_chunk_rows(262_144, torch.float32, cpu) == 256
    assert default_chunk_rows(262_144, torch.float32, cuda) == 1024
    assert default_chunk_rows(49_152, torch.bfloat16, cuda) == (512 << 20) // (49_152 * 2)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"weight": torch.zeros(VOCAB, WIDTH + 1)}, "weight has shape"),
        ({"weight": torch.zeros(VOCAB, WIDTH, dtype=torch.float64)}, "weight is torch.float64"),
        ({"bias": torch.zeros(VOCAB - 1)}, "bias has shape"),
        ({"chunk_rows": 0}, "chunk_rows is 0"),
        ({"reduction": "none"}, "reduction is 'none'"),
        ({"hidden": torch.zeros(29, WIDTH)}, "targets has 30 rows and hidden has 29"),
    ],
)
def test_wrong_arguments(change: dict[str, Any], message: str) -> None:
    hidden, weight, _ = make_inputs()
    arguments = {"hidden": hidden, "weight": weight, "targets": make_targets(ROWS, VOCAB)}
    with pytest.raises(errors.InvalidArgumentError, match=message):
        fused_linear_sparse_kd_loss(**{**arguments, **change})


def test_head_smaller_than_the_vocabulary() -> None:
    hidden, weight, _ = make_inputs()
    targets = SparseTargets(torch.arange(31), torch.zeros(30).long(), torch.ones(30), VOCAB + 1)
    with pytest.raises(errors.VocabularyMismatchError, match="only 203"):
        fused_linear_sparse_kd_loss(hidden, weight, targets)
