"""Labels, soft-cap and position weights of both losses against the dense float64 reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from dense_reference import error, make_labels, make_targets, of_head, of_logits, row_losses
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparselogits import errors
from sparselogits.torch import SparseTargets, fused_linear_sparse_kd_loss, sparse_kd_loss

FP32 = 1e-6
ROWS, VOCAB, WIDTH = 30, 211, 16
SHAPE = (3, 10)


def random(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def keywords_of(targets: SparseTargets, vocab: int, shape: tuple[int, ...]) -> dict[str, Any]:
    rows = targets.num_rows
    return {
        "labels": make_labels(rows, vocab, targets).view(shape),
        "alpha": 0.3,
        "position_weights": random(rows).abs().view(shape),
        "softcap": 4.0,
        "mask": (random(rows, seed=2) < 1).view(shape),
        "temperature": 1.7,
        "scale_by_temperature_squared": True,
    }


NAMES = ["labels", "position_weights", "softcap"]
SUBSETS = [[], *[[name] for name in NAMES], NAMES, [*NAMES, "mask", "temperature"]]


def choose(names: list[str], targets: SparseTargets, vocab: int) -> dict[str, Any]:
    every = keywords_of(targets, vocab, SHAPE)
    chosen = {name: every[name] for name in names}
    return {**chosen, "alpha": every["alpha"]} if "labels" in names else chosen


@pytest.mark.parametrize("names", SUBSETS, ids="+".join)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("inplace", [False, True])
def test_given_logits(names: list[str], reduction: str, inplace: bool) -> None:
    targets = make_targets(ROWS, VOCAB)
    keywords = {**choose(names, targets, VOCAB), "reduction": reduction}
    logits = 3 * random(*SHAPE, VOCAB)
    leaf = logits.clone().requires_grad_()
    loss = sparse_kd_loss(leaf.clone(), targets, inplace=inplace, **keywords)
    loss.sum().backward()
    expected = of_logits(logits, targets, **keywords)
    assert error(loss.flatten(), expected.loss.flatten()) < FP32
    assert error(leaf.grad, expected.gradients[0]) < FP32
    with torch.no_grad():
        assert torch.equal(sparse_kd_loss(logits, targets, **keywords), loss)


@pytest.mark.parametrize("names", SUBSETS, ids="+".join)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("chunk_rows", [7, ROWS])
def test_fused(names: list[str], reduction: str, accumulate: bool, chunk_rows: int) -> None:
    targets = make_targets(ROWS, VOCAB)
    keywords = {**choose(names, targets, VOCAB), "reduction": reduction}
    inputs = [random(*SHAPE, WIDTH), random(VOCAB, WIDTH), random(VOCAB)]
    hidden, weight, bias = leaves = [t.clone().requires_grad_() for t in inputs]
    loss = fused_linear_sparse_kd_loss(
        hidden,
        weight,
        targets,
        bias=bias,
        chunk_rows=chunk_rows,
        accumulate_weight_grad=accumulate,
        **keywords,
    )
    (3 * loss).backward()
    expected = of_head(*inputs, targets, **keywords)
    assert error(loss, expected.loss) < FP32
    for leaf, wanted in zip(leaves, expected.gradients, strict=True):
        assert error(leaf.grad, 3 * wanted) < FP32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_soft_cap_of_narrow_logits_is_float32_until_the_gradient(dtype: torch.dtype) -> None:
    targets = make_targets(40, 1009)
    logits = 3 * random(40, 1009, dtype=dtype)
    leaf = logits.clone().requires_grad_()
    loss = sparse_kd_loss(leaf, targets, softcap=5.0, reduction="sum")
    loss.backward()
    expected = of_logits(logits, targets, softcap=5.0, reduction="sum")
    assert error(loss, expected.loss) < FP32
    assert leaf.grad is not None
    difference = (leaf.grad.double() - expected.gradients[0]).abs()
    rounding, smallest = torch.finfo(dtype).eps, torch.finfo(dtype).smallest_normal
    bound = rounding * expected.gradients[0].abs() + smallest + FP32
    assert bool((difference <= bound).all())


def test_a_soft_cap_in_blocks_equals_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = make_targets(ROWS, VOCAB)
    logits = 3 * random(ROWS, VOCAB)
    whole = logits.clone().requires_grad_()
    sparse_kd_loss(whole, targets, softcap=4.0).backward()
    monkeypatch.setattr("sparselogits.torch.row_core.takes", lambda logits: False)
    monkeypatch.setattr("sparselogits.torch.row_blocks._CPU_BLOCK_BYTES", 7 * VOCAB * 4)
    blocks = logits.clone().requires_grad_()
    sparse_kd_loss(blocks, targets, softcap=4.0).backward()
    assert whole.grad is not None
    assert error(blocks.grad, whole.grad.double()) < FP32


def test_alpha_one_is_cross_entropy() -> None:
    """Also in what the mean divides by: rows that have a label."""
    targets = make_targets(ROWS, VOCAB)
    labels = make_labels(ROWS, VOCAB, targets)
    logits = random(ROWS, VOCAB)
    loss = sparse_kd_loss(logits, targets, labels=labels, alpha=1.0)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits, labels))


def test_alpha_zero_leaves_the_labels_out() -> None:
    targets = make_targets(ROWS, VOCAB)
    labels = make_labels(ROWS, VOCAB, targets)
    logits = random(ROWS, VOCAB)
    loss = sparse_kd_loss(logits, targets, labels=labels, alpha=0.0)
    assert torch.equal(loss, sparse_kd_loss(logits, targets))


def test_a_row_with_a_label_alone_counts() -> None:
    targets = SparseTargets(torch.tensor([0, 0, 2]), torch.tensor([1, 4]), torch.ones(2) / 2, 9)
    logits = random(2, 9)
    losses = sparse_kd_loss(
        logits, targets, labels=torch.tensor([3, -100]), alpha=0.25, reduction="none"
    )
    alone = torch.nn.functional.cross_entropy(logits[:1], torch.tensor([3]))
    torch.testing.assert_close(losses[0], alone / 4)
    torch.testing.assert_close(
        losses[1], 0.75 * sparse_kd_loss(logits, targets, reduction="none")[1]
    )


def test_position_weights_do_not_change_the_divisor() -> None:
    targets = make_targets(ROWS, VOCAB)
    logits = random(ROWS, VOCAB)
    halves = torch.full((ROWS,), 0.5)
    torch.testing.assert_close(
        sparse_kd_loss(logits, targets, position_weights=halves),
        sparse_kd_loss(logits, targets) / 2,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])  # in the core, and in torch
def test_a_position_weight_of_zero_meets_an_impossible_target(dtype: torch.dtype) -> None:
    """A suppressed id has logit -inf: weight 0 asks for nothing, and 0 · inf would be NaN."""
    targets = SparseTargets(torch.arange(3), torch.tensor([2, 2]), torch.ones(2), 5)
    logits = torch.tensor([[0.0, 1.0, -torch.inf, 2.0, 3.0], [0.0, 1.0, 2.0, 3.0, 4.0]])
    leaf = logits.to(dtype).requires_grad_()
    loss = sparse_kd_loss(leaf, targets, position_weights=torch.tensor([0.0, 1.0]), reduction="sum")
    loss.backward()
    expected = of_logits(
        logits[1:], SparseTargets(torch.arange(2), torch.tensor([2]), torch.ones(1))
    )
    torch.testing.assert_close(loss.double(), expected.loss)
    assert leaf.grad is not None
    assert not leaf.grad[0].any()


Loss = Callable[..., Tensor]


def logits_loss(logits: Tensor, targets: SparseTargets, **keywords: Any) -> Tensor:
    return sparse_kd_loss(logits, targets, **keywords)


def head_loss(logits: Tensor, targets: SparseTargets, **keywords: Any) -> Tensor:
    """The same logits by a head that copies its input: hidden states of width V."""
    return fused_linear_sparse_kd_loss(
        logits, torch.eye(logits.shape[-1]), targets, chunk_rows=4, **keywords
    )


@pytest.mark.parametrize("loss_of", [logits_loss, head_loss])
def test_ignored_rows_may_hold_anything(loss_of: Loss) -> None:
    targets = make_targets(ROWS, 40)
    keywords = keywords_of(targets, 40, (ROWS,))
    logits = random(ROWS, 40)
    _, keep = row_losses(logits, targets, **keywords)
    assert 0 < int(keep.sum()) < ROWS
    dirty = logits.clone()
    dirty[~keep] = torch.tensor([float("nan"), float("inf")]).repeat(20)
    leaf = dirty.requires_grad_()
    loss = loss_of(leaf, targets, **keywords)
    loss.backward()
    expected = of_logits(logits, targets, **keywords)
    assert error(loss, expected.loss) < FP32
    assert error(leaf.grad, expected.gradients[0]) < FP32


@pytest.mark.parametrize("loss_of", [logits_loss, head_loss])
def test_gradient_accumulation_equals_one_batch(loss_of: Loss) -> None:
    targets = make_targets(ROWS, 40)
    keywords = keywords_of(targets, 40, (ROWS,))
    logits = random(ROWS, 40)
    whole = of_logits(logits, targets, **keywords)
    num_items = int(row_losses(logits, targets, **keywords)[1].sum())
    leaf = logits.clone().requires_grad_()
    total = 0.0
    for start, stop in ((0, 11), (11, ROWS)):
        first, last = targets.offsets[start], targets.offsets[stop]
        part = SparseTargets(
            targets.offsets[start : stop + 1] - first,
            targets.token_ids[first:last],
            targets.weights[first:last],
            40,
        )
        sliced = {
            name: value[start:stop] if isinstance(value, Tensor) else value
            for name, value in keywords.items()
        }
        loss = loss_of(leaf[start:stop], part, num_items=num_items, **sliced)
        loss.backward()
        total += loss.item()
    assert total == pytest.approx(whole.loss.item(), rel=FP32)
    assert error(leaf.grad, whole.gradients[0]) < FP32


def test_gradcheck() -> None:
    targets = make_targets(5, 11)
    keywords = keywords_of(targets, 11, (5,))
    logits = random(5, 11, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: sparse_kd_loss(z, targets, **keywords), logits)


@given(
    rows=st.integers(0, 10),
    vocab=st.integers(1, 12),
    seed=st.integers(0, 2**20),
    alpha=st.sampled_from([0.0, 0.2, 1.0]),
    softcap=st.sampled_from([None, 0.5, 30.0]),
    weighted=st.booleans(),
    masked=st.booleans(),
    temperature=st.sampled_from([1.0, 0.7, 4.0]),
)
@settings(max_examples=150, deadline=None)
def test_any_rows(
    rows: int,
    vocab: int,
    seed: int,
    alpha: float,
    softcap: float | None,
    weighted: bool,
    masked: bool,
    temperature: float,
) -> None:
    """Vocabularies this small make rows that hold every id, and labels that were drawn."""
    targets = make_targets(rows, vocab, seed=seed, most=vocab)
    keywords = {
        "labels": make_labels(rows, vocab, targets, seed=seed),
        "alpha": alpha,
        "softcap": softcap,
        "position_weights": random(rows, seed=seed).abs() if weighted else None,
        "mask": random(rows, seed=seed) < 0.5 if masked else None,
        "temperature": temperature,
    }
    logits = 3 * random(rows, vocab, seed=seed)
    expected, _ = row_losses(logits, targets, **keywords)
    gradient = of_logits(logits, targets, reduction="sum", **keywords).gradients[0]
    for loss_of, reduction in ((logits_loss, "none"), (head_loss, "sum")):
        leaf = logits.clone().requires_grad_()
        loss = loss_of(leaf, targets, reduction=reduction, **keywords)
        loss.sum().backward()
        wanted = expected if reduction == "none" else expected.sum()
        torch.testing.assert_close(loss.double(), wanted, rtol=FP32, atol=1e-4)
        assert leaf.grad is not None
        torch.testing.assert_close(leaf.grad.double(), gradient, rtol=0, atol=2e-5)


TARGETS = make_targets(10, 50)
LOGITS = random(10, 50)
LABELS = torch.zeros(10, dtype=torch.int64)


@pytest.mark.parametrize("loss_of", [logits_loss, head_loss])
@pytest.mark.parametrize(
    "keywords, message",
    [
        ({"alpha": 0.5}, "alpha is 0.5, but there are no labels"),
        ({"alpha": 1.5, "labels": LABELS}, "alpha is 1.5; it must lie in"),
        ({"alpha": float("nan"), "labels": LABELS}, "alpha is nan"),
        ({"labels": LABELS.int(), "alpha": 0.5}, "labels is torch.int32"),
        ({"labels": LABELS[:9], "alpha": 0.5}, "labels has shape"),
        ({"labels": LABELS - 1, "alpha": 0.5}, "labels of row 0 is -1"),
        ({"labels": LABELS, "alpha": 0.5, "softcap": 0.0}, "softcap is 0.0"),
        ({"softcap": float("inf")}, "softcap is inf"),
        ({"position_weights": LABELS}, "position_weights is torch.int64"),
        ({"position_weights": torch.ones(9)}, "position_weights has shape"),
        ({"position_weights": -torch.ones(10)}, "position_weights of row 0 is -1.0"),
        ({"position_weights": torch.full((10,), torch.nan)}, "position_weights of row 0 is nan"),
        ({"position_weights": torch.ones(10, requires_grad=True)}, "requires grad"),
    ],
)
def test_wrong_arguments(loss_of: Loss, keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.InvalidArgumentError, match=message):
        loss_of(LOGITS, TARGETS, **keywords)


@pytest.mark.parametrize("loss_of", [logits_loss, head_loss])
def test_a_label_beyond_the_head(loss_of: Loss) -> None:
    with pytest.raises(errors.VocabularyMismatchError, match="labels holds token id 50"):
        loss_of(LOGITS, TARGETS, labels=LABELS + 50, alpha=0.5)
