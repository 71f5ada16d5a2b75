"""The losses over a sharded vocabulary on 2 gloo ranks against one process in float64."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import vocab_parallel_loss_script as script
from sharded_vocabulary import KEYWORDS, SHARDS
from two_ranks import RANKS, outcomes


@cache
def found() -> list[dict[str, str]]:
    return outcomes(Path(script.__file__))


def on_every_rank(case: str) -> list[str]:
    return [outcome[case] for outcome in found()]


@pytest.mark.parametrize("keywords", KEYWORDS)
@pytest.mark.parametrize("shards", SHARDS)
@pytest.mark.parametrize("given", ["logits", "head"])
def test_loss_and_gradients_equal_those_of_one_process(
    given: str, shards: str, keywords: str
) -> None:
    assert on_every_rank(f"{given}, {shards}, {keywords}") == ["equal"] * RANKS


@pytest.mark.parametrize(
    "case",
    [
        "logits, inplace",
        "logits, bfloat16",
        "logits, unchecked",
        "head, chunks",
        "head, unchecked",
        "head, no bias",
        "head, bfloat16",
        "without_reduction_of_the_hidden_gradient",
        "one_loss_per_row",
        "ignored_rows_may_hold_anything",
        "a_shard_of_minus_infinity",
        "an_entry_without_weight_asks_for_nothing",
        "nan_reaches_every_rank",
        "in_blocks_of_rows",
        "in_any_order",
    ],
)
def test_it_holds(case: str) -> None:
    assert on_every_rank(case) == ["equal"] * RANKS


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("other temperature", "the options of ranks 0 and 1 differ"),
        ("other num_items", "the options of ranks 0 and 1 differ"),
        ("other chunk", "the options of ranks 0 and 1 differ"),
        ("other weights", "targets, mask, labels or weights of ranks 0 and 1 differ"),
        ("other labels", "targets, mask, labels or weights of ranks 0 and 1 differ"),
        ("other mask", "targets, mask, labels or weights of ranks 0 and 1 differ"),
        ("other start", "the shard of rank 1 starts at token 14: the one before it ends at 13"),
    ],
)
def test_every_rank_refuses_in_the_same_words(case: str, message: str) -> None:
    assert on_every_rank(case) == [f"InvalidArgumentError: {message}"] * RANKS


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("short shards", "the cache's vocabulary has 101 ids and the student's head only 100"),
        ("high label", "targets or labels hold token id 100 and the student's head has 100 ids"),
    ],
)
def test_shards_that_end_before_an_id_are_refused_on_every_rank(case: str, message: str) -> None:
    assert on_every_rank(case) == [f"VocabularyMismatchError: {message}"] * RANKS


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("refused temperature", "temperature is 0.0; it must be above 0 and finite"),
        ("refused mask", "mask is torch.float32; it must be torch.bool, True to keep"),
        ("refused targets", "targets has 5 rows and local_logits has 12"),
        ("refused start", "vocab_start must be from 0 to 16777216, got -1"),
    ],
)
def test_no_rank_waits_for_one_whose_arguments_are_wrong(case: str, message: str) -> None:
    assert on_every_rank(case) == [
        "InvalidArgumentError: rank 1 of the group refused its arguments",
        f"InvalidArgumentError: {message}",
    ]
