"""sparse_kd_loss against the dense float64 reference."""

from __future__ import annotations

import pytest
import torch
from dense_reference import error, make_targets, of_logits, row_losses
from hypothesis import given, settings
from hypothesis import strategies as st

from sparselogits import errors
from sparselogits.torch import SparseTargets, sparse_kd_loss

FP32 = 1e-6


def make_logits(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(*shape, generator=generator)).to(dtype)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("inplace", [False, True])
def test_value_and_gradient(
    temperature: float, squared: bool, reduction: str, masked: bool, inplace: bool
) -> None:
    shape = (3, 17)
    targets = make_targets(51, 1009)
    logits = make_logits(*shape, 1009)
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(2)) < 0.6 if masked else None
    keywords = {
        "mask": mask,
        "temperature": temperature,
        "scale_by_temperature_squared": squared,
        "reduction": reduction,
    }
    expected = of_logits(logits, targets, **keywords)
    leaf = logits.clone().requires_grad_()
    loss = sparse_kd_loss(leaf.clone(), targets, inplace=inplace, **keywords)
    loss.sum().backward()
    assert loss.dtype == torch.float32
    assert loss.shape == (shape if reduction == "none" else ())
    assert error(loss.flatten(), expected.loss.flatten()) < FP32
    assert error(leaf.grad, expected.gradients[0]) < FP32
    with torch.no_grad():
        assert torch.equal(sparse_kd_loss(logits, targets, **keywords), loss)


@pytest.mark.parametrize("sharpness", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("vocab", [49_152, 151_936])
def test_real_vocabularies(vocab: int, sharpness: float) -> None:
    """Flat rows are the hard ones: a naive sum of so many terms is off by 1e-5."""
    targets = make_targets(20, vocab, most=12)
    logits = sharpness * make_logits(20, vocab)
    leaf = logits.clone().requires_grad_()
    loss = sparse_kd_loss(leaf, targets)
    loss.backward()
    expected = of_logits(logits, targets)
    assert error(loss, expected.loss) < FP32
    assert error(leaf.grad, expected.gradients[0]) < FP32


def test_it_is_cross_entropy_for_one_certain_id_per_row() -> None:
    ids = torch.arange(7) * 3
    targets = SparseTargets(torch.arange(8), ids, torch.ones(7), 30)
    logits = make_logits(7, 30)
    torch.testing.assert_close(
        sparse_kd_loss(logits, targets), torch.nn.functional.cross_entropy(logits, ids)
    )


def test_weights_are_not_renormalised() -> None:
    targets = make_targets(9, 50, normalised=True)
    half = SparseTargets(targets.offsets, targets.token_ids, targets.weights / 2, 50)
    logits = make_logits(9, 50)
    torch.testing.assert_close(
        sparse_kd_loss(logits, half), sparse_kd_loss(logits, targets) / 2, rtol=1e-6, atol=0
    )


def test_temperature_squared_scales_loss_and_gradient_alike() -> None:
    """A peer applied T² to the reported loss only."""
    targets = make_targets(9, 50)
    plain, scaled = (make_logits(9, 50).requires_grad_() for _ in range(2))
    loss = sparse_kd_loss(plain, targets, temperature=3.0)
    loss_scaled = sparse_kd_loss(
        scaled, targets, temperature=3.0, scale_by_temperature_squared=True
    )
    loss.backward()
    loss_scaled.backward()
    torch.testing.assert_close(loss_scaled, 9 * loss)
    assert plain.grad is not None
    torch.testing.assert_close(scaled.grad, 9 * plain.grad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("inplace", [False, True])
def test_narrow_logits_are_reduced_in_float32(dtype: torch.dtype, inplace: bool) -> None:
    """A peer casts the lse to bfloat16, which alone costs 0.06 nats at lse = 15."""
    targets = make_targets(40, 5003)
    logits = make_logits(40, 5003, dtype=dtype) + 15
    leaf = logits.clone().requires_grad_()
    loss = sparse_kd_loss(leaf.clone(), targets, inplace=inplace)
    loss.backward()
    expected = of_logits(logits, targets)
    assert loss.dtype == torch.float32
    assert error(loss, expected.loss) < FP32
    assert leaf.grad is not None
    assert leaf.grad.dtype == dtype
    # Each element is rounded from float32 once (float16: once more, for the count).
    rounding = torch.finfo(dtype).eps
    smallest = torch.finfo(dtype).smallest_normal
    difference = (leaf.grad.double() - expected.gradients[0]).abs()
    assert bool((difference <= rounding * expected.gradients[0].abs() + smallest).all())


def test_entries_at_targets_survive_cancellation_in_bfloat16() -> None:
    """W p - w of nearly equal terms is a difference of float32 numbers, not of rounded ones."""
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]], dtype=torch.bfloat16)
    p = logits.float().softmax(-1)[0]
    weights = p * torch.tensor([1.0005, 0.9995, 1.0, 1.0])
    targets = SparseTargets(torch.tensor([0, 4]), torch.arange(4), weights, 4)
    leaf = logits.clone().requires_grad_()
    sparse_kd_loss(leaf, targets).backward()
    expected = of_logits(logits, targets).gradients[0]
    # Subtracting bfloat16 values would leave multiples of 2^-9 or nothing.
    assert 0 < float(expected.abs().max()) < 2**-9
    assert error(leaf.grad, expected) < 2**-7


def test_float16_gradient_waits_for_the_loss_scale() -> None:
    """Divided by the count first, every p / n here would be zero before the scale arrives."""
    targets = make_targets(64, 4001)
    logits = make_logits(64, 4001, dtype=torch.float16) / 16
    leaf = logits.clone().requires_grad_()
    (sparse_kd_loss(leaf, targets, num_items=100_000) * 65536).backward()
    expected = of_logits(logits, targets, num_items=100_000).gradients[0] * 65536
    assert leaf.grad is not None
    small = expected.abs() < expected.abs().max() / 100
    assert float(expected[small].abs().max()) / 65536 < 2**-25  # rounds to zero in float16
    assert error(leaf.grad[small], expected[small]) < 2e-3


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_nothing_to_learn_is_zero(reduction: str) -> None:
    targets = make_targets(5, 20)
    for chosen, mask in (
        (targets, torch.zeros(5, dtype=torch.bool)),
        (SparseTargets(torch.zeros(6, dtype=torch.int64), *_no_entries(), 20), None),
    ):
        logits = make_logits(5, 20).requires_grad_()
        loss = sparse_kd_loss(logits, chosen, mask=mask, reduction=reduction)
        loss.backward()
        assert loss.item() == 0
        assert logits.grad is not None
        assert not logits.grad.any()


def _no_entries() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty(0, dtype=torch.int64), torch.empty(0)


@pytest.mark.parametrize("inplace", [False, True])
def test_ignored_rows_may_hold_anything(inplace: bool) -> None:
    targets = make_targets(12, 40)
    mask = torch.arange(12) % 3 != 0
    logits = make_logits(12, 40)
    dirty = logits.clone()
    ignored = ~mask | (targets.offsets.diff() == 0)
    dirty[ignored] = torch.tensor([float("nan"), float("inf")]).repeat(20)
    leaf = dirty.requires_grad_()
    loss = sparse_kd_loss(leaf.clone(), targets, mask=mask, inplace=inplace)
    loss.backward()
    expected = of_logits(logits, targets, mask=mask)
    assert error(loss, expected.loss) < FP32
    assert error(leaf.grad, expected.gradients[0]) < FP32


def test_rows_that_count_pass_nan_on() -> None:
    targets = SparseTargets(torch.tensor([0, 1]), torch.tensor([2]), torch.ones(1), 5)
    logits = torch.tensor([[0.0, float("nan"), 1.0, 2.0, 3.0]], requires_grad=True)
    loss = sparse_kd_loss(logits, targets)
    loss.backward()
    assert loss.isnan()
    assert logits.grad is not None
    assert logits.grad.isnan().any()


def test_a_logit_of_minus_infinity_is_a_probability_of_zero() -> None:
    targets = SparseTargets(torch.tensor([0, 1]), torch.tensor([2]), torch.ones(1), 5)
    logits = torch.tensor([[0.0, -torch.inf, 1.0, 2.0, 3.0]], requires_grad=True)
    loss = sparse_kd_loss(logits, targets)
    loss.backward()
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits, torch.tensor([2])))
    assert logits.grad is not None
    assert logits.grad[0, 1] == 0


def test_padded_head() -> None:
    targets = make_targets(10, 100)
    logits = make_logits(10, 128)
    leaf = logits.clone().requires_grad_()
    sparse_kd_loss(leaf, targets).backward()
    assert error(leaf.grad, of_logits(logits, targets).gradients[0]) < FP32


@pytest.mark.parametrize("form", ["transposed", "sliced", "strided", "expanded"])
def test_non_contiguous_logits(form: str) -> None:
    base = {
        "transposed": make_logits(60, 4, 5).permute(1, 2, 0),
        "sliced": make_logits(4, 6, 60)[:, :-1],
        "strided": make_logits(4, 5, 120)[..., ::2],
        "expanded": make_logits(1, 5, 60).expand(4, 5, 60),
    }[form]
    assert not base.is_contiguous()
    targets = make_targets(20, 60)
    leaf = base.detach().requires_grad_()
    loss = sparse_kd_loss(leaf, targets)
    loss.backward()
    expected = of_logits(base, targets)
    assert error(loss, expected.loss) < FP32
    assert error(leaf.grad, expected.gradients[0]) < FP32


def test_logits_in_two_losses() -> None:
    first, second = make_targets(10, 50, seed=1), make_targets(10, 50, seed=2)
    labels = torch.arange(10)
    logits = make_logits(10, 50)
    leaf = logits.clone().requires_grad_()
    z = leaf * 1
    loss = (
        sparse_kd_loss(z, first)
        + 2 * sparse_kd_loss(z, second, temperature=2.0)
        + torch.nn.functional.cross_entropy(z, labels)
    )
    loss.backward()
    z64 = logits.double().requires_grad_()
    torch.nn.functional.cross_entropy(z64, labels).backward()
    expected = of_logits(logits, first).gradients[0]
    expected = expected + 2 * of_logits(logits, second, temperature=2.0).gradients[0]
    assert z64.grad is not None
    assert error(leaf.grad, expected + z64.grad) < FP32


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_backward_twice_through_a_kept_graph(factor: float) -> None:
    targets = make_targets(10, 50)
    logits = make_logits(10, 50)
    leaf = logits.clone().requires_grad_()
    loss = factor * sparse_kd_loss(leaf, targets)
    loss.backward(retain_graph=True)
    loss.backward()
    expected = 2 * factor * of_logits(logits, targets).gradients[0]
    assert error(leaf.grad, expected) < FP32
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_no_second_derivative() -> None:
    logits = make_logits(10, 50).requires_grad_()
    loss = sparse_kd_loss(logits, make_targets(10, 50))
    (gradient,) = torch.autograd.grad(loss * logits.sum(), logits, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_gradient_accumulation() -> None:
    targets = make_targets(12, 50)
    logits = make_logits(12, 50)
    whole = of_logits(logits, targets)
    count = int((targets.offsets.diff() > 0).sum())
    for num_items in (count, torch.tensor(count)):
        leaf = logits.clone().requires_grad_()
        total = 0.0
        for start, stop in ((0, 3), (3, 12)):
            first, last = targets.offsets[start], targets.offsets[stop]
            part = SparseTargets(
                targets.offsets[start : stop + 1] - first,
                targets.token_ids[first:last],
                targets.weights[first:last],
                50,
            )
            loss = sparse_kd_loss(leaf[start:stop], part, num_items=num_items)
            loss.backward()
            total += loss.item()
        assert total == pytest.approx(whole.loss.item(), rel=FP32)
        assert error(leaf.grad, whole.gradients[0]) < FP32


def test_inplace_leaves_the_gradient_in_the_logits() -> None:
    targets = make_targets(10, 50)
    leaf = make_logits(10, 50).requires_grad_()
    z = leaf.clone()
    loss = sparse_kd_loss(z, targets, inplace=True)
    assert error(z.detach(), of_logits(leaf, targets).gradients[0]) < FP32
    loss.backward()
    assert error(leaf.grad, of_logits(leaf, targets).gradients[0]) < FP32


def test_inplace_is_noticed_by_others_that_saved_the_logits() -> None:
    leaf = make_logits(10, 50).requires_grad_()
    z = torch.tanh(leaf)  # saves its result
    loss = sparse_kd_loss(z, make_targets(10, 50), inplace=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_inplace_without_a_gradient_changes_nothing() -> None:
    logits = make_logits(10, 50)
    before = logits.clone()
    sparse_kd_loss(logits, make_targets(10, 50), inplace=True)
    assert torch.equal(logits, before)


def test_autocast_changes_nothing() -> None:
    targets = make_targets(10, 50)
    logits = make_logits(10, 50)
    with torch.autocast("cpu", torch.bfloat16):
        loss = sparse_kd_loss(logits, targets)
    assert torch.equal(loss, sparse_kd_loss(logits, targets))


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_gradcheck(reduction: str, temperature: float) -> None:
    targets = make_targets(5, 11)
    logits = make_logits(5, 11, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: sparse_kd_loss(z, targets, reduction=reduction, temperature=temperature), logits
    )


@given(
    rows=st.integers(0, 12),
    vocab=st.integers(1, 40),
    seed=st.integers(0, 2**20),
    temperature=st.sampled_from([1.0, 0.7, 4.0]),
    scale=st.sampled_from([0.0, 1.0, 30.0]),
)
@settings(max_examples=60, deadline=None)
def test_any_rows(rows: int, vocab: int, seed: int, temperature: float, scale: float) -> None:
    targets = make_targets(rows, vocab, seed=seed)
    logits = scale * make_logits(rows, vocab, seed=seed)
    leaf = logits.clone().requires_grad_()
    loss = sparse_kd_loss(leaf, targets, temperature=temperature, reduction="none")
    loss.sum().backward()
    expected, _ = row_losses(logits, targets, temperature=temperature)
    # A row's loss is a difference of an lse and logits as large as these: that is its scale.
    size = float(logits.abs().max()) / temperature if rows else 0.0
    torch.testing.assert_close(
        loss.double(), expected, rtol=FP32, atol=FP32 * 6 * max(1.0, size), check_dtype=False
    )
    gradient = of_logits(logits, targets, temperature=temperature, reduction="sum").gradients[0]
    assert leaf.grad is not None
    # exp turns an absolute error of its argument into a relative one.
    torch.testing.assert_close(leaf.grad.double(), gradient, rtol=0, atol=FP32 * 6 * max(1.0, size))


TARGETS = make_targets(10, 50)
LOGITS = make_logits(10, 50)


@pytest.mark.parametrize(
    "logits, keywords, message",
    [
        (LOGITS[:9], {}, "targets has 10 rows and logits has 9"),
        (LOGITS[0], {}, "2 or 3 dimensions"),
        (LOGITS.long(), {}, "floating dtype"),
        (LOGITS, {"temperature": 0.0}, "temperature is 0.0"),
        (LOGITS, {"temperature": float("nan")}, "temperature is nan"),
        (LOGITS, {"reduction": "average"}, "reduction is 'average'"),
        (LOGITS, {"num_items": 0}, "num_items is 0"),
        (LOGITS, {"num_items": torch.ones(2)}, "num_items has 2 elements"),
        (LOGITS, {"num_items": 3, "reduction": "sum"}, "num_items divides a mean"),
        (LOGITS, {"mask": torch.ones(10)}, "mask is torch.float32"),
        (LOGITS, {"mask": torch.ones(9, dtype=torch.bool)}, "mask has shape"),
        (LOGITS.clone().requires_grad_(), {"inplace": True}, "leaf"),
        (LOGITS.clone().requires_grad_().view(2, 5, 50), {"inplace": True}, "leaf"),
        (torch.zeros(50, 10, requires_grad=True).exp().t(), {"inplace": True}, "contig"),
    ],
)
def test_wrong_arguments(logits: torch.Tensor, keywords: dict, message: str) -> None:
    with pytest.raises(errors.InvalidArgumentError, match=message):
        sparse_kd_loss(logits, TARGETS, **keywords)


def test_head_smaller_than_the_vocabulary() -> None:
    with pytest.raises(
        errors.VocabularyMismatchError, match="50 ids and the student's head only 49"
    ):
        sparse_kd_loss(LOGITS[:, :49], TARGETS)
    unknown = SparseTargets(torch.tensor([0, 1]), torch.tensor([60]), torch.ones(1))
    with pytest.raises(errors.VocabularyMismatchError, match="token id 60"):
        sparse_kd_loss(LOGITS[:1], unknown)
