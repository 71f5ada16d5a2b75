"""The sparse loss over cross-entropy kernels of other people, against the float64 reference."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import cut_cross_entropy.tl_utils
import pytest
import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from dense_reference import error, make_targets, of_head
from loss_backends import DEVICE
from torch import Tensor

from sparselogits import errors
from sparselogits.integrations.cut_cross_entropy import cut_cross_entropy_sparse_kd_loss
from sparselogits.integrations.liger import liger_sparse_kd_loss
from sparselogits.torch import SparseTargets
from sparselogits.torch.plug_in import heaviest, plug_in_sparse_kd_loss
from sparselogits.torch.rows import unfold

ROWS, DEPTH, VOCAB = 12, 16, 50
FP32 = 2e-6


def torch_kernel(
    reduction: str, x: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None
) -> Tensor:
    return F.cross_entropy(F.linear(x, weight, bias), labels, reduction=reduction)


FORMS: dict[str, Callable[..., Tensor]] = {
    "torch": partial(plug_in_sparse_kd_loss, partial(torch_kernel, "sum")),
    "torch, per row": partial(plug_in_sparse_kd_loss, partial(torch_kernel, "none"), per_row=True),
    "liger": liger_sparse_kd_loss,
    "liger, per row": partial(liger_sparse_kd_loss, per_row=True),
    "cut_cross_entropy": partial(cut_cross_entropy_sparse_kd_loss, impl="torch_compile"),
}
PER_ROW = ["torch, per row", "liger, per row", "cut_cross_entropy"]
WITH_BIAS = [name for name in FORMS if name != "cut_cross_entropy"]
KEYWORDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "temperature": {"temperature": 2.0, "scale_by_temperature_squared": True},
    "sum": {"reduction": "sum"},
    "num_items": {"num_items": 77},
    "mask": {"mask": torch.arange(ROWS).view(3, 4) % 3 != 1},
}


@pytest.fixture(autouse=True)
def _uncompiled() -> Iterator[None]:
    """The C++ compiler behind torch.compile takes a minute, and tests another library."""
    torch.compiler.set_stance("force_eager")
    yield
    torch.compiler.set_stance("default")


def make_inputs(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = ((3, 4, DEPTH), (VOCAB, DEPTH), (VOCAB,))
    return [torch.randn(s, generator=generator).to(dtype) for s in shapes]


def run(form: str, inputs: list[Tensor], targets: SparseTargets, **keywords: Any) -> Tensor:
    keywords = {k: v.to(DEVICE) if isinstance(v, Tensor) else v for k, v in keywords.items()}
    hidden, weight = (t.to(DEVICE) for t in inputs)
    return FORMS[form](hidden, weight, targets.to(DEVICE), **keywords)


def assert_equal_to_the_reference(
    form: str,
    inputs: list[Tensor],
    targets: SparseTargets,
    keywords: dict[str, Any],
    tolerance: float = FP32,
) -> None:
    expected = of_head(*inputs[:2], inputs[2] if len(inputs) == 3 else None, targets, **keywords)
    leaves = [t.to(DEVICE, copy=True).requires_grad_() for t in inputs]
    bias = {"bias": leaves[2]} if len(inputs) == 3 else {}
    loss = run(form, leaves[:2], targets, **bias, **keywords)
    assert loss.dtype == torch.float32
    (3 * loss).sum().backward()
    assert error(loss.flatten().cpu(), expected.loss.flatten()) < tolerance
    for leaf, wanted in zip(leaves, expected.gradients, strict=True):
        assert leaf.grad is not None
        assert error(leaf.grad.cpu(), 3 * wanted) < tolerance


@pytest.mark.parametrize("keywords", KEYWORDS)
@pytest.mark.parametrize("form", FORMS)
def test_rows_that_sum_to_one(form: str, keywords: str) -> None:
    targets = make_targets(ROWS, VOCAB, normalised=True)
    assert_equal_to_the_reference(form, make_inputs()[:2], targets, KEYWORDS[keywords])


@pytest.mark.parametrize("keywords", KEYWORDS)
@pytest.mark.parametrize("form", PER_ROW)
def test_rows_that_sum_to_anything(form: str, keywords: str) -> None:
    targets = make_targets(ROWS, VOCAB)
    assert_equal_to_the_reference(form, make_inputs()[:2], targets, KEYWORDS[keywords])


@pytest.mark.parametrize("form", PER_ROW)
def test_labels_and_position_weights(form: str) -> None:
    keywords = {
        "labels": torch.where(torch.arange(ROWS) % 5 == 0, -100, torch.arange(ROWS) * 4),
        "alpha": 0.3,
        "position_weights": torch.linspace(0, 2, ROWS),
    }
    targets = make_targets(ROWS, VOCAB)
    assert_equal_to_the_reference(form, make_inputs()[:2], targets, keywords)


def test_a_bias_that_the_kernel_cannot_take_is_refused() -> None:
    hidden, weight, bias = make_inputs()
    targets = make_targets(ROWS, VOCAB)
    with pytest.raises(errors.InvalidArgumentError, match="takes none"):
        cut_cross_entropy_sparse_kd_loss(hidden, weight, targets, bias=bias)


@pytest.mark.parametrize("form", WITH_BIAS)
def test_bias(form: str) -> None:
    targets = make_targets(ROWS, VOCAB, normalised=True)
    assert_equal_to_the_reference(form, make_inputs(), targets, {"temperature": 2.0})


@pytest.mark.parametrize("form", PER_ROW)
def test_one_loss_per_row(form: str) -> None:
    targets = make_targets(ROWS, VOCAB)
    assert_equal_to_the_reference(form, make_inputs()[:2], targets, {"reduction": "none"})


@pytest.mark.parametrize("form", [name for name in FORMS if not name.startswith("liger")])
def test_bfloat16(form: str) -> None:
    targets = make_targets(ROWS, VOCAB, normalised=True)
    inputs = make_inputs(torch.bfloat16)[:2]
    assert_equal_to_the_reference(form, inputs, targets, {}, tolerance=2**-6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_the_kernels_of_cut_cross_entropy(
    masked: bool, reduction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """float16, since they have no gradient for float32 and the interpreter no bfloat16 products."""
    if DEVICE.type == "cpu":
        # The one function of theirs that the interpreter has not.
        monkeypatch.setattr(cut_cross_entropy.tl_utils, "tl_log1p", log_of_one_plus)
    monkeypatch.setitem(FORMS, "cce", partial(cut_cross_entropy_sparse_kd_loss, filter_eps=None))
    mask = torch.arange(ROWS) % 3 != 1 if masked else None
    assert_equal_to_the_reference(
        "cce",
        make_inputs(torch.float16)[:2],
        make_targets(ROWS, VOCAB),
        {"mask": mask, "reduction": reduction},
        tolerance=2**-8,
    )


@triton.jit
def log_of_one_plus(x):  # type: ignore[no-untyped-def]
    return tl.log(1.0 + x)


@pytest.mark.parametrize("form", ["torch", "liger"])
def test_a_kernel_that_returns_a_sum_refuses_rows_that_do_not_sum_to_one(form: str) -> None:
    targets = make_targets(ROWS, VOCAB, normalised=True)
    weights = targets.weights.clone()
    weights[int(targets.offsets[-2]) - 1] += 2e-5
    row = int((targets.offsets[1:] == targets.offsets[-2]).nonzero()[0, 0])
    changed = dataclasses.replace(targets, weights=weights)
    inputs = make_inputs()[:2]
    with pytest.raises(errors.InvalidArgumentError, match=rf"row {row} sum to 1\.0000"):
        run(form, inputs, changed)
    run(form, inputs, changed, mask=torch.arange(ROWS) != row)


@pytest.mark.parametrize("form", FORMS)
def test_ignored_rows_may_hold_anything(form: str) -> None:
    targets = make_targets(ROWS, VOCAB, normalised=True)
    mask = torch.arange(ROWS) % 3 != 1
    hidden, weight, _ = make_inputs()
    expected = of_head(hidden, weight, None, targets, mask=mask)
    ignored = ~mask | (targets.offsets.diff() == 0)
    assert 4 < int(ignored.sum()) < ROWS
    hidden.view(ROWS, DEPTH)[ignored] = torch.nan
    leaves = [t.requires_grad_() for t in (hidden, weight)]
    loss = run(form, leaves, targets, mask=mask)
    loss.backward()
    assert error(loss.cpu(), expected.loss) < FP32
    for leaf, wanted in zip(leaves, expected.gradients, strict=True):
        assert error(leaf.grad, wanted) < FP32


@pytest.mark.parametrize("form", ["torch", "torch, per row", "liger"])
def test_nothing_to_learn_is_zero(form: str) -> None:
    targets = make_targets(ROWS, VOCAB, normalised=True)
    leaves = [t.requires_grad_() for t in make_inputs()[:2]]
    loss = run(form, leaves, targets, mask=torch.zeros(ROWS, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    for leaf in leaves:
        assert leaf.grad is not None
        assert not leaf.grad.any()


def test_the_heaviest_entry_is_the_first_of_equals() -> None:
    targets = SparseTargets(
        torch.tensor([0, 3, 3, 4, 6]),
        torch.tensor([9, 4, 7, 2, 5, 1]),
        torch.tensor([0.2, 0.5, 0.5, 0.1, 0.0, 0.0]),
    )
    place, label = heaviest(unfold(targets, None, torch.float32))
    assert place.nonzero().flatten().tolist() == [1, 3, 4]
    assert label.tolist() == [4, 0, 2, 5]


@pytest.mark.parametrize(("per_row", "reduction"), [(True, "sum"), (False, "none")])
def test_a_kernel_of_another_shape_is_refused(per_row: bool, reduction: str) -> None:
    hidden, weight, _ = make_inputs()
    targets = make_targets(ROWS, VOCAB, normalised=True)
    with pytest.raises(errors.InvalidArgumentError, match="cross_entropy returned shape"):
        plug_in_sparse_kd_loss(
            partial(torch_kernel, reduction), hidden, weight, targets, per_row=per_row
        )


def test_one_loss_per_row_needs_such_a_kernel() -> None:
    hidden, weight, _ = make_inputs()
    targets = make_targets(ROWS, VOCAB, normalised=True)
    with pytest.raises(errors.InvalidArgumentError, match="reduction is 'none'"):
        liger_sparse_kd_loss(hidden, weight, targets, reduction="none")
