"""One rank of test_vocab_parallel_loss.py: runs all cases, prints {case: outcome} as JSON.

python vocab_parallel_loss_script.py RANK RANKS FILE       (FILE: where the ranks meet)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from dense_reference import Reference, error, make_targets, of_head, of_logits
from sharded_vocabulary import (
    FP32,
    KEYWORDS,
    ROWS,
    SHARDS,
    check,
    finite_targets,
    make_head,
    make_logits,
    shard_of,
)
from two_ranks import run_rank

from sparselogits.torch import SparseTargets, row_shard
from sparselogits.torch.vocab_parallel_fused import vocab_parallel_fused_linear_sparse_kd_loss
from sparselogits.torch.vocab_parallel_loss import vocab_parallel_sparse_kd_loss


def of_given_logits(
    rank: int,
    columns: list[int],
    keywords: dict[str, Any],
    inplace: bool = False,
    dtype: torch.dtype = torch.float32,
    **more: Any,
) -> None:
    targets, logits = finite_targets(), make_logits().to(dtype)
    expected = of_logits(logits, targets, **keywords)
    local, start = shard_of(logits, columns, rank, 2)
    leaf = local.requires_grad_()
    given = leaf * 1
    loss = vocab_parallel_sparse_kd_loss(given, targets, start, inplace=inplace, **keywords, **more)
    (3 * loss).sum().backward()
    wanted, _ = shard_of(expected.gradients[0], columns, rank, 2)
    check(loss.flatten(), expected.loss.flatten())
    check(leaf.grad, 3 * wanted, FP32 if dtype == torch.float32 else torch.finfo(dtype).eps)
    with torch.no_grad():
        again = vocab_parallel_sparse_kd_loss(local, targets, start, **keywords)
    assert torch.equal(again, loss)


def of_a_head(
    rank: int,
    columns: list[int],
    keywords: dict[str, Any],
    with_bias: bool = True,
    tolerance: float = FP32,
    dtype: torch.dtype = torch.float32,
    **more: Any,
) -> None:
    targets = finite_targets()
    hidden, weight, bias = (t.to(dtype) for t in make_head())
    expected = of_head(hidden, weight, bias if with_bias else None, targets, **keywords)
    parts = [shard_of(t, columns, rank, 0) for t in (weight, bias)]
    inputs = [hidden.clone(), parts[0][0], parts[1][0]][: 3 if with_bias else 2]
    leaves = [t.requires_grad_() for t in inputs]
    loss = vocab_parallel_fused_linear_sparse_kd_loss(
        leaves[0],
        leaves[1],
        targets,
        parts[0][1],
        local_bias=leaves[2] if with_bias else None,
        **keywords,
        **more,
    )
    (3 * loss).backward()
    check(loss, expected.loss, tolerance)
    check(leaves[0].grad, 3 * expected.gradients[0], 3 * tolerance)
    for leaf, wanted in zip(leaves[1:], expected.gradients[1:], strict=True):
        check(leaf.grad, 3 * shard_of(wanted, columns, rank, 0)[0], 3 * tolerance)


def without_reduction_of_the_hidden_gradient(rank: int, columns: list[int]) -> None:
    """The parts of the ranks add up to the whole."""
    targets, (hidden, weight, _) = finite_targets(), make_head()
    expected = of_head(hidden, weight, None, targets).gradients[0]
    local, start = shard_of(weight, columns, rank, 0)
    leaf = hidden.clone().requires_grad_()
    vocab_parallel_fused_linear_sparse_kd_loss(
        leaf, local, targets, start, reduce_hidden_gradient=False
    ).backward()
    assert leaf.grad is not None
    assert error(leaf.grad, expected) > 0.01
    dist.all_reduce(leaf.grad)
    check(leaf.grad, expected)


def one_loss_per_row(rank: int, columns: list[int]) -> None:
    targets, logits = finite_targets(), make_logits()
    local, start = shard_of(logits, columns, rank, 2)
    losses = vocab_parallel_sparse_kd_loss(local, targets, start, reduction="none")
    assert losses.shape == (3, 4)
    check(losses.flatten(), of_logits(logits, targets, reduction="none").loss)


def ignored_rows_may_hold_anything(rank: int, columns: list[int]) -> None:
    targets, logits = finite_targets(), make_logits()
    mask = torch.arange(ROWS).view(3, 4) % 3 != 1
    ignored = ~mask.flatten() | (targets.offsets.diff() == 0)
    expected: Reference = of_logits(logits, targets, mask=mask)
    logits.view(ROWS, -1)[ignored] = torch.tensor([torch.nan, torch.inf]).repeat(50)
    local, start = shard_of(logits, columns, rank, 2)
    leaf = local.requires_grad_()
    loss = vocab_parallel_sparse_kd_loss(leaf, targets, start, mask=mask)
    loss.backward()
    check(loss, expected.loss)
    check(leaf.grad, shard_of(expected.gradients[0], columns, rank, 2)[0])


def a_shard_of_minus_infinity(rank: int, columns: list[int]) -> None:
    targets, logits = finite_targets(), make_logits()
    expected = of_logits(logits, targets)
    logits[logits == -1e30] = -torch.inf
    local, start = shard_of(logits, columns, rank, 2)
    leaf = local.requires_grad_()
    loss = vocab_parallel_sparse_kd_loss(leaf, targets, start)
    loss.backward()
    check(loss, expected.loss)
    check(leaf.grad, shard_of(expected.gradients[0], columns, rank, 2)[0])


def an_entry_without_weight_asks_for_nothing(rank: int, columns: list[int]) -> None:
    """Its logit may be -inf: 0 · inf would be NaN."""
    logits = make_logits()
    expected = of_logits(logits, finite_targets(), num_items=1)
    logits[logits == -1e30] = -torch.inf
    targets = finite_targets()
    place = int(targets.offsets[1])  # of the row that has such logits, before its entries
    targets = SparseTargets(
        targets.offsets + (torch.arange(ROWS + 1) > 1),
        torch.cat([targets.token_ids[:place], torch.tensor([7]), targets.token_ids[place:]]),
        torch.cat([targets.weights[:place], torch.zeros(1), targets.weights[place:]]),
        100,
    )
    local, start = shard_of(logits, columns, rank, 2)
    leaf = local.requires_grad_()
    loss = vocab_parallel_sparse_kd_loss(leaf, targets, start, num_items=1)
    loss.backward()
    check(loss, expected.loss)
    check(leaf.grad, shard_of(expected.gradients[0], columns, rank, 2)[0])


def nan_reaches_every_rank(rank: int, columns: list[int]) -> None:
    targets, logits = finite_targets(), make_logits()
    row = int((targets.offsets.diff() > 0).nonzero()[-1])
    logits.view(ROWS, -1)[row, 99] = torch.nan  # on the last rank alone
    local, start = shard_of(logits, columns, rank, 2)
    losses = vocab_parallel_sparse_kd_loss(local, targets, start, reduction="none").flatten()
    assert losses.isnan().nonzero().flatten().tolist() == [row]


def in_blocks_of_rows(rank: int, columns: list[int]) -> None:
    before, row_shard._BLOCK_BYTES = row_shard._BLOCK_BYTES, 5000
    try:
        of_given_logits(rank, columns, KEYWORDS["mask"])
    finally:
        row_shard._BLOCK_BYTES = before


def in_any_order(rank: int, columns: list[int]) -> None:
    of_given_logits(len(columns) - 1 - rank, columns, {})


def with_other_arguments_on_rank_1(rank: int, columns: list[int], **changes: Any) -> None:
    local, start = shard_of(make_logits(), columns, rank, 2)
    arguments: dict[str, Any] = {
        "local_logits": local,
        "targets": finite_targets(),
        "vocab_start": start,
    }
    if rank == 1:
        arguments |= changes
    vocab_parallel_sparse_kd_loss(**arguments)


def with_another_chunk_on_rank_1(rank: int, columns: list[int]) -> None:
    hidden, weight, _ = make_head()
    local, start = shard_of(weight, columns, rank, 0)
    vocab_parallel_fused_linear_sparse_kd_loss(
        hidden, local, finite_targets(), start, chunk_rows=3 + rank
    )


def with_a_vocabulary_beyond_the_shards(rank: int, columns: list[int]) -> None:
    targets = finite_targets()
    larger = SparseTargets(targets.offsets, targets.token_ids, targets.weights, 101)
    local, start = shard_of(make_logits(), columns, rank, 2)
    vocab_parallel_sparse_kd_loss(local, larger, start)


def with_a_label_beyond_the_shards(rank: int, columns: list[int]) -> None:
    local, start = shard_of(make_logits(), columns, rank, 2)
    labels = torch.full((ROWS,), 100)
    vocab_parallel_sparse_kd_loss(local, finite_targets(), start, labels=labels, alpha=0.5)


def other_weights() -> SparseTargets:
    targets = finite_targets()
    weights = targets.weights.clone()
    weights[-1] *= 2
    return SparseTargets(targets.offsets, targets.token_ids, weights, 100)


def cases(rank: int) -> Iterator[tuple[str, Callable[[], None]]]:
    for shards, columns in SHARDS.items():
        for name, keywords in KEYWORDS.items():
            yield f"logits, {shards}, {name}", partial(of_given_logits, rank, columns, keywords)
            yield f"head, {shards}, {name}", partial(of_a_head, rank, columns, keywords)
    columns = SHARDS["uneven"]
    narrow = {"dtype": torch.bfloat16}
    yield "logits, inplace", partial(of_given_logits, rank, columns, {}, inplace=True)
    yield "logits, bfloat16", partial(of_given_logits, rank, columns, {}, **narrow)
    yield "logits, unchecked", partial(of_given_logits, rank, columns, {}, check_shards=False)
    head = partial(of_a_head, rank, columns, {})
    yield "head, chunks", partial(head, chunk_rows=5)
    yield "head, unchecked", partial(head, chunk_rows=5, check_shards=False)
    yield "head, no bias", partial(head, with_bias=False)
    yield "head, bfloat16", partial(head, tolerance=2**-7, chunk_rows=5, **narrow)
    for run in (
        without_reduction_of_the_hidden_gradient,
        one_loss_per_row,
        ignored_rows_may_hold_anything,
        an_entry_without_weight_asks_for_nothing,
        nan_reaches_every_rank,
        in_blocks_of_rows,
        in_any_order,
    ):
        yield run.__name__, partial(run, rank, columns)
    halves = partial(a_shard_of_minus_infinity, rank, SHARDS["halves"])
    yield "a_shard_of_minus_infinity", halves
    other = partial(with_other_arguments_on_rank_1, rank, columns)
    yield "refused temperature", partial(other, temperature=0.0)
    yield "refused mask", partial(other, mask=torch.ones(ROWS))
    yield "refused targets", partial(other, targets=make_targets(5, 100))
    yield "refused start", partial(other, vocab_start=-1)
    yield "other temperature", partial(other, temperature=2.0)
    yield "other num_items", partial(other, num_items=3)
    yield "other start", partial(other, vocab_start=14)
    yield "other weights", partial(other, targets=other_weights())
    yield "other labels", partial(other, labels=torch.zeros(ROWS).long(), alpha=0.1)
    yield "other mask", partial(other, mask=torch.arange(ROWS) > 3)
    yield "other chunk", partial(with_another_chunk_on_rank_1, rank, columns)
    yield "high label", partial(with_a_label_beyond_the_shards, rank, columns)
    yield "short shards", partial(with_a_vocabulary_beyond_the_shards, rank, columns)


if __name__ == "__main__":
    run_rank(lambda rank: dict(cases(rank)))
