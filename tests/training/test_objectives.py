"""Every objective against its formula in float64 over dense targets."""

from __future__ import annotations

from typing import Any

import dense_objectives as dense
import pytest
import torch
from dense_objectives import OPTIONS, make
from dense_reference import error
from torch import Tensor

from sparselogits.torch import objectives

FP32 = 2e-6
NEEDS_LABEL = ("cross_entropy", "label_smoothing", "naive_fix")
MIXABLE = [name for name in OPTIONS if name not in ("cross_entropy", "label_smoothing")]


def reference(
    name: str,
    z: Tensor,
    teacher: Tensor,
    labels: Tensor,
    *,
    alpha: float = 0.0,
    mask: Tensor | None = None,
    position_weights: Tensor | None = None,
    temperature: float = 1.0,
    squared: bool = False,
    reduction: str = "mean",
    num_items: float | None = None,
    subtract_entropy: bool = False,
) -> Tensor:
    z, p = z / temperature, torch.softmax(teacher.double() / temperature, -1)
    distilled = dense.losses_of(name, z, p, labels, subtract_entropy=subtract_entropy)
    keep = torch.ones_like(labels, dtype=torch.bool)
    if name in NEEDS_LABEL or alpha == 1:
        keep &= labels != -100
    if mask is not None:
        keep &= mask
    of_labels = -(dense.one_hot(labels) * torch.log_softmax(z, -1)).sum(-1)
    losses = (1 - alpha) * distilled + alpha * of_labels
    losses = torch.where(keep, losses, 0) * (temperature**2 if squared else 1)
    if position_weights is not None:
        losses = losses * position_weights
    if reduction == "none":
        return losses
    return losses.sum() / ((num_items or int(keep.sum())) if reduction == "mean" else 1)


def check(
    name: str, *, squared: bool = False, alpha: float = 0.0, seed: int = 0, **keywords: Any
) -> None:
    student, teacher, labels = dense.make_rows(seed=seed)
    z = student.double().requires_grad_()
    expected = reference(name, z, teacher, labels, alpha=alpha, squared=squared, **keywords)
    (gradient,) = torch.autograd.grad(expected.sum(), z)
    leaf = student.clone().requires_grad_()
    objective = make(name, **({"alpha": alpha} if alpha else {}))
    keywords["scale_by_temperature_squared"] = squared
    loss = objective(leaf, labels=labels, teacher_logits=teacher, **keywords)
    loss.sum().backward()
    assert loss.dtype == torch.float32
    assert error(loss, expected.detach()) < FP32
    assert error(leaf.grad, gradient) < FP32
    with torch.no_grad():
        again = objective(student, labels=labels, teacher_logits=teacher, **keywords)
    assert torch.equal(again, loss)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("temperature, squared", [(1.0, False), (2.0, True), (0.7, False)])
def test_value_and_gradient(name: str, temperature: float, squared: bool) -> None:
    check(name, temperature=temperature, squared=squared)


@pytest.mark.parametrize("name", OPTIONS)
def test_reductions(name: str) -> None:
    check(name, reduction="sum")
    check(name, reduction="none")
    check(name, num_items=7)


@pytest.mark.parametrize("name", OPTIONS)
def test_masked_rows_count_for_nothing_whatever_they_hold(name: str) -> None:
    mask = torch.arange(dense.ROWS) % 3 != 1
    check(name, mask=mask)
    student, teacher, labels = dense.make_rows()
    expected = make(name)(student, labels=labels, teacher_logits=teacher, mask=mask)
    dirty = student.clone()
    dirty[~mask] = torch.nan
    leaf = dirty.requires_grad_()
    loss = make(name)(leaf, labels=labels, teacher_logits=teacher, mask=mask)
    loss.backward()
    assert torch.equal(loss, expected)
    assert leaf.grad is not None
    assert not leaf.grad[~mask].any()
    nothing = make(name)(leaf, labels=labels, teacher_logits=teacher, mask=torch.zeros_like(mask))
    assert nothing.item() == 0


@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "reverse_kd"])
def test_without_its_entropy_a_loss_is_a_divergence(name: str) -> None:
    check(name, subtract_entropy=True, temperature=1.3, squared=True)
    check(name, subtract_entropy=True, reduction="none")


@pytest.mark.parametrize("name", MIXABLE)
@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_labels_mixed_in(name: str, alpha: float) -> None:
    check(name, alpha=alpha, temperature=1.5, squared=True)
    check(name, alpha=alpha, reduction="none")
    if name != "reverse_kd":
        check(name, alpha=alpha, subtract_entropy=True)


@pytest.mark.parametrize("name", OPTIONS)
def test_position_weights_multiply_rows_and_not_what_a_mean_is_divided_by(name: str) -> None:
    weights = torch.rand(dense.ROWS, generator=torch.Generator().manual_seed(5)) * 2
    weights[4] = 0
    check(name, position_weights=weights)
    if name in MIXABLE:
        check(name, position_weights=weights, alpha=0.4, reduction="none")
    if name != "reverse_kd":
        check(name, position_weights=weights, subtract_entropy=True)


@pytest.mark.parametrize("name", OPTIONS)
def test_logits_of_any_leading_shape(name: str) -> None:
    student, teacher, labels = dense.make_rows()
    shape = (4, dense.ROWS // 4)
    flat = make(name)(student, labels=labels, teacher_logits=teacher, reduction="none")
    shaped = make(name)(
        student.view(*shape, -1),
        labels=labels.view(shape),
        teacher_logits=teacher.view(*shape, -1),
        reduction="none",
    )
    assert torch.equal(shaped, flat.view(shape))


@pytest.mark.parametrize("name", OPTIONS)
def test_a_narrow_dtype_costs_its_rounding_alone(name: str) -> None:
    """bfloat16 logits: float32 arithmetic, gradients rounded once (2^-8)."""
    student, teacher, labels = dense.make_rows(torch.bfloat16)
    z = student.double().requires_grad_()
    expected = reference(name, z, teacher, labels)
    (gradient,) = torch.autograd.grad(expected, z)
    leaf = student.clone().requires_grad_()
    loss = make(name)(leaf, labels=labels, teacher_logits=teacher)
    loss.backward()
    assert loss.dtype == torch.float32
    assert error(loss, expected.detach()) < FP32
    assert error(leaf.grad, gradient) < 2**-8


@pytest.mark.parametrize("name", ["full_kd", "reverse_kd", "ghost_token", "label_smoothing"])
def test_gradcheck(name: str) -> None:
    student, teacher, labels = (rows[:4] for rows in dense.make_rows(torch.float64))
    objective = make(name)
    assert torch.autograd.gradcheck(
        lambda z: objective(z, labels=labels, teacher_logits=teacher, reduction="none"),
        student.requires_grad_(),
    )


@pytest.mark.parametrize("name", ["full_kd", "ghost_token", "label_smoothing", "reverse_kd"])
def test_real_vocabulary_in_several_blocks(name: str) -> None:
    """Sums of 151,936 terms, and rows that do not fit into one block of scratch."""
    rows, width = 23, 151_936
    generator = torch.Generator().manual_seed(3)
    student = torch.randn(rows, width, generator=generator)
    teacher = 3 * torch.randn(rows, width, generator=generator)
    labels = torch.randint(0, width, (rows,), generator=generator)
    z, p = student.double().requires_grad_(), torch.softmax(teacher.double(), -1)
    if name == "label_smoothing":
        target = 0.9 * dense.one_hot(labels, width) + 0.1 / width
        expected = dense.linear_loss(target, z, False).mean()
    elif name == "full_kd":
        expected = dense.linear_loss(p, z, False).mean()
    else:
        expected = dense.losses_of(name, z, p, labels).mean()
    (gradient,) = torch.autograd.grad(expected, z)
    leaf = student.clone().requires_grad_()
    loss = make(name)(leaf, labels=labels, teacher_logits=teacher)
    loss.backward()
    assert error(loss, expected.detach()) < FP32
    assert error(leaf.grad, gradient) < FP32


def test_a_padded_head_gets_no_probability_from_the_teacher() -> None:
    student, teacher, labels = dense.make_rows()
    padded = torch.cat([student, torch.randn(dense.ROWS, 3)], -1)
    p = torch.softmax(teacher.double(), -1)
    z = padded.double()
    wide = torch.nn.functional.pad(p, (0, 3))
    expected = dense.linear_loss(wide, z, False).mean()
    assert error(make("full_kd")(padded, teacher_logits=teacher), expected) < FP32
    smoothed = torch.nn.functional.pad(dense.TARGETS["smoothed_residual"](p, labels), (0, 3))
    expected = dense.linear_loss(smoothed, z, False).mean()
    assert error(make("smoothed_residual")(padded, teacher_logits=teacher), expected) < FP32
    smoothed = torch.nn.functional.pad(dense.TARGETS["label_smoothing"](p, labels), (0, 3))
    expected = dense.linear_loss(smoothed, z, False).sum() / (labels != -100).sum()
    objective = objectives.LabelSmoothing(vocab_size=dense.VOCABULARY)
    assert error(objective(padded, labels=labels), expected) < FP32


def test_a_padded_head_gets_no_gradient_towards_what_is_smoothed() -> None:
    student, teacher, labels = dense.make_rows()
    padded = torch.cat([student, torch.randn(dense.ROWS, 3)], -1).requires_grad_()
    objectives.SmoothedResidual(k=5)(padded, teacher_logits=teacher).backward()
    p, z = torch.softmax(teacher.double(), -1), padded.detach().double().requires_grad_()
    target = torch.nn.functional.pad(dense.TARGETS["smoothed_residual"](p, labels), (0, 3))
    (expected,) = torch.autograd.grad(dense.linear_loss(target, z, False).mean(), z)
    assert error(padded.grad, expected) < FP32


def test_label_smoothing_is_torch_s() -> None:
    student, _, labels = dense.make_rows()
    expected = torch.nn.functional.cross_entropy(student, labels, label_smoothing=0.2)
    loss = objectives.LabelSmoothing(0.2)(student, labels=labels)
    torch.testing.assert_close(loss, expected)


def test_tokens_that_neither_model_can_say() -> None:
    student, teacher, labels = dense.make_rows()
    student[:, 7], teacher[:, 7] = -torch.inf, -torch.inf
    labels[labels == 7] = 8
    fewer = [torch.cat([rows[:, :7], rows[:, 8:]], -1) for rows in (student, teacher)]
    some = [make(name) for name in ("full_kd", "reverse_kd", "ghost_token", "top_k")]
    kinds = (objectives.GhostToken, objectives.TopTokens)
    every = [(kind(k=dense.VOCABULARY), kind(k=dense.VOCABULARY - 1)) for kind in kinds]
    for objective, of_fewer in [(one, one) for one in some] + every:
        leaf = student.clone().requires_grad_()
        loss = objective(leaf, labels=labels, teacher_logits=teacher)
        loss.backward()
        expected = of_fewer(fewer[0], teacher_logits=fewer[1])
        torch.testing.assert_close(loss, expected)
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
        assert not leaf.grad[:, 7].any()


def test_a_ghost_token_survives_a_student_without_a_tail() -> None:
    """q_rest underflows; its logarithm does not."""
    student = torch.zeros(1, 6)
    student[0, 2:] = -300.0
    leaf = student.requires_grad_()
    teacher = torch.tensor([[0.3, 0.3, 0.1, 0.1, 0.1, 0.1]]).log()
    loss = objectives.GhostToken(k=2)(leaf, teacher_logits=teacher)
    loss.backward()
    assert loss.item() == pytest.approx(0.4 * 300 + 0.6931 - 0.4 * 1.3863, rel=1e-3)
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad, torch.tensor([[0.2, 0.2, -0.1, -0.1, -0.1, -0.1]]))


def test_a_ghost_token_of_the_whole_vocabulary_is_full_kd() -> None:
    student, teacher, _ = dense.make_rows()
    a, b = (student.clone().requires_grad_() for _ in range(2))
    ghost = objectives.GhostToken(k=dense.VOCABULARY)(a, teacher_logits=teacher)
    full = objectives.FullKD()(b, teacher_logits=teacher)
    (ghost + full).backward()
    torch.testing.assert_close(ghost, full)
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-8)
