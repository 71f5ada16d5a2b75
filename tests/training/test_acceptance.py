"""Acceptance of drafts: against the definition, against decoding itself, and from draws."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

import sparselogits as sl
from sparselogits.torch import SparseTargets
from sparselogits.torch.meters import AcceptanceBoundsMeter, AcceptanceMeter
from sparselogits.torch.objectives import sampled_targets

Z = 4.5


def make_pair(rows: int, vocab: int, gap: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a student and of its teacher."""
    generator = torch.Generator().manual_seed(2)
    teacher = 2 * torch.randn(rows, vocab, generator=generator)
    return teacher + gap * torch.randn(rows, vocab, generator=generator), teacher


def rate_of(student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> Any:
    q, p = ((z.double() / temperature).softmax(-1) for z in (student, teacher))
    return torch.minimum(p, q).sum(-1)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_it_is_one_minus_total_variation(temperature: float) -> None:
    student, teacher = make_pair(200, 50)
    meter = AcceptanceMeter()
    mask = torch.arange(200) % 4 != 0
    meter.update(
        student.view(10, 20, -1),
        teacher.view(10, 20, -1),
        mask=mask.view(10, 20),
        temperature=temperature,
    )
    found = meter.compute()
    expected = rate_of(student, teacher, temperature)[mask]
    assert found.rate == pytest.approx(expected.mean().item(), rel=1e-6)
    assert found.standard_error == pytest.approx((expected.std() / 150**0.5).item(), rel=1e-5)
    same = (student.argmax(-1) == teacher.argmax(-1))[mask]
    assert found.greedy_agreement == same.double().mean().item()
    assert found.count == 150


def test_heads_may_be_padded() -> None:
    student, teacher = make_pair(30, 20)
    padded = torch.cat([student, torch.full((30, 4), -torch.inf)], -1)
    results = []
    for pair in ((student, teacher), (padded, teacher), (teacher, padded)):
        meter = AcceptanceMeter()
        meter.update(*pair)
        results.append(meter.compute().rate)
    assert results == pytest.approx([results[0]] * 3)


def decode(
    student: torch.Tensor, teacher: torch.Tensor, draft_length: int, calls: int
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Speculative sampling (Leviathan et al. 2023, algorithm 1) of two bigram models.

    Args:
        student, teacher: (V, V) logits of the next token, by token.

    Returns:
        The tokens before each draft that was judged, whether it was accepted, and how many tokens
        a call of the teacher gave.
    """
    generator = torch.Generator().manual_seed(0)
    q, p = student.double().softmax(-1), teacher.double().softmax(-1)
    chains = torch.zeros(calls, dtype=torch.int64)  # independent: one call of the teacher each
    for _ in range(20):  # until the chains are where the teacher goes
        chains = torch.multinomial(p[chains], 1, generator=generator)[:, 0]
    alive = torch.ones(calls, dtype=torch.bool)
    before, accepted, tokens = [], [], 0
    for _ in range(draft_length):
        drafts = torch.multinomial(q[chains], 1, generator=generator)[:, 0]
        chance = (p[chains, drafts] / q[chains, drafts]).clamp(max=1)
        takes = torch.rand(calls, generator=generator, dtype=torch.float64) < chance
        before.append(chains[alive])
        accepted.append(takes[alive])
        alive = alive & takes
        tokens += int(alive.sum())
        chains = torch.where(alive, drafts, chains)
    return torch.cat(before), torch.cat(accepted), 1 + tokens / calls


def test_decoding_accepts_as_often_as_the_meter_says() -> None:
    student, teacher = make_pair(40, 40, gap=0.8)
    before, accepted, _ = decode(student, teacher, draft_length=4, calls=20_000)
    meter = AcceptanceMeter()
    meter.update(student[before], teacher[before])
    rate = meter.compute().rate
    chance = rate_of(student, teacher)[before]
    error = (chance * (1 - chance)).sum().sqrt().item() / len(before)
    assert 0.3 < rate < 0.9
    assert abs(accepted.double().mean().item() - rate) < Z * error
    assert Z * error < 0.01


def test_tokens_per_call_of_decoding_with_equal_positions() -> None:
    """Where every position accepts alike, acceptances are independent and the formula is exact."""
    generator = torch.Generator().manual_seed(1)
    row = torch.randn(12, generator=generator)
    student = row.expand(12, 12)
    teacher = (row + torch.randn(12, generator=generator)).expand(12, 12)
    calls = 20_000
    _, _, tokens = decode(student, teacher, draft_length=3, calls=calls)
    meter = AcceptanceMeter()
    meter.update(student, teacher)
    expected = meter.compute().tokens_per_call(3)
    assert abs(tokens - expected) < Z * 1.5 / math.sqrt(calls)
    a = meter.compute().rate
    assert expected == pytest.approx((1 - a**4) / (1 - a))


def test_parts_add_up_and_nothing_is_refused_to_be_divided_by() -> None:
    student, teacher = make_pair(100, 20)
    whole, first, second = AcceptanceMeter(), AcceptanceMeter(), AcceptanceMeter()
    whole.update(student, teacher)
    first.update(student[:30], teacher[:30])
    second.update(student[30:], teacher[30:])
    merged = first.merge(second).compute()
    assert merged.rate == pytest.approx(whole.compute().rate, rel=1e-12)
    assert merged.standard_error == pytest.approx(whole.compute().standard_error, rel=1e-9)
    with pytest.raises(sl.InvalidArgumentError, match="AcceptanceMeter has seen no position"):
        AcceptanceMeter().compute()
    with pytest.raises(sl.MismatchError, match="AcceptanceBoundsMeter cannot be added"):
        whole.merge(AcceptanceBoundsMeter())  # type: ignore[type-var]
    with pytest.raises(sl.InvalidArgumentError, match="draft_length"):
        merged.tokens_per_call(0)
    alone = AcceptanceMeter()
    alone.update(student[:1], teacher[:1])
    assert math.isnan(alone.compute().standard_error)


def every_draw(p: list[float], rounds: int) -> list[tuple[float, list[int]]]:
    """All counts of `rounds` independent draws, each with its probability."""
    found = []
    for counts in itertools.product(range(rounds + 1), repeat=len(p)):
        if sum(counts) == rounds:
            ways = math.factorial(rounds)
            chance = 1.0
            for count, probability in zip(counts, p, strict=True):
                ways //= math.factorial(count)
                chance *= probability**count
            found.append((ways * chance, list(counts)))
    return found


def targets_of(draws: list[list[int]], rounds: int) -> SparseTargets:
    counts = torch.tensor(draws)
    row, token_id = counts.nonzero().unbind(1)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), (counts > 0).sum(-1).cumsum(0)])
    return SparseTargets(offsets, token_id, counts[row, token_id] / rounds, counts.shape[1])


@pytest.mark.parametrize("rounds", [2, 3, 6])
@pytest.mark.parametrize(
    "q", [[0.1, 0.23, 0.29, 0.38], [0.5, 0.31, 0.14, 0.05], [0.97, 0.01, 0.01, 0.01]]
)
def test_bounds_hold_in_expectation_over_every_draw(rounds: int, q: list[float]) -> None:
    p = [0.6, 0.25, 0.1, 0.05]
    rate = sum(map(min, p, q))
    draws = every_draw(p, rounds)
    student = torch.tensor(q, dtype=torch.float64).log()
    lower = upper = 0.0
    for chance, counts in draws:
        meter = AcceptanceBoundsMeter(rounds)
        meter.update(student[None], targets_of([counts], rounds))
        found = meter.compute()
        lower += chance * found.lower
        upper += chance * found.upper
    assert lower <= rate + 1e-9
    assert upper >= rate - 1e-9
    # What the upper bound estimates: sets chosen by N - 1 draws, judged by p itself.
    expected = 0.0
    for chance, counts in every_draw(p, rounds - 1):
        chosen = [c / (rounds - 1) > qk for c, qk in zip(counts, q, strict=True)]
        expected += chance * (1 - sum((a - b) * s for a, b, s in zip(p, q, chosen, strict=True)))
    assert upper == pytest.approx(expected, abs=1e-6)


def test_bounds_close_in_on_the_rate_as_rounds_grow() -> None:
    student, teacher = make_pair(300, 30)
    rate = rate_of(student, teacher).mean().item()
    widths = []
    for rounds in (4, 64, 2048):
        meter = AcceptanceBoundsMeter(rounds)
        meter.update(student, sampled_targets(teacher, np.arange(300), rounds=rounds))
        found = meter.compute()
        assert found.lower - Z * found.lower_error < rate < found.upper + Z * found.upper_error
        widths.append(found.upper - found.lower)
    assert widths[0] > 2 * widths[1] > 6 * widths[2] > 0
    systematic = AcceptanceBoundsMeter()
    draws = sampled_targets(teacher, np.arange(300), rounds=64, sampler="systematic")
    systematic.update(student, draws)
    found = systematic.compute()
    assert found.upper is None
    assert found.lower - Z * found.lower_error < rate


def test_masked_and_empty_rows_do_not_count() -> None:
    student, teacher = make_pair(40, 10)
    draws = sampled_targets(teacher, np.arange(40), rounds=5)
    mask = torch.arange(40) < 15
    some = AcceptanceBoundsMeter(5)
    dirty = torch.where(mask[:, None], student, torch.nan)
    some.update(dirty, draws, mask=mask)
    first = AcceptanceBoundsMeter(5)
    first.update(student[:15], sampled_targets(teacher[:15], np.arange(15), rounds=5))
    assert some.compute().lower == pytest.approx(first.compute().lower, rel=1e-12)
    assert some.compute().upper == pytest.approx(first.compute().upper, rel=1e-12)
    assert some.compute().count == 15


def test_weights_that_are_no_counts_are_refused() -> None:
    student, teacher = make_pair(5, 10)
    draws = sampled_targets(teacher, np.arange(5), rounds=7)
    with pytest.raises(sl.InvalidArgumentError, match="no multiple of 1 / rounds = 1 / 5"):
        AcceptanceBoundsMeter(5).update(student, draws)
    with pytest.raises(sl.InvalidArgumentError, match="rounds must be from 2"):
        AcceptanceBoundsMeter(1)
