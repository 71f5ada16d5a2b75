"""What the losses hold at once beside their inputs: counted by torch's profiler, not timed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from dense_reference import make_targets
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sparselogits.errors import InvalidArgumentError
from sparselogits.torch import SparseTargets, fused_linear_sparse_kd_loss, sparse_kd_loss
from sparselogits.torch.fused_chunks import choose_chunk_rows

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")
ROWS, VOCAB, WIDTH = 512, 2048, 32
TARGETS = make_targets(ROWS, VOCAB, most=12)
LABELS = torch.arange(ROWS)
MIB = 1 << 20
# Targets of a head's rows, and copies of the hidden states that are not ignored and their gradient.
REST = 500 * ROWS + 2 * ROWS * WIDTH * 4

Run = Callable[[], list[Tensor]]


@pytest.fixture(scope="module")
def peak_bytes() -> Callable[[Run, bool], int]:
    """The benchmark's own measure."""
    sys.path.insert(0, BENCHMARKS)
    try:
        measured = importlib.import_module("losses.measure").peak_bytes
    finally:
        sys.path.remove(BENCHMARKS)
    return measured  # type: ignore[no-any-return]


def of_logits(loss: Callable[[Tensor], Tensor]) -> Run:
    leaf = torch.randn(ROWS, VOCAB, requires_grad=True)
    logits = leaf.clone()
    return lambda: list(torch.autograd.grad(loss(logits), [logits]))


def of_head(loss: Callable[[Tensor, Tensor], Tensor]) -> Run:
    hidden = torch.randn(ROWS, WIDTH, requires_grad=True)
    weight = torch.randn(VOCAB, WIDTH, requires_grad=True)
    return lambda: list(torch.autograd.grad(loss(hidden, weight), [hidden, weight]))


def test_given_logits_cost_a_third_of_cross_entropy(peak_bytes: Callable[[Run, bool], int]) -> None:
    theirs = peak_bytes(of_logits(lambda z: F.cross_entropy(z, LABELS)), True)
    ours = peak_bytes(of_logits(lambda z: sparse_kd_loss(z, TARGETS)), True)
    logits = ROWS * VOCAB * 4
    assert theirs >= 3 * logits
    # One gradient, and some hundred bytes a row: a third at any size.
    assert logits <= ours <= logits + 300 * ROWS
    at_2048 = 2048 * 49_152 * 4
    assert (at_2048 + 300 * 2048) / (3 * at_2048) <= 0.34


def test_in_place_costs_nothing_that_grows_with_the_vocabulary(
    peak_bytes: Callable[[Run, bool], int],
) -> None:
    run = of_logits(lambda z: sparse_kd_loss(z, TARGETS, inplace=True))
    assert peak_bytes(run, True) <= 300 * ROWS < MIB


def test_labels_and_position_weights_cost_entries_only(
    peak_bytes: Callable[[Run, bool], int],
) -> None:
    keywords = {"labels": LABELS, "alpha": 0.3, "position_weights": torch.ones(ROWS)}
    run = of_logits(lambda z: sparse_kd_loss(z, TARGETS, inplace=True, **keywords))
    assert peak_bytes(run, True) <= 1000 * ROWS < MIB


def test_a_head_costs_its_chunk(peak_bytes: Callable[[Run, bool], int]) -> None:
    """A quarter of the rows, as 512 of 2,048: a twelfth of what cross-entropy takes."""
    theirs = peak_bytes(of_head(lambda x, w: F.cross_entropy(F.linear(x, w), LABELS)), False)
    chunk = ROWS // 4
    ours = peak_bytes(
        of_head(lambda x, w: fused_linear_sparse_kd_loss(x, w, TARGETS, chunk_rows=chunk)), False
    )
    assert chunk * VOCAB * 4 <= ours <= chunk * VOCAB * 4 + REST
    assert ours <= 0.12 * theirs


def test_a_budget_in_bytes_is_kept(peak_bytes: Callable[[Run, bool], int]) -> None:
    for budget in (MIB // 4, MIB):
        run = of_head(
            lambda x, w, budget=budget: fused_linear_sparse_kd_loss(
                x, w, TARGETS, chunk_bytes=budget
            )
        )
        assert budget // 2 < peak_bytes(run, False) <= budget + REST


def test_accumulation_costs_no_second_gradient_of_the_weight(
    peak_bytes: Callable[[Run, bool], int],
) -> None:
    hidden = torch.randn(ROWS, WIDTH, requires_grad=True)
    weight = torch.randn(16 * VOCAB, WIDTH, requires_grad=True)
    weight.grad = torch.zeros_like(weight)

    def step(accumulate: bool) -> list[Tensor]:
        fused_linear_sparse_kd_loss(
            hidden, weight, TARGETS, chunk_rows=4, accumulate_weight_grad=accumulate
        ).backward()
        return []

    chunk = 4 * weight.shape[0] * 4
    assert peak_bytes(lambda: step(False), True) >= weight.nbytes
    assert peak_bytes(lambda: step(True), True) <= chunk + hidden.nbytes + REST
    assert chunk + hidden.nbytes + REST < weight.nbytes


class Products(TorchDispatchMode):
    """Names the matrix products in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, tuple[int, ...]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = str(func)
        if "mm" in name:
            self.seen.append((name, tuple(result.shape)))
        return result


def test_three_products_a_chunk_and_the_first_weight_gradient_is_stored() -> None:
    """Adding to a buffer of zeros would write and read (V, H) once more."""
    hidden, weight = torch.randn(ROWS, WIDTH), torch.randn(VOCAB, WIDTH)
    leaves = [hidden.requires_grad_(), weight.requires_grad_()]
    with Products() as products:
        fused_linear_sparse_kd_loss(*leaves, make_all_kept(), chunk_rows=ROWS // 2).backward()
    half = [("aten.mm.out", (ROWS // 2, VOCAB)), ("aten.mm.out", (ROWS // 2, WIDTH))]
    assert products.seen == [
        *half,
        ("aten.mm.out", (VOCAB, WIDTH)),
        *half,
        ("aten.addmm_.default", (VOCAB, WIDTH)),
    ]


def make_all_kept() -> SparseTargets:
    return SparseTargets(torch.arange(ROWS + 1), LABELS, torch.ones(ROWS), VOCAB)


def test_chunk_keywords() -> None:
    hidden = torch.zeros(1, 8)
    assert choose_chunk_rows(7, None, 1000, hidden) == 7
    assert choose_chunk_rows(None, 12_345, 1000, hidden) == 3
    assert choose_chunk_rows(None, 12_345, 1000, hidden.bfloat16()) == 6
    assert choose_chunk_rows(None, 1, 1000, hidden) == 1
    assert choose_chunk_rows(None, None, 49_152, hidden) == 512
    with pytest.raises(InvalidArgumentError, match="chunk_bytes is 0"):
        choose_chunk_rows(None, 0, 1000, hidden)
    with pytest.raises(InvalidArgumentError, match="chunk_rows is 7 and chunk_bytes is 12345"):
        choose_chunk_rows(7, 12_345, 1000, hidden)
