"""Both losses inside `torch.compile`: one graph, the numbers of the dense reference.

Most tests use the backend that traces forward and backward and runs them as they are; inductor,
which compiles C++, has one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
import torch._inductor.config
from dense_reference import error, make_labels, make_targets, of_head, of_logits
from torch import Tensor

from sparselogits import errors
from sparselogits.torch import SparseTargets, fused_linear_sparse_kd_loss, operators, sparse_kd_loss
from sparselogits.torch.terms import make_terms

ROWS, VOCAB, WIDTH = 30, 57, 8
TARGETS = make_targets(ROWS, VOCAB)
FP32 = 2e-6


@pytest.fixture(autouse=True)
def nothing_compiled_before() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def make_inputs(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = ((3, 10, WIDTH), (VOCAB, WIDTH), (VOCAB,))
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


def keywords_of(targets: SparseTargets) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(5)
    return {
        "labels": make_labels(ROWS, VOCAB, targets).view(3, 10),
        "alpha": 0.4,
        "position_weights": torch.rand(3, 10, generator=generator),
        "softcap": 3.0,
        "mask": torch.rand(3, 10, generator=generator) < 0.7,
        "temperature": 1.5,
        "scale_by_temperature_squared": True,
    }


def compiled(function: Callable[..., Tensor], **options: Any) -> Callable[..., Tensor]:
    return torch.compile(function, **{"fullgraph": True, "backend": "aot_eager", **options})


def of_given_logits(z: Tensor, targets: SparseTargets, **keywords: Any) -> Tensor:
    return sparse_kd_loss(2 * z, targets, **keywords) * 3


def of_given_head(
    x: Tensor, weight: Tensor, bias: Tensor, targets: SparseTargets, **keywords: Any
) -> Tensor:
    return 3 * fused_linear_sparse_kd_loss(
        x * 2, weight, targets, bias=bias, chunk_rows=7, **keywords
    )


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("inplace", [False, True])
def test_given_logits(full: bool, reduction: str, inplace: bool) -> None:
    keywords = {**(keywords_of(TARGETS) if full else {}), "reduction": reduction}
    logits = torch.nn.functional.linear(*make_inputs())
    leaf = logits.clone().requires_grad_()
    loss = compiled(of_given_logits)(leaf, TARGETS, inplace=inplace, **keywords)
    loss.sum().backward()
    expected = of_logits(2 * logits, TARGETS, **keywords)
    assert loss.shape == ((3, 10) if reduction == "none" else ())
    assert error(loss.flatten(), 3 * expected.loss.flatten()) < FP32
    assert error(leaf.grad, 6 * expected.gradients[0]) < FP32


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("wanted", [1, 2, 7])
def test_a_head(full: bool, wanted: int) -> None:
    keywords = keywords_of(TARGETS) if full else {}
    inputs = make_inputs()
    leaves = [t.clone().requires_grad_(bool(wanted >> i & 1)) for i, t in enumerate(inputs)]
    loss = compiled(of_given_head)(*leaves, TARGETS, **keywords)
    loss.backward()
    expected = of_head(2 * inputs[0], *inputs[1:], TARGETS, **keywords)
    assert error(loss, 3 * expected.loss) < FP32
    factors = (6, 3, 3)
    for leaf, factor, gradient in zip(leaves, factors, expected.gradients, strict=True):
        if leaf.requires_grad:
            assert error(leaf.grad, factor * gradient) < FP32
        else:
            assert leaf.grad is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_dtypes_round_as_outside_of_a_graph(dtype: torch.dtype) -> None:
    """float16 with a count that only the loss scale saves from rounding to zero."""
    one, two = ([t.requires_grad_() for t in make_inputs(dtype)] for _ in range(2))
    keywords = {"num_items": 10**8}
    for leaves, function in ((one, of_given_head), (two, compiled(of_given_head))):
        (function(*leaves, TARGETS, **keywords) * 65536).backward()
    for a, b in zip(one, two, strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert b.grad.dtype == dtype
        assert error(b.grad, a.grad.double()) <= torch.finfo(dtype).eps


def test_without_gradients() -> None:
    inputs = [t.requires_grad_() for t in make_inputs()]
    with torch.no_grad():
        loss = compiled(of_given_head)(*inputs, TARGETS)
    assert not loss.requires_grad
    assert error(loss, 3 * of_head(2 * inputs[0], *inputs[1:], TARGETS).loss) < FP32


def test_autocast() -> None:
    one, two = ([t.requires_grad_() for t in make_inputs()] for _ in range(2))
    for leaves, function in ((one, of_given_head), (two, compiled(of_given_head))):
        with torch.autocast("cpu", torch.bfloat16):
            function(*leaves, TARGETS).backward()
    for a, b in zip(one, two, strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert b.grad.dtype == torch.float32
        assert error(b.grad, a.grad.double()) < 2**-7


def test_other_batches_compile_nothing_new() -> None:
    """The number of entries, of rows to divide by and of items differs in every batch."""
    counter = torch._dynamo.testing.CompileCounter()
    function = compiled(of_given_logits, backend=counter)
    logits = torch.nn.functional.linear(*make_inputs())
    for seed in range(6):
        targets = make_targets(ROWS, VOCAB, seed=seed)
        loss = function(logits, targets, num_items=20 + seed)
        expected = 3 * of_logits(2 * logits, targets, num_items=20 + seed).loss
        assert error(loss, expected) < FP32
    # Once for the first batch, and once more for numbers that may change.
    assert counter.frame_count == 2


def test_values_are_checked_when_the_graph_runs() -> None:
    logits = torch.nn.functional.linear(*make_inputs())
    function = compiled(of_given_logits)
    labels = torch.zeros(ROWS, dtype=torch.int64)
    function(logits, TARGETS, labels=labels, alpha=0.5)
    labels[4] = -7
    with pytest.raises(errors.InvalidArgumentError, match="labels of row 4 is -7"):
        function(logits, TARGETS, labels=labels, alpha=0.5)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_gradients_straight_into_grad_break_the_graph_and_nothing_else() -> None:
    inputs = make_inputs()
    leaves = [t.clone().requires_grad_() for t in inputs]
    function = compiled(of_given_head, fullgraph=False)
    for _ in range(2):
        function(*leaves, TARGETS, accumulate_weight_grad=True).backward()
    expected = of_head(2 * inputs[0], *inputs[1:], TARGETS)
    for leaf, factor, gradient in zip(leaves, (6, 3, 3), expected.gradients, strict=True):
        assert error(leaf.grad, 2 * factor * gradient) < FP32


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_inductor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layer, head and loss in one graph that a compiler made."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))

    # Scalar code and no precompiled headers: this tests the graph, and g++ is what takes the time.
    options = {"compile_threads": 1, "cpp.simdlen": 1, "cpp_cache_precompile_headers": False}

    def step(x: Tensor, weight: Tensor, bias: Tensor, targets: SparseTargets) -> Tensor:
        return of_given_head(torch.nn.functional.gelu(x), weight, bias, targets, temperature=1.5)

    one, two = ([t.requires_grad_() for t in make_inputs()] for _ in range(2))
    step(*one, TARGETS).backward()
    with torch._inductor.config.patch(options):
        compiled(step, backend="inductor")(*two, TARGETS).backward()
    for a, b in zip(one, two, strict=True):
        assert a.grad is not None
        assert error(b.grad, a.grad.double()) < 1e-5


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_operators_keep_torchs_rules(full: bool, dtype: torch.dtype) -> None:
    """Schema, fake tensors, autograd and dynamic shapes, as `torch.library.opcheck` tries them."""
    hidden, weight, bias = make_inputs(dtype)
    hidden = hidden.flatten(0, 1)
    defaults: dict[str, Any] = {
        "mask": None,
        "position_weights": None,
        "labels": None,
        "alpha": 0.0,
        "softcap": None,
        "temperature": 1.0,
        "scale_by_temperature_squared": False,
    }
    chosen = {**defaults, **(keywords_of(TARGETS) if full else {})}
    terms = make_terms(
        TARGETS,
        hidden,
        "hidden",
        torch.Size((3, 10)),
        VOCAB,
        reduction="mean",
        reductions=("mean",),
        num_items=12,
        **chosen,
    )
    packed = operators._pack(terms)
    leaves = [t.requires_grad_() for t in (hidden, weight, bias)]
    head = operators.fused_linear_sparse_kd_loss
    torch.library.opcheck(head, (*leaves, *packed, 7, True, True, True))
    torch.library.opcheck(head, (*(t.detach() for t in leaves), *packed, 7, False, False, False))
    logits = torch.nn.functional.linear(hidden, weight, bias).detach().requires_grad_()
    torch.library.opcheck(operators.sparse_kd_loss, (logits, *packed, True))
