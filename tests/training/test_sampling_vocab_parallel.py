"""sample_vocab_parallel on gloo process groups of 2 and 3 ranks against whole rows."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import two_ranks
import vocab_parallel_script as script

SCRIPT = Path(script.__file__)
RANKS = (2, 3)


@cache
def outcomes(ranks: int) -> list[dict[str, str]]:
    """What every case of the script came to, on each rank."""
    return two_ranks.outcomes(SCRIPT, ranks)


def on_every_rank(ranks: int, case: str) -> list[str]:
    return [outcome[case] for outcome in outcomes(ranks)]


@pytest.mark.parametrize("options", script.OPTIONS)
@pytest.mark.parametrize(
    ("ranks", "shards"),
    [(ranks, shards) for ranks in RANKS for shards in script.SHARDS[ranks]],
)
def test_draws_are_those_of_whole_rows(ranks: int, shards: str, options: str) -> None:
    assert set(on_every_rank(ranks, f"{shards}, {options}")) == {"same draws"}


@pytest.mark.parametrize(
    ("ranks", "case"),
    [
        (ranks, case)
        for ranks in RANKS
        for case in (
            "with_keys_and_bfloat16_in_any_order",
            "in_chunks_of_rows",
            "by_triton",
            "without_rows",
        )
    ],
)
def test_nothing_else_changes_them(ranks: int, case: str) -> None:
    assert set(on_every_rank(ranks, case)) == {"same draws"}


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("nan on the last rank", "logits[2, {end}] is nan: logits must not be NaN or +inf"),
        ("inf on the first rank", "logits[0, 3] is inf: logits must not be NaN or +inf"),
        (
            "overflow",
            "logits[1, 310] = 3.00000001e+38 leaves float32 at temperature 0.25 "
            "and proposal_temperature 1",
        ),
        (
            "overflow of a proposal",
            "logits[1, 2] = 3.00000001e+38 leaves float32 at temperature 1 "
            "and proposal_temperature 2",
        ),
        ("masked row", "logits row 4 is all -inf: there is no token to draw"),
        ("other seed", "the options and position_keys of ranks 0 and 1 differ"),
        ("other vocab_size", "vocab_size of ranks 0 and 1 differ: {vocab_size} and 5000"),
        ("other start", "the shard of rank 1 starts at token 301: the one before it ends at 300"),
    ],
)
def test_every_rank_refuses_in_the_same_words(ranks: int, case: str, message: str) -> None:
    vocab_size = sum(script.SHARDS[ranks]["cut"])
    expected = message.format(vocab_size=vocab_size, end=vocab_size - 1)
    assert set(on_every_rank(ranks, case)) == {f"InvalidArgumentError: {expected}"}


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("refused arguments", "rounds must be from 1 to 65535, got 0"),
        ("refused vocab_size", "vocab_size must be an integer, got None"),
        ("refused logits", "logits have shape (): it must be (positions, vocabulary)"),
    ],
)
def test_no_rank_waits_for_one_whose_arguments_are_wrong(
    ranks: int, case: str, message: str
) -> None:
    messages = on_every_rank(ranks, case)
    assert messages.pop(1) == f"InvalidArgumentError: {message}"
    assert set(messages) == {"InvalidArgumentError: rank 1 of the group refused its arguments"}
