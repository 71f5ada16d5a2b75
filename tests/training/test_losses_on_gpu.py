"""The losses on a CUDA device at real sizes: `pytest -m gpu`. Nothing here runs without one.

Development had no GPU: elsewhere the kernels are tested in Triton's interpreter, and compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from dense_reference import error
from torch import Tensor

from sparselogits.integrations.cut_cross_entropy import cut_cross_entropy_sparse_kd_loss
from sparselogits.integrations.liger import liger_sparse_kd_loss
from sparselogits.torch import (
    SparseTargets,
    fused_linear_sparse_kd_loss,
    head_torch,
    head_triton,
    row_torch,
    row_triton,
    sparse_kd_loss,
)
from sparselogits.torch.finish import Finish
from sparselogits.torch.head import Head
from sparselogits.torch.head_lse_loss import linear_lse_sparse_kd_loss
from sparselogits.torch.rows import unfold

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
HEAD_LOSSES: dict[str, Callable[..., Tensor]] = {
    "fused": fused_linear_sparse_kd_loss,
    "lse": linear_lse_sparse_kd_loss,
    "liger": liger_sparse_kd_loss,
    "cut_cross_entropy": cut_cross_entropy_sparse_kd_loss,
}


@pytest.fixture(autouse=True)
def _exact_products() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


def make_targets(rows: int, vocab: int, entries: int = 12) -> SparseTargets:
    """Every 7th row is empty; weights sum to one."""
    generator = torch.Generator().manual_seed(vocab)
    lengths = torch.full((rows,), entries)
    lengths[::7] = 0
    steps = torch.randint(1, vocab // entries, (rows, entries), generator=generator)
    weights = torch.rand(rows, entries, generator=generator)
    filled = lengths > 0
    return SparseTargets(
        torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]),
        (steps.cumsum(1) - 1)[filled].flatten(),
        (weights / weights.sum(1, keepdim=True))[filled].flatten(),
        vocab,
    ).to("cuda")


def make(*shape: int, dtype: torch.dtype, scale: float = 1.0) -> Tensor:
    generator = torch.Generator("cuda").manual_seed(shape[0])
    return (scale * torch.randn(shape, generator=generator, device="cuda")).to(dtype)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocab", [49_152, 50_257, 131_072, 151_936])
def test_the_row_kernel_computes_what_torch_does(
    vocab: int, dtype: torch.dtype, in_place: bool
) -> None:
    logits = make(200, vocab, dtype=dtype, scale=3.0)
    rows = unfold(make_targets(200, vocab), None, torch.float32)
    scale = torch.tensor(1 / 200, device="cuda")
    theirs = torch.empty_like(logits)
    expected = row_torch.loss_and_gradient(logits, rows, 0.9, 1.0, scale, theirs)
    ours = logits if in_place else torch.empty_like(logits)
    assert row_triton.takes(logits)
    losses = row_triton.loss_and_gradient(logits, rows, 0.9, 1.0, scale, ours)
    assert error(losses, expected.double()) < 1e-6
    rounding = 1e-6 if dtype == torch.float32 else torch.finfo(dtype).eps
    assert error(ours, theirs.double()) < rounding


def test_rows_beyond_two_to_the_31_elements() -> None:
    vocab, num_rows = 131_072, 16_400
    logits = torch.empty((num_rows, vocab), dtype=torch.bfloat16, device="cuda")
    logits[-8:] = make(8, vocab, dtype=torch.bfloat16)
    keep = torch.arange(num_rows, device="cuda") >= num_rows - 8
    rows = unfold(make_targets(num_rows, vocab), keep, torch.float32)
    last = rows.narrow(num_rows - 8, num_rows)
    scale = torch.ones((), device="cuda")
    theirs = torch.empty_like(logits[-8:])
    expected = row_torch.loss_and_gradient(logits[-8:], last, 1.0, 1.0, scale, theirs)
    losses = row_triton.loss_and_gradient(logits, rows, 1.0, 1.0, scale, logits)
    assert error(losses[-8:], expected.double()) < 1e-6
    assert error(logits[-8:], theirs.double()) < 2**-8
    assert not losses[:-8].any()


@pytest.mark.parametrize("softcap", [None, 30.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_head_kernels_compute_what_torch_does(
    dtype: torch.dtype, softcap: float | None
) -> None:
    x, weight = make(300, 520, dtype=dtype), make(50_257, 520, dtype=dtype, scale=0.1)
    head = Head(weight, make(50_257, dtype=dtype), Finish(0.9, softcap))
    assert head_triton.takes(x)
    expected = head_torch.lse(x.double(), widened(head))
    backends: tuple[ModuleType, ...] = (head_triton, head_torch)
    for backend in backends:
        lse = backend.lse(x, head)
        assert error(lse, expected) < 2e-6
        coefficient = torch.linspace(0, 1, 300, device="cuda")
        out = torch.empty((300, 50_257), dtype=backend.gradient_dtype(x), device="cuda")
        backend.softmax_gradient(x, head, lse, coefficient, out)
        wanted = torch.empty(out.shape, dtype=torch.float64, device="cuda")
        head_torch.softmax_gradient(
            x.double(), widened(head), expected, coefficient.double(), wanted
        )
        rounding = 2e-5 if out.dtype == torch.float32 else torch.finfo(out.dtype).eps
        assert error(out, wanted) < rounding


def widened(head: Head) -> Head:
    assert head.bias is not None
    return Head(head.weight.double(), head.bias.double(), head.finish)


@pytest.mark.parametrize("form", HEAD_LOSSES)
def test_losses_of_a_head_equal_float64(form: str) -> None:
    targets = make_targets(1500, 50_257)
    hidden = make(1500, 512, dtype=torch.bfloat16)
    weight = make(50_257, 512, dtype=torch.bfloat16, scale=0.1)
    wide = [t.double().requires_grad_() for t in (hidden, weight)]
    expected = sparse_kd_loss(F.linear(*wide), targets)
    expected.backward()
    leaves = [t.clone().requires_grad_() for t in (hidden, weight)]
    loss = HEAD_LOSSES[form](*leaves, targets)
    loss.backward()
    # The logits of some forms are rounded to bfloat16.
    assert error(loss, expected.detach()) < 2**-8
    for leaf, wanted in zip(leaves, wide, strict=True):
        assert wanted.grad is not None
        assert error(leaf.grad, wanted.grad) < 2**-5


@pytest.mark.parametrize("form", ["fused", "lse"])
def test_the_losses_do_not_wait_for_the_device(form: str) -> None:
    targets = make_targets(100, 5000)
    assert targets.host_offsets is not None  # fetched once, before
    leaves = [make(100, 64, dtype=torch.bfloat16), make(5000, 64, dtype=torch.bfloat16)]
    hidden, weight = (t.requires_grad_() for t in leaves)
    for mode in ("default", "error"):  # the first compiles
        torch.cuda.set_sync_debug_mode(mode)
        try:
            HEAD_LOSSES[form](hidden, weight, targets).backward()
            sparse_kd_loss(F.linear(hidden, weight), targets, inplace=True).backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_linear_lse_needs_a_fraction_of_the_logits() -> None:
    vocab, num_rows = 131_072, 8192
    targets = make_targets(num_rows, vocab)
    hidden = make(num_rows, 512, dtype=torch.bfloat16).requires_grad_()
    weight = make(vocab, 512, dtype=torch.bfloat16, scale=0.1).requires_grad_()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    linear_lse_sparse_kd_loss(hidden, weight, targets).backward()
    extra = torch.cuda.max_memory_allocated() - before - weight.nbytes - hidden.nbytes
    assert extra < num_rows * vocab * 2 / 3
