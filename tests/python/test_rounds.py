"""`suggest_rounds`: its closed forms against brute force and against the draws of `sample`.

The Monte-Carlo tests are z-tests with fixed keys: a right formula had failed with probability below
1e-6 each (|z| > 4.9 for a mean of more than 10^4 draws) when the keys were chosen.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sparselogits as sl
from sparselogits.sampling import SAMPLERS
from sparselogits.sampling_error import sampling_error

Z_OF_1E6 = 4.9


def softmax(logits: Any) -> Any:
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def zipf_rows(rows: int, vocabulary: int, seed: int = 3) -> Any:
    """Shuffled power laws of exponents 0.8 to 2.2."""
    generator = np.random.default_rng(seed)
    exponents = np.linspace(0.8, 2.2, rows)[:, None]
    ranks = generator.permuted(np.tile(np.arange(1, vocabulary + 1), (rows, 1)), axis=1)
    return (-exponents * np.log(ranks)).astype(np.float32)


def brute_force(weights: list[int], rounds: int, sampler: str) -> tuple[Fraction, Fraction]:
    """Σ Var(w) and E[unique ids] of p = weights / Σ weights from the samplers' definitions."""
    p = [Fraction(w, sum(weights)) for w in weights]
    error, ids, start = Fraction(0), Fraction(0), Fraction(0)
    for q in p:
        if sampler == "multinomial":
            chances = [q] * rounds
        elif sampler == "stratified":
            chances = [
                rounds
                * max(
                    Fraction(0),
                    min(start + q, Fraction(k + 1, rounds)) - max(start, Fraction(k, rounds)),
                )
                for k in range(rounds)
            ]
        else:  # one uniform for all points: the count is floor or ceil of N q
            chances = [Fraction(1)] * int(rounds * q) + [rounds * q % 1]
        error += sum(a * (1 - a) for a in chances) / rounds**2
        missed = Fraction(1)
        for a in chances:
            missed *= 1 - a
        ids += 1 - missed
        start += q
    return error, ids


@settings(max_examples=150, deadline=None)
@given(
    weights=st.lists(st.integers(0, 60), min_size=1, max_size=25).filter(any),
    rounds=st.integers(1, 40),
    most=st.integers(0, 30),
    sampler=st.sampled_from(SAMPLERS),
)
def test_closed_forms_are_those_of_the_definitions(
    weights: list[int], rounds: int, most: int, sampler: str
) -> None:
    p = np.array([weights], np.float64) / sum(weights)
    found = sampling_error(p, np.array([rounds, rounds + most]), sampler)
    for g, n in enumerate((rounds, rounds + most)):
        error, ids = brute_force(weights, n, sampler)
        assert found.squared_error[0, g] == pytest.approx(float(error), rel=1e-9, abs=1e-12)
        assert found.unique_ids[0, g] == pytest.approx(float(ids), rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_draws_of_sample_err_as_predicted(sampler: str) -> None:
    """|w - p|² and unique ids of 12 rows, drawn 5,000 times each, against the closed form."""
    logits, rounds, repeats = zipf_rows(12, 400), 24, 5000
    keys = np.arange(12 * repeats)
    draws = sl.sample(
        np.repeat(logits, repeats, axis=0),
        rounds=rounds,
        sampler=sampler,
        seed=8,
        position_keys=keys,
    )
    p = softmax(logits)
    row = np.repeat(keys // repeats, np.diff(draws.offsets))
    of_token = p[row, draws.token_ids]
    w = draws.weights.astype(np.float64)
    # |w - p|² = Σ p² + Σ over the drawn tokens of (w² - 2 w p)
    errors = np.add.reduceat(w**2 - 2 * w * of_token, draws.offsets[:-1])
    errors += np.repeat((p**2).sum(axis=1), repeats)
    predicted = sampling_error(p, np.array([rounds]), sampler)
    for found, expected in (
        (errors, predicted.squared_error),
        (np.diff(draws.offsets).astype(np.float64), predicted.unique_ids),
    ):
        by_row = found.reshape(12, repeats)
        standard_error = np.sqrt(by_row.var(axis=1, ddof=1).sum() / repeats) / 12
        z = (by_row.mean() - expected.mean()) / standard_error
        assert abs(z) < Z_OF_1E6


def test_the_monte_carlo_test_sees_the_formula_of_another_sampler() -> None:
    """The power of the test above: errors of neighbouring samplers are far apart at 24 rounds."""
    p = softmax(zipf_rows(12, 400))
    errors = [sampling_error(p, np.array([24]), name).squared_error.mean() for name in SAMPLERS]
    multinomial, systematic, stratified = errors
    assert multinomial > 1.3 * stratified > 1.3 * 1.02 * systematic


def test_matches_the_error_of_fifty_independent_draws() -> None:
    logits = zipf_rows(200, 3000)
    found = sl.suggest_rounds(logits)
    assert (found.sampler, found.positions) == ("systematic", 200)
    p = softmax(logits)
    assert found.wanted_error == pytest.approx(np.mean((1 - (p**2).sum(axis=1)) / 50))
    assert found.error <= found.wanted_error
    before = sampling_error(p, np.array([found.rounds - 1]), "systematic")
    assert before.squared_error.mean() > found.wanted_error
    assert found.rounds < 35


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sampler_matches_itself(sampler: str) -> None:
    found = sl.suggest_rounds(zipf_rows(20, 500), sampler=sampler, match=(sampler, 40))
    assert found.rounds <= 40  # systematic may reach it earlier by luck of its fractions
    if sampler == "multinomial":
        assert found.rounds == 40


def test_a_wanted_error_is_kept_and_a_smaller_one_takes_more_rounds() -> None:
    logits = zipf_rows(50, 1000)
    rounds = []
    for error in (0.05, 0.01, 0.002):
        found = sl.suggest_rounds(logits, error=error)
        assert found.error <= error == found.wanted_error
        rounds.append(found.rounds)
    assert rounds == sorted(set(rounds))


def test_chunks_and_memory_maps_give_what_the_array_gives(tmp_path: Any) -> None:
    logits = zipf_rows(30, 700)
    np.save(tmp_path / "rows.npy", logits)

    def chunks() -> Iterator[Any]:
        yield logits[:1]
        yield logits[1:1]
        yield logits[1:]

    whole = sl.suggest_rounds(logits)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    for rows in (chunks(), mapped, torch.from_numpy(logits)):
        other = sl.suggest_rounds(rows)
        assert (other.rounds, other.positions) == (whole.rounds, 30)
        np.testing.assert_allclose(other.curve.error, whole.curve.error, rtol=1e-12)


def test_standard_error_is_that_of_the_rows() -> None:
    logits = zipf_rows(30, 700)
    found = sl.suggest_rounds(logits)
    errors = sampling_error(softmax(logits), np.array([found.rounds]), "systematic").squared_error
    assert found.standard_error == pytest.approx(errors.std(ddof=1) / np.sqrt(30))


def test_temperature_divides_and_masked_tokens_are_no_tokens() -> None:
    logits = zipf_rows(10, 300)
    masked = np.insert(logits, 5, -np.inf, axis=1)
    assert sl.suggest_rounds(masked).error == pytest.approx(sl.suggest_rounds(logits).error)
    flat = sl.suggest_rounds(logits, temperature=2.0)
    assert flat.error == pytest.approx(sl.suggest_rounds(logits / 2).error, rel=1e-5)


def test_curve_is_dense_below_64_and_ends_at_max_rounds() -> None:
    curve = sl.suggest_rounds(zipf_rows(5, 100), max_rounds=1000).curve
    assert curve.rounds[:64].tolist() == list(range(1, 65))
    assert curve.rounds[-1] == 1000
    assert (np.diff(curve.rounds) <= 1 + curve.rounds[:-1] / 31).all()
    assert (np.diff(curve.unique_ids) > 0).all()
    assert sl.suggest_rounds(zipf_rows(5, 100), error=1.0, max_rounds=1).curve.rounds.size == 1


@pytest.mark.parametrize(
    "change, message",
    [
        ({"sampler": "gumbel"}, "sampler must be one of"),
        ({"error": 0.0}, "error must be finite and above 0, got 0.0"),
        ({"error": 0.1, "match": ("multinomial", 5)}, "give error or match, not both"),
        ({"match": ("multinomial", 0)}, r"match\[1\] must be from 1 to 65535, got 0"),
        ({"match": "multinomial"}, r"match must be \(sampler, rounds\), got 'multinomial'"),
        ({"temperature": -1}, "temperature must be"),
        ({"max_rounds": 65536}, "max_rounds must be from 1 to 65535, got 65536"),
        (
            {"error": 1e-5, "max_rounds": 50},
            "at its best of up to 50 rounds, above the wanted 1e-05",
        ),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(sl.InvalidArgumentError, match=message):
        sl.suggest_rounds(zipf_rows(5, 100), **change)


@pytest.mark.parametrize(
    "rows, message",
    [
        (np.zeros((1, 4), np.float32), "at least 2 rows, got 1"),
        (np.zeros(4, np.float32), r"have shape \(4,\)"),
        (np.zeros((3, 4), np.float16), "are float16: they must be float32 or float64"),
        (np.zeros((3, 4), np.int64), "are int64"),
        (np.zeros((3, 0), np.float32), r"have shape \(3, 0\)"),
        (torch.zeros(3, 4, dtype=torch.bfloat16), "no array in host memory: .*BFloat16"),
        (torch.zeros(3, 4, requires_grad=True), "no array in host memory: .*grad"),
        ([[[1.0], [2.0, 3.0]]], "no array in host memory"),
        (7, "must be an array or chunks of one, got int"),
        ([np.zeros((2, 4), np.float32), np.zeros((2, 5), np.float32)], "4 columns and then 5"),
        (np.array([[0, 1], [0, np.nan]], np.float32), "row 1 of logits_rows holds nan"),
        (np.array([[0, 1], [np.inf, 0]], np.float32), "row 1 of logits_rows holds inf"),
        (
            [np.zeros((3, 2), np.float32), np.full((1, 2), -np.inf, np.float32)],
            "row 3 of logits_rows is all -inf",
        ),
    ],
)
def test_wrong_rows_are_named(rows: Any, message: str) -> None:
    with pytest.raises(sl.InvalidArgumentError, match=message):
        sl.suggest_rounds(rows)
