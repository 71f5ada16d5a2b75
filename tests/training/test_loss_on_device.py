"""On a device the losses ask for no value: they run where reading one is impossible.

The meta device has no values at all: whatever waits for one raises there. That the same path gives
the same numbers is shown in host memory, with `is_host` saying that it is none.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from dense_reference import error, make_labels, make_targets, of_head, of_logits
from hypothesis import given, settings
from hypothesis import strategies as st

from sparselogits.torch import (
    SparseTargets,
    fused_linear_sparse_kd_loss,
    label_mixing,
    row_core,
    sparse_kd_loss,
)
from sparselogits.torch.label_mixing import IGNORED_LABEL
from sparselogits.torch.rows import Rows, unfold

ROWS, VOCAB, WIDTH = 30, 57, 8


def inputs_of(dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = ((ROWS, WIDTH), (VOCAB, WIDTH), (VOCAB,))
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


def keywords_of(targets: SparseTargets) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(5)
    return {
        "labels": make_labels(ROWS, VOCAB, targets),
        "alpha": 0.4,
        "position_weights": torch.rand(ROWS, generator=generator),
        "softcap": 3.0,
        "mask": torch.rand(ROWS, generator=generator) < 0.7,
        "temperature": 1.5,
    }


@pytest.fixture
def pretend_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Host memory in the role of a device, whose rows no backend of host memory takes."""
    for name, module in list(sys.modules.items()):
        if name.startswith("sparselogits.torch.") and hasattr(module, "is_host"):
            monkeypatch.setattr(module, "is_host", lambda device: False)
    monkeypatch.setattr(row_core, "takes", lambda logits: False)


@pytest.mark.usefixtures("pretend_device")
@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("full", [False, True])
def test_same_numbers(accumulate: bool, full: bool) -> None:
    targets = make_targets(ROWS, VOCAB)
    keywords = keywords_of(targets) if full else {}
    inputs = inputs_of()
    leaves = hidden, weight, bias = [t.clone().requires_grad_() for t in inputs]
    with torch.no_grad():
        hidden[~keywords.get("mask", torch.ones(ROWS, dtype=torch.bool))] = torch.nan
    loss = fused_linear_sparse_kd_loss(
        hidden,
        weight,
        targets,
        bias=bias,
        chunk_rows=7,
        accumulate_weight_grad=accumulate,
        **keywords,
    )
    loss.backward()
    expected = of_head(*inputs, targets, **keywords)
    assert error(loss, expected.loss) < 1e-6
    for leaf, wanted in zip(leaves, expected.gradients, strict=True):
        assert error(leaf.grad, wanted) < 1e-6
    logits = 3 * torch.nn.functional.linear(*inputs)
    leaf = logits.clone().requires_grad_()
    sparse_kd_loss(leaf, targets, **keywords).backward()
    assert error(leaf.grad, of_logits(logits, targets, **keywords).gradients[0]) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("inplace", [False, True])
def test_given_logits_wait_for_nothing(dtype: torch.dtype, full: bool, inplace: bool) -> None:
    targets = make_targets(ROWS, VOCAB)
    keywords = to_meta(keywords_of(targets) if full else {})
    logits = torch.empty(ROWS, VOCAB, dtype=dtype, device="meta", requires_grad=True)
    loss = sparse_kd_loss(logits * 1, targets.to("meta"), inplace=inplace, **keywords)
    (loss * 3).backward()
    assert logits.grad is not None
    assert logits.grad.is_meta


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("accumulate", [False, True])
def test_the_fused_loss_waits_for_nothing(dtype: torch.dtype, full: bool, accumulate: bool) -> None:
    targets = make_targets(ROWS, VOCAB)
    keywords = to_meta(keywords_of(targets) if full else {})
    hidden, weight, bias = (t.to("meta").requires_grad_() for t in inputs_of(dtype))
    loss = fused_linear_sparse_kd_loss(
        hidden,
        weight,
        targets.to("meta"),
        bias=bias,
        chunk_rows=7,
        num_items=torch.tensor(20.0, device="meta"),
        accumulate_weight_grad=accumulate,
        **keywords,
    )
    loss.backward()
    for leaf in (hidden, weight, bias):
        assert leaf.grad is not None
        assert leaf.grad.dtype == dtype


def test_the_meta_device_notices_whoever_waits() -> None:
    """Without this the two tests above could not fail."""
    values = torch.ones(3, device="meta")
    for wait in (values.sum().item, values.nonzero, values.cpu, lambda: values[values > 0]):
        with pytest.raises((RuntimeError, NotImplementedError)):
            wait()


def to_meta(keywords: dict[str, Any]) -> dict[str, Any]:
    return {k: v.to("meta") if isinstance(v, torch.Tensor) else v for k, v in keywords.items()}


@given(
    rows=st.integers(0, 8),
    vocab=st.integers(1, 9),
    seed=st.integers(0, 2**20),
    alpha=st.sampled_from([0.25, 1.0]),
)
@settings(max_examples=200, deadline=None)
def test_rows_with_a_spare_entry_are_the_same_targets(
    rows: int, vocab: int, seed: int, alpha: float
) -> None:
    targets = make_targets(rows, vocab, seed=seed, most=vocab)
    labels = make_labels(rows, vocab, targets, seed=seed)

    def mixed() -> Rows:
        return unfold(targets, None, torch.float64, width=vocab, labels=labels, alpha=alpha)

    tight = mixed()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_mixing, "is_host", lambda device: False)
        wide = mixed()
    assert torch.equal(dense(tight, rows, vocab), dense(wide, rows, vocab))
    assert torch.equal(tight.keep, wide.keep)
    assert bool((tight.weight > 0).all())
    most = int(targets.offsets.diff().max()) if rows and alpha < 1 else 0
    # A row that holds every id has none for a spare entry, and all are made tight.
    drawn = (alpha < 1) * targets.offsets.diff()
    assert torch.equal(wide.bounds.diff(), drawn + 1 if most < vocab else tight.bounds.diff())
    for found in (tight, wide):
        assert torch.equal(found.row, torch.repeat_interleave(found.bounds.diff()))
        keys = found.row * vocab + found.token_id
        assert len(keys.unique()) == len(keys)
        assert bool((found.token_id < vocab).all())
        assert bool((found.token_id != IGNORED_LABEL).all())


def dense(rows: Rows, num_rows: int, vocab: int) -> torch.Tensor:
    table = torch.zeros(num_rows, vocab, dtype=torch.float64)
    return table.index_put_((rows.row, rows.token_id), rows.weight, accumulate=True)
