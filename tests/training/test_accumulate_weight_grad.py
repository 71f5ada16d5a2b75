"""accumulate_weight_grad of the fused loss: sums in `.grad`, as autograd makes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from dense_reference import error, make_targets, of_head
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sparselogits import errors
from sparselogits.torch import fused_linear_sparse_kd_loss

ROWS, VOCAB, WIDTH = 30, 203, 16
TARGETS = make_targets(ROWS, VOCAB)


def make_inputs(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = ((ROWS, WIDTH), (VOCAB, WIDTH), (VOCAB,))
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


def make_leaves(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [t.requires_grad_() for t in make_inputs(dtype)]


def accumulate(hidden: Tensor, weight: Tensor, bias: Tensor | None, **keywords: Any) -> Tensor:
    return fused_linear_sparse_kd_loss(
        hidden,
        weight,
        TARGETS,
        bias=bias,
        chunk_rows=8,
        accumulate_weight_grad=True,
        **keywords,
    )


EXPECTED = of_head(*make_inputs(), TARGETS).gradients


def test_what_is_there_is_added_to_where_it_lies() -> None:
    hidden, weight, bias = make_leaves()
    for leaf in (weight, bias):
        leaf.grad = torch.full_like(leaf, 0.25)
    before = weight.grad
    (2 * accumulate(hidden, weight, bias)).backward()
    assert weight.grad is before
    assert error(hidden.grad, 2 * EXPECTED[0]) < 1e-6
    assert error(weight.grad, 2 * EXPECTED[1] + 0.25) < 1e-6
    assert error(bias.grad, 2 * EXPECTED[2] + 0.25) < 1e-6


def test_a_kept_graph_adds_again() -> None:
    hidden, weight, bias = leaves = make_leaves()
    loss = accumulate(hidden, weight, bias)
    loss.backward(retain_graph=True)
    (2 * loss).backward()
    for leaf, wanted in zip(leaves, EXPECTED, strict=True):
        assert error(leaf.grad, 3 * wanted) < 1e-6


class Allocated(TorchDispatchMode):
    """Counts results of at least `size` elements in memory that no argument owns."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.count = size, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        known = {t.untyped_storage().data_ptr() for t in _tensors([*args, *kwargs.values()])}
        result = func(*args, **kwargs)
        for tensor in _tensors(result if isinstance(result, (tuple, list)) else [result]):
            new = tensor.untyped_storage().data_ptr() not in known
            self.count += new and tensor.untyped_storage().nbytes() >= self.size * 4
        return result


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)


@pytest.mark.parametrize("keyword, buffers", [(True, 0), (False, 1)])
def test_no_second_buffer_of_the_weights_size(keyword: bool, buffers: int) -> None:
    hidden, weight, _ = make_leaves()
    weight.grad = torch.zeros_like(weight)
    with Allocated(weight.numel()) as seen:
        fused_linear_sparse_kd_loss(
            hidden, weight, TARGETS, chunk_rows=8, accumulate_weight_grad=keyword
        ).backward()
    assert seen.count == buffers


def test_nothing_to_learn_makes_gradients_of_zero() -> None:
    hidden, weight, bias = leaves = make_leaves()
    accumulate(hidden, weight, bias, mask=torch.zeros(ROWS, dtype=torch.bool)).backward()
    for leaf in leaves:
        assert leaf.grad is not None
        assert not leaf.grad.any()


@pytest.mark.parametrize("wanted", range(1, 8))
def test_only_the_gradients_that_are_wanted(wanted: int) -> None:
    leaves = make_inputs()
    for i, leaf in enumerate(leaves):
        leaf.requires_grad_(bool(wanted >> i & 1))
    accumulate(*leaves).backward()
    for leaf, gradient in zip(leaves, EXPECTED, strict=True):
        if leaf.requires_grad:
            assert error(leaf.grad, gradient) < 1e-6
        else:
            assert leaf.grad is None


def test_a_backward_pass_for_other_inputs_leaves_grad_alone() -> None:
    hidden, weight, bias = make_leaves()
    loss = accumulate(hidden, weight, bias)
    (gradient,) = torch.autograd.grad(loss, hidden, retain_graph=True)
    assert error(gradient, EXPECTED[0]) < 1e-6
    loss.backward(inputs=[bias], retain_graph=True)
    assert error(bias.grad, EXPECTED[2]) < 1e-6
    assert weight.grad is None
    with pytest.raises(errors.InvalidArgumentError, match="asks for the gradient of weight"):
        torch.autograd.grad(loss, weight)
    assert weight.grad is None


def test_a_tied_weight_gets_both_gradients() -> None:
    ids = torch.arange(ROWS) * 5
    found = []
    for keyword in (True, False):
        table = make_inputs()[1].requires_grad_()
        loss = fused_linear_sparse_kd_loss(
            table[ids], table, TARGETS, chunk_rows=8, accumulate_weight_grad=keyword
        )
        loss.backward()
        assert table.grad is not None
        found.append(table.grad.double())
    assert error(found[0], found[1]) < 1e-6


def test_under_autocast_a_float32_parameter_is_added_to_in_float32() -> None:
    hidden, weight, bias = leaves = make_leaves()
    other = make_leaves()
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            loss = accumulate(hidden, weight, bias)
            plain = fused_linear_sparse_kd_loss(
                other[0], other[1], TARGETS, bias=other[2], chunk_rows=8
            )
        assert torch.equal(loss, plain)
        loss.backward()
        plain.backward()
    for leaf, one in zip(leaves, other, strict=True):
        assert leaf.grad is not None
        assert one.grad is not None
        assert leaf.grad.dtype == torch.float32
        assert error(leaf.grad, one.grad.double()) < 2**-7


def test_steps_of_a_bfloat16_weight_add_up_exactly_in_a_float32_grad() -> None:
    hidden, weight, bias = make_leaves(torch.bfloat16)
    weight.grad_dtype = torch.float32
    weight.grad = torch.zeros(VOCAB, WIDTH)
    accumulate(hidden, weight, bias).backward()
    first, first_bias = weight.grad.double(), bias.grad.double()
    for _ in range(39):
        accumulate(hidden, weight, bias).backward()
    assert error(weight.grad, 40 * first) < 1e-5
    # A narrow sum is rounded at every step, which the keyword's documentation says.
    assert error(bias.grad, 40 * first_bias) > 2**-8


def test_float16_meets_the_loss_scale_before_it_rounds() -> None:
    leaves = make_leaves(torch.float16)
    (accumulate(*leaves, num_items=10**8) * 65536).backward()
    expected = of_head(*make_inputs(torch.float16), TARGETS, num_items=10**8).gradients
    for leaf, wanted in zip(leaves, expected, strict=True):
        assert float(wanted.abs().max()) < 2**-22
        assert error(leaf.grad, 65536 * wanted) < 5e-3


def non_leaf(weight: Tensor) -> Tensor:
    return weight * 1


def hooked(weight: Tensor) -> Tensor:
    weight.register_hook(lambda gradient: gradient)
    return weight


def hooked_after(weight: Tensor) -> Tensor:
    weight.register_post_accumulate_grad_hook(lambda parameter: None)
    return weight


def with_sparse_grad(weight: Tensor) -> Tensor:
    weight.grad = torch.zeros_like(weight).to_sparse()
    return weight


def with_graph(weight: Tensor) -> Tensor:
    weight.grad = torch.zeros_like(weight).requires_grad_()
    return weight


@pytest.mark.parametrize(
    "change, message",
    [
        (non_leaf, "weight is computed from other tensors"),
        (hooked, "weight has hooks"),
        (hooked_after, "weight has hooks"),
        (with_sparse_grad, "weight.grad is torch.sparse_coo"),
        (with_graph, "weight.grad is part of a graph"),
    ],
)
def test_what_would_be_wrong_is_refused(change: Callable[[Tensor], Tensor], message: str) -> None:
    hidden, weight, bias = make_leaves()
    weight = change(weight)
    with pytest.raises(errors.InvalidArgumentError, match=message):
        accumulate(hidden, weight, bias)


def test_without_gradients_it_changes_nothing() -> None:
    hidden, weight, bias = make_leaves()
    with torch.no_grad():
        loss = accumulate(hidden, non_leaf(weight), bias)
    assert torch.equal(loss, accumulate(hidden, weight, bias).detach())
    assert weight.grad is None


class Head(torch.nn.Module):
    """A layer and an output head, with the loss in its forward."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = torch.nn.Linear(WIDTH, WIDTH)
        self.head = torch.nn.Linear(WIDTH, VOCAB)

    def forward(self, x: Tensor, accumulate_weight_grad: bool) -> Tensor:
        return fused_linear_sparse_kd_loss(
            self.body(x),
            self.head.weight,
            TARGETS,
            bias=self.head.bias,
            chunk_rows=8,
            accumulate_weight_grad=accumulate_weight_grad,
        )


@pytest.mark.parametrize("bucket_views", [False, True])
def test_data_parallel_reduces_what_was_added(tmp_path: Path, bucket_views: bool) -> None:
    """DistributedDataParallel averages .grad when the parameter is due, in every step."""
    dist.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        found = []
        for keyword in (True, False):
            model = torch.nn.parallel.DistributedDataParallel(
                Head(), gradient_as_bucket_view=bucket_views
            )
            halve_when_reduced(model)
            with model.no_sync():
                model(make_inputs()[0], keyword).backward()
            for _ in range(2):  # a step that was not finished makes the next one raise
                model(make_inputs()[0], keyword).backward()
            found.append([p.grad for p in model.parameters()])
    finally:
        dist.destroy_process_group()
    for one, two in zip(*found, strict=True):
        assert two is not None
        assert error(one, two.double()) < 1e-6


def halve_when_reduced(model: torch.nn.parallel.DistributedDataParallel) -> None:
    """Makes the reduction visible: with one process an average changes nothing."""

    def hook(state, bucket):  # type: ignore[no-untyped-def]  # torch reads the annotations
        done: torch.futures.Future[Tensor] = torch.futures.Future()
        done.set_result(bucket.buffer() / 2)
        return done

    model.register_comm_hook(None, hook)
