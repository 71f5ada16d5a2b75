"""The Triton row kernel against the dense float64 reference and the torch backend."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from dense_reference import error, make_targets, of_logits, row_losses
from loss_backends import DEVICE, rows_of

from sparselogits import triton_support
from sparselogits.torch import SparseTargets, row_torch, row_triton, sparse_kd_loss

FP32 = 1e-6
WIDTHS = [1, 2, 63, 64, 65, 203]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True)
def _arithmetic_of_a_gpu() -> Iterator[None]:
    """The interpreter computes with NumPy, which warns of inf - inf."""
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        yield


@pytest.fixture(autouse=True)
def _several_blocks_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_triton, "_MAX_COLUMNS", 64)
    monkeypatch.setattr(row_triton, "_ENTRIES", 4)


def make_logits(rows: int, vocab: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rows + vocab)
    return (3 * torch.randn(rows, vocab, generator=generator)).to(DEVICE, dtype)


def run(
    backend: object,
    logits: torch.Tensor,
    targets: SparseTargets,
    out: torch.Tensor | None,
    mask: torch.Tensor | None = None,
    temperature: float = 1.0,
    loss_scale: float = 1.0,
) -> torch.Tensor:
    rows = rows_of(targets, logits.dtype, mask)
    scale = torch.tensor(loss_scale / temperature / 7, device=DEVICE)
    return backend.loss_and_gradient(  # type: ignore[attr-defined]
        logits, rows, temperature, loss_scale, scale, out
    )


def assert_close(found: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    """Each element is rounded once from float32; the interpreter truncates to bfloat16."""
    rounding = torch.finfo(dtype).eps / (2 if DEVICE.type == "cuda" else 1)
    difference = (found.double().cpu() - expected.double().cpu()).abs()
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    allowed = FP32 * largest + torch.finfo(dtype).smallest_normal
    if dtype != torch.float32:
        allowed = allowed + rounding * expected.double().cpu().abs()
    assert bool((difference <= allowed).all())


@pytest.mark.parametrize("form", ["losses only", "into a buffer", "in place"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocab", WIDTHS)
def test_value_and_gradient_are_those_of_the_dense_reference(
    vocab: int, dtype: torch.dtype, form: str
) -> None:
    targets = make_targets(13, vocab, most=11)
    mask = torch.arange(13) % 4 != 1
    keywords = {"mask": mask, "temperature": 0.7}
    logits = make_logits(13, vocab, dtype)
    losses, _ = row_losses(logits.cpu(), targets, **keywords)
    gradient = of_logits(logits.cpu(), targets, reduction="sum", **keywords).gradients[0]
    given = logits.clone()
    out = {"losses only": None, "into a buffer": torch.empty_like(given), "in place": given}[form]
    found = run(row_triton, given, targets, out, loss_scale=2.5, **keywords)
    assert found.dtype == torch.float32
    assert_close(found, 2.5 * losses, torch.float32)
    if out is not None:
        assert_close(out, gradient * 2.5 / 7, dtype)
    if form != "in place":
        assert torch.equal(given, logits)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_numbers_are_those_of_the_torch_backend(temperature: float) -> None:
    targets = make_targets(20, 203, most=12)
    logits = make_logits(20, 203)
    ours, theirs = torch.empty_like(logits), torch.empty_like(logits)
    losses = [
        run(backend, logits, targets, out, temperature=temperature)
        for backend, out in ((row_triton, ours), (row_torch, theirs))
    ]
    assert_close(losses[0], losses[1], torch.float32)
    assert_close(ours, theirs, torch.float32)


@pytest.mark.parametrize("in_place", [False, True])
def test_ignored_rows_may_hold_anything_and_become_zeros(in_place: bool) -> None:
    targets = make_targets(12, 70)
    mask = torch.arange(12) % 3 != 0
    ignored = (~mask | (targets.offsets.diff() == 0)).to(DEVICE)
    logits = make_logits(12, 70)
    logits[ignored] = torch.tensor([torch.nan, torch.inf], device=DEVICE).repeat(35)
    out = logits if in_place else torch.full_like(logits, torch.nan)
    losses = run(row_triton, logits, targets, out, mask)
    assert not losses[ignored].any()
    assert not out[ignored].any()
    assert bool(torch.isfinite(losses).all())
    assert bool(losses[~ignored].all())


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_rows_that_count_pass_nan_on(value: float) -> None:
    """Also from the last block, beyond every target."""
    targets = SparseTargets(torch.tensor([0, 1]), torch.tensor([2]), torch.ones(1), 203)
    logits = make_logits(1, 203)
    logits[0, 200] = value
    out = torch.empty_like(logits)
    assert bool(run(row_triton, logits, targets, out).isnan().all())
    assert bool(out.isnan().any())


def test_masked_columns_have_no_probability() -> None:
    """Whole blocks of -inf at the beginning and the end of a row."""
    targets = SparseTargets(torch.tensor([0, 2]), torch.tensor([70, 90]), torch.ones(2), 203)
    logits = make_logits(1, 203)
    logits[:, :66] = logits[:, 130:] = -torch.inf
    out = torch.empty_like(logits)
    losses = run(row_triton, logits, targets, out)
    theirs = torch.empty_like(logits)
    wanted = run(row_torch, logits, targets, theirs)
    assert_close(losses, wanted, torch.float32)
    assert_close(out, theirs, torch.float32)
    assert not out[:, :66].any()


def test_an_entry_without_weight_asks_for_nothing() -> None:
    """Its logit may be -inf: 0 · inf would be NaN."""
    weights = torch.tensor([0.0, 1.0, 0.0])
    targets = SparseTargets(torch.tensor([0, 3]), torch.tensor([3, 70, 150]), weights, 203)
    logits = make_logits(1, 203)
    logits[0, 3] = logits[0, 150] = -torch.inf
    out = torch.empty_like(logits)
    losses = run(row_triton, logits, targets, out)
    certain = SparseTargets(torch.tensor([0, 1]), torch.tensor([70]), torch.ones(1), 203)
    expected = torch.empty_like(logits)
    assert_close(losses, run(row_torch, logits, certain, expected), torch.float32)
    assert_close(out, expected, torch.float32)


def test_entries_at_targets_survive_cancellation_in_bfloat16() -> None:
    """W p - w of nearly equal terms is a difference of float32 numbers, not of rounded ones."""
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]], dtype=torch.bfloat16, device=DEVICE)
    weights = logits.float().softmax(-1)[0].cpu() * torch.tensor([1.0005, 0.9995, 1.0, 1.0])
    targets = SparseTargets(torch.tensor([0, 4]), torch.arange(4), weights, 4)
    out = torch.empty_like(logits)
    run(row_triton, logits, targets, out)
    expected = of_logits(logits.cpu(), targets).gradients[0] / 7
    assert 0 < float(expected.abs().max()) < 2**-11
    assert error(out.cpu(), expected) < 2**-7


@pytest.mark.parametrize("form", ["by columns", "every 2nd column", "columns cut"])
def test_memory_layout_changes_nothing(form: str) -> None:
    targets = make_targets(6, 100)
    base = make_logits(6, 200)
    plain = base[:, ::2] if form == "every 2nd column" else base[:, :100]
    logits = {
        "by columns": plain.t().contiguous().t(),
        "every 2nd column": plain,
        "columns cut": plain,
    }[form]
    assert not logits.is_contiguous()
    ours, theirs = torch.empty_like(logits), torch.empty_like(plain.contiguous())
    losses = run(row_triton, logits, targets, ours)
    assert torch.equal(losses, run(row_triton, plain.contiguous(), targets, theirs))
    assert torch.equal(ours, theirs)


def test_rows_beyond_two_to_the_31_elements() -> None:
    """The third row begins at element 2^31: a 32-bit offset would be negative."""
    stride, vocab = 2**30, 70
    memory = torch.empty(2 * stride + vocab, dtype=torch.bfloat16, device=DEVICE)
    logits = memory.as_strided((3, vocab), (stride, 1))
    logits.copy_(make_logits(3, vocab))
    targets = SparseTargets(
        torch.tensor([0, 2, 3, 5]), torch.tensor([0, 69, 3, 1, 69]), torch.ones(5), vocab
    )
    small = logits.clone()
    out = torch.empty_like(small)
    expected = run(row_torch, small, targets, out)
    assert_close(run(row_triton, logits, targets, logits), expected, torch.float32)
    assert_close(logits, out, torch.bfloat16)


def test_no_rows() -> None:
    targets = SparseTargets(torch.zeros(1).long(), torch.zeros(0).long(), torch.zeros(0), 5)
    logits = make_logits(0, 5)
    assert run(row_triton, logits, targets, logits).shape == (0,)


@pytest.mark.parametrize("inplace", [False, True])
def test_sparse_kd_loss_takes_the_kernel_where_it_is_available(
    inplace: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def noting(*arguments: object) -> torch.Tensor:
        calls.append(arguments)
        return original(*arguments)  # type: ignore[arg-type]

    original = row_triton.loss_and_gradient
    monkeypatch.setattr(row_triton, "takes", lambda logits: True)
    monkeypatch.setattr(row_triton, "loss_and_gradient", noting)
    targets = make_targets(12, 100)
    logits = make_logits(12, 100)
    leaf = logits.clone().requires_grad_()
    loss = sparse_kd_loss(leaf * 1, targets.to(DEVICE), temperature=1.5, inplace=inplace)
    loss.backward()
    expected = of_logits(logits.cpu(), targets, temperature=1.5)
    assert len(calls) == 1
    assert error(loss.cpu(), expected.loss) < FP32
    assert leaf.grad is not None
    assert error(leaf.grad.cpu(), expected.gradients[0]) < FP32


def test_host_memory_and_float64_keep_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not row_triton.takes(torch.zeros(2, 2))
    monkeypatch.setattr(triton_support, "supports", lambda device: True)
    assert row_triton.takes(torch.zeros(2, 2, dtype=torch.bfloat16))
    assert not row_triton.takes(torch.zeros(2, 2, dtype=torch.float64))
