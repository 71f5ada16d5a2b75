"""Gradient angles of known vectors, of logits and of a backbone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import sparselogits as sl
from sparselogits.torch import objectives, sparse_kd_loss
from sparselogits.torch.meters import (
    GradientAngleMeter,
    compare_gradients,
    gradient_angle,
    gradient_of,
)


@pytest.mark.parametrize(
    "gradient, reference, degrees, norm_ratio",
    [
        ([[0.0, 3.0]], [[1.0, 0.0]], 90, 3),
        ([[2.0, 0.0]], [[-1.0, 0.0]], 180, 2),
        ([[1.0, 1.0]], [[0.5, 0.0]], 45, 8**0.5),
        ([[1.0], [0.0]], [[1.0], [1.0]], 45, 0.5**0.5),
    ],
)
def test_known_vectors(gradient: list, reference: list, degrees: float, norm_ratio: float) -> None:
    found = compare_gradients(
        [torch.tensor(g) for g in gradient], [torch.tensor(g) for g in reference]
    )
    assert found.degrees == pytest.approx(degrees)
    assert found.norm_ratio == pytest.approx(norm_ratio)


def test_small_angles_are_not_lost_in_float32() -> None:
    reference = torch.ones(10_000)
    tilted = reference.clone()
    tilted[::2] += 1e-4
    tilted[1::2] -= 1e-4
    found = compare_gradients([tilted], [reference])
    assert found.degrees == pytest.approx(math.degrees(1e-4), rel=1e-3)


def test_a_zero_gradient_has_no_direction() -> None:
    found = compare_gradients([torch.zeros(3)], [torch.ones(3)])
    assert math.isnan(found.degrees)
    assert found.norm_ratio == 0


def make_student() -> tuple[nn.Module, nn.Linear, torch.Tensor, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 8))
        head = nn.Linear(8, 30, bias=False)
        x = torch.randn(2000, 6)
        # Close to its teacher, as after long training, where the full gradient is small.
        with torch.no_grad():
            teacher = 4 * head(body(x)) + 0.2 * x @ torch.randn(6, 30)
            head.weight *= 4
        return body, head, x, teacher


def test_draws_point_where_full_distillation_does_and_top_k_elsewhere() -> None:
    """A batch averages the error of draws out, and not that of Top-K (the paper, section 3)."""
    body, head, x, teacher = make_student()
    logits = head(body(x))
    full = objectives.FullKD()(logits, teacher_logits=teacher)
    parameters = list(body.parameters())
    draws = [
        objectives.sampled_targets(teacher, np.arange(2000), rounds=n, sampler="systematic")
        for n in (5, 50)
    ]
    few, many = (gradient_angle(sparse_kd_loss(logits, t), full, parameters) for t in draws)
    top = objectives.TopTokens(k=5)(logits, teacher_logits=teacher)
    biased = gradient_angle(top, full, parameters)
    assert many.degrees < few.degrees < biased.degrees
    assert many.degrees < 6
    assert many.norm_ratio == pytest.approx(1, abs=0.05)
    assert biased.norm_ratio > 1.2
    assert all(p.grad is None for p in parameters)


def test_angle_of_the_logits_is_that_of_the_closed_form() -> None:
    _, _, _, teacher = make_student()
    logits = torch.zeros_like(teacher).requires_grad_()
    k1 = objectives.TopTokens(k=1)(logits, teacher_logits=teacher)
    full = objectives.FullKD()(logits, teacher_logits=teacher)
    p, q = teacher.double().softmax(-1), torch.full_like(teacher, 1 / 30).double()
    hot = nn.functional.one_hot(teacher.argmax(-1), 30)
    expected = compare_gradients([q - hot], [q - p])
    found = gradient_angle(k1, full, logits)
    assert found.degrees == pytest.approx(expected.degrees, rel=1e-5)
    assert found.norm_ratio == pytest.approx(expected.norm_ratio, rel=1e-5)


def test_an_input_without_influence_counts_as_zero() -> None:
    a, b = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    gradients = gradient_of((3 * a).sum(), [a, b])
    assert [g.tolist() for g in gradients] == [[3, 3], [0, 0]]


def test_the_meter_s_means_and_standard_errors() -> None:
    reference = [torch.tensor([1.0, 0.0])]
    angles, norms = [10.0, 40.0, 25.0], [1.0, 2.0, 4.0]
    gradients = [
        [n * torch.tensor([math.cos(math.radians(a)), math.sin(math.radians(a))])]
        for a, n in zip(angles, norms, strict=True)
    ]
    whole, part = GradientAngleMeter(), GradientAngleMeter()
    for gradient in gradients:
        whole.update(gradient, reference)
    part.update(gradients[0], reference)
    other = GradientAngleMeter()
    other.update(gradients[1], reference)
    other.update(gradients[2], reference)
    for found in (whole.compute(), part.merge(other).compute()):
        assert found.degrees == pytest.approx(25, rel=1e-5)
        assert found.degrees_error == pytest.approx(np.std(angles, ddof=1) / 3**0.5, rel=1e-5)
        assert found.norm_ratio == pytest.approx(np.mean(norms), rel=1e-5)
        assert found.norm_error == pytest.approx(np.std(norms, ddof=1) / 3**0.5, rel=1e-5)
        assert found.batches == 3


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(sl.InvalidArgumentError, match=r"shapes \[\(2,\)\]; the reference"):
        compare_gradients([torch.ones(2)], [torch.ones(3)])
    with pytest.raises(sl.InvalidArgumentError, match="inputs is empty"):
        gradient_of(torch.ones(1, requires_grad=True).sum(), [])
    with pytest.raises(sl.InvalidArgumentError, match="GradientAngleMeter has seen no"):
        GradientAngleMeter().compute()
