"""Objectives inside autograd and the compiler: kept graphs, loss scales, broken graphs."""

from __future__ import annotations

import dense_objectives as dense
import pytest
import torch
from dense_objectives import make
from dense_reference import error
from torch import Tensor

from sparselogits.torch import objectives


def test_backward_twice_and_no_second_derivative() -> None:
    student, teacher, _ = dense.make_rows()
    leaf = student.requires_grad_()
    loss = 3 * objectives.FullKD()(leaf, teacher_logits=teacher)
    loss.backward(retain_graph=True)
    once = leaf.grad.clone()
    loss.backward()
    torch.testing.assert_close(leaf.grad, 2 * once)
    loss = objectives.FullKD()(leaf, teacher_logits=teacher)
    (gradient,) = torch.autograd.grad(loss * leaf.sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_float16_gradients_are_divided_after_the_loss_scale() -> None:
    student, teacher, _ = dense.make_rows(torch.float16)
    leaf = student.clone().requires_grad_()
    (2.0**16 * objectives.FullKD()(leaf, teacher_logits=teacher, num_items=2**20)).backward()
    wide = student.double().requires_grad_()
    (2.0**16 * objectives.FullKD()(wide, teacher_logits=teacher, num_items=2**20)).backward()
    assert wide.grad is not None
    assert error(leaf.grad, wide.grad) < 2**-10


STUDENT, TEACHER, LABELS = dense.make_rows()


# The compiler asks tensors for .grad where a graph breaks, and hides torch's warning from itself.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("name", ["full_kd", "ghost_token", "naive_fix"])
def test_a_compiler_breaks_its_graph_for_an_objective(name: str) -> None:
    def step(z: Tensor) -> Tensor:
        return 2 * make(name)(1.5 * z, labels=LABELS, teacher_logits=TEACHER)

    plain, compiled = (STUDENT.clone().requires_grad_() for _ in range(2))
    expected, loss = step(plain), torch.compile(step, backend="aot_eager")(compiled)
    (expected + loss).backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(compiled.grad, plain.grad)
