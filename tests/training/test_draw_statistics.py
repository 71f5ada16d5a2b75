"""The tests of draws keep their false-alarm rate for every sampler, and see what is wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import sparselogits as sl
from sparselogits.capture.draw_statistics import DrawStatistics, DrawTests, _chi_square_tail
from sparselogits.capture.row_facts import NUM_CELLS, Entries, RowFacts, cell_of

ROWS, VOCABULARY, CHECKS, REPLICATES = 60, 200, 100, 24


def logits(seed: int) -> torch.Tensor:
    """Rows from flat to sharp."""
    rng = np.random.default_rng(seed)
    scale = rng.uniform(0.5, 6.0, (ROWS, 1))
    return torch.from_numpy((scale * rng.normal(size=(ROWS, VOCABULARY))).astype(np.float32))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """A barrier between threads costs more than any of these small products."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def judge_draws(facts: RowFacts, rows: torch.Tensor, seed: int, **options: Any) -> DrawTests:
    """Draws of a seed against the rows that they come from."""
    keys = np.arange(ROWS)

    def judged(number: int) -> Any:
        draws = sl.sample(rows, seed=number, position_keys=keys, num_threads=1, **options)
        assert draws.counts is not None
        return facts.judge(Entries.of(draws.offsets, draws.token_ids, draws.counts))

    statistics = DrawStatistics(options["rounds"], REPLICATES)
    first = seed * (REPLICATES + 1)
    statistics.add(facts, judged(first), [judged(first + 1 + k) for k in range(REPLICATES)])
    result = statistics.result()
    assert result is not None
    return result


@pytest.mark.parametrize("sampler", ["multinomial", "systematic", "stratified"])
def test_p_values_of_right_draws_are_uniform(sampler: str) -> None:
    """100 checks; the seeds are fixed. Each bound fails by chance once in about 10^4 choices of
    them: Kolmogorov's 2.2 / sqrt(100), and 4 standard errors of mean and variance of z."""
    rows = logits(0)
    facts = RowFacts(rows, 1.0, 1.0)
    results = [judge_draws(facts, rows, i, sampler=sampler, rounds=24) for i in range(CHECKS)]
    p = np.sort([result.p_value for result in results])
    distance = np.abs(p - (np.arange(CHECKS) + 0.5) / CHECKS).max() + 0.5 / CHECKS
    assert distance < 2.2 / math.sqrt(CHECKS)
    z = np.array([result.excess_z for result in results])
    assert abs(z.mean()) < 4 / math.sqrt(CHECKS)
    assert abs(z.var() - 1) < 4 * math.sqrt(2 / CHECKS)
    assert max(result.surprise for result in results) < math.log(CHECKS * 1e4)


def test_the_surprise_is_an_e_value() -> None:
    """Its mean is 1 whatever the rows: here by summing over all tokens of each."""
    rows = logits(0)
    facts = RowFacts(rows, 0.7, 1.3)
    every = torch.arange(ROWS * VOCABULARY)
    entries = Entries(every // VOCABULARY, every % VOCABULARY, torch.ones(len(every)).double())
    judged = facts.judge(entries)
    ratio = (facts.flat_ratio(judged) * judged.log_q.exp()).view(ROWS, VOCABULARY).sum(1)
    torch.testing.assert_close(ratio, torch.ones(ROWS, dtype=torch.float64))


def test_facts_of_rows_are_those_of_a_softmax() -> None:
    rows = logits(1)
    rows[:, 5] = -math.inf
    facts = RowFacts(rows, 2.0, 0.5)
    q = torch.softmax(rows.double() / 2.0 * 0.5, 1)
    log_q = q.log().masked_fill(q == 0, 0)
    entropy = -(q * log_q).sum(1)
    torch.testing.assert_close(facts.entropy, entropy)
    torch.testing.assert_close(facts.variance, (q * log_q.square()).sum(1) - entropy.square())
    torch.testing.assert_close(facts.cells.sum(1), torch.ones(ROWS, dtype=torch.float64))
    cell = (-torch.log2(q)).clamp(0, NUM_CELLS - 1).long()
    for j in range(NUM_CELLS):
        torch.testing.assert_close(facts.cells[:, j], (q * (cell == j)).sum(1))
    assert cell_of(torch.tensor([-math.inf])).item() == NUM_CELLS - 1


def test_weights_say_how_often_a_token_was_drawn() -> None:
    rows = logits(2)
    options = {"rounds": 30, "seed": 4, "proposal_temperature": 0.6}
    draws = sl.sample(rows, **options)  # type: ignore[arg-type]
    counts = (
        RowFacts(rows, 1.0, 0.6)
        .judge(Entries.of(draws.offsets, draws.token_ids, draws.weights.double() * 30))
        .counts
    )
    torch.testing.assert_close(counts, counts.round(), rtol=1e-5, atol=1e-5)
    per_row = torch.zeros(ROWS, dtype=torch.float64)
    per_row.index_add_(0, torch.repeat_interleave(torch.arange(ROWS), draws.offsets.diff()), counts)
    torch.testing.assert_close(per_row, torch.full((ROWS,), 30.0, dtype=torch.float64))


def test_the_tail_of_chi_square() -> None:
    assert _chi_square_tail(0.0, 0) == 1.0
    assert _chi_square_tail(5.0, 2) == pytest.approx(math.exp(-2.5))
    assert _chi_square_tail(9.0, 1) == pytest.approx(math.erfc(3 / math.sqrt(2)))
