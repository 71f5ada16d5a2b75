"""Unbiasedness of `sample`, measured: chi-square, means, rounding of counts, independence.

Seeds are fixed, so a test passes always or never; thresholds leave less than one chance in a
thousand that a correct sampler had failed when the seed was chosen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sparselogits as sl
from sparselogits.sampling import SAMPLERS
from sparselogits.sampling_torch.proposal import exp_masses


def softmax(logits: Any) -> Any:
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def skewed_logits(vocabulary: int, exponent: float) -> Any:
    """A shuffled Zipf row whose probabilities span several orders of magnitude."""
    ranks = np.random.default_rng(9).permutation(vocabulary) + 1
    return (-exponent * np.log(ranks)).astype(np.float32)


def repeat(row: Any, times: int) -> Any:
    return np.broadcast_to(row, (times, len(row)))


def dense_moments(draws: Any, values: Any, vocabulary: int) -> tuple[Any, Any]:
    """Mean over rows of dense `values`, and the standard error of that mean."""
    rows = len(draws.offsets) - 1
    values = values.astype(np.float64)
    mean = np.bincount(draws.token_ids, values, vocabulary) / rows
    square = np.bincount(draws.token_ids, values**2, vocabulary) / rows
    return mean, np.sqrt(np.maximum(square - mean**2, 0) / rows)


@pytest.mark.parametrize("exponent", [1.0, 2.0])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_chi_square(sampler: str, exponent: float) -> None:
    """One draw taken at random from each of 10^5 rows: independent, and distributed as p."""
    rows, rounds, vocabulary = 100_000, 7, 300
    logits = skewed_logits(vocabulary, exponent)
    draws = sl.sample(repeat(logits, rows), rounds=rounds, sampler=sampler, seed=11)
    assert draws.counts is not None
    every_draw = np.repeat(draws.token_ids, draws.counts).reshape(rows, rounds)
    picked = np.random.default_rng(3).integers(0, rounds, rows)
    observed = np.bincount(every_draw[np.arange(rows), picked], minlength=vocabulary)
    expected = rows * softmax(logits)
    rare = expected < 10
    if rare.any():
        observed = np.append(observed[~rare], observed[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum())
    freedom = len(expected) - 1
    statistic = float(((observed - expected) ** 2 / expected).sum())
    assert abs(statistic - freedom) < 3.5 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("proposal_temperature", [1.0, 0.8, 1.2])
def test_expected_weights(sampler: str, temperature: float, proposal_temperature: float) -> None:
    """E[weights] = p within 4 standard errors on every token."""
    vocabulary = 40
    logits = skewed_logits(vocabulary, 1.5)
    draws = sl.sample(
        repeat(logits, 200_000),
        rounds=9,
        sampler=sampler,
        temperature=temperature,
        proposal_temperature=proposal_temperature,
        seed=5,
    )
    mean, standard_error = dense_moments(draws, draws.weights, vocabulary)
    error = np.abs(mean - softmax(logits / temperature))
    assert (error < 4 * standard_error + 1e-8).all()


def test_sharp_proposal_loses_no_token() -> None:
    """q = p^8 of 2^24 rare tokens is below the resolution of its masses, yet p is covered."""
    vocabulary, rounds = 1 << 24, 65535
    logits = np.full((1, vocabulary), -5.0, np.float32)
    logits[0, 0] = 0
    draws = sl.sample(logits, rounds=rounds, sampler="systematic", proposal_temperature=8.0)
    # The likely token has a mass of 2^37, each other one has 1: some 8 of them are drawn.
    drawn = rounds * (vocabulary - 1) / (2.0**37 + vocabulary - 1)
    assert len(draws.token_ids) - 1 in (int(drawn), int(drawn) + 1)
    tail = 1 - softmax(logits)[0, 0]
    expected = tail * (len(draws.token_ids) - 1) / drawn
    np.testing.assert_allclose(draws.weights[1:].sum(), expected, rtol=1e-5)


def test_self_normalized_weights_sum_to_one() -> None:
    logits = skewed_logits(500, 1.2)
    for proposal_temperature in (0.05, 0.8, 1.2):
        draws = sl.sample(
            repeat(logits, 200), proposal_temperature=proposal_temperature, self_normalize=True
        )
        sums = np.add.reduceat(draws.weights, draws.offsets[:-1])
        np.testing.assert_allclose(sums, 1, rtol=1e-6)


@settings(max_examples=200, deadline=None)
@given(
    vocabulary=st.integers(1, 700),
    rounds=st.integers(1, 500),
    scale=st.sampled_from([0.0, 0.5, 2.0, 8.0]),
    seed=st.integers(0, 2**32),
)
def test_systematic_counts_are_neighbours_of_np(
    vocabulary: int, rounds: int, scale: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    logits = (scale * generator.standard_normal((3, vocabulary))).astype(np.float32)
    draws = sl.sample(logits, rounds=rounds, sampler="systematic", seed=seed)
    assert draws.counts is not None
    counts = np.zeros(logits.shape)
    counts[np.repeat(np.arange(3), np.diff(draws.offsets)), draws.token_ids] = draws.counts
    # The masses are within 1e-7 of N p: at a tie either neighbour may appear.
    expected = rounds * softmax(logits)
    tolerance = 1e-7 * expected + 1e-12
    assert (counts >= np.floor(expected - tolerance)).all()
    assert (counts <= np.ceil(expected + tolerance)).all()


def test_stratified_counts_differ_from_np_by_less_than_two() -> None:
    logits = skewed_logits(100, 1.3)
    rounds = 40
    draws = sl.sample(repeat(logits, 5000), rounds=rounds, sampler="stratified")
    assert draws.counts is not None
    assert (np.abs(draws.counts - rounds * softmax(logits)[draws.token_ids]) < 2).all()


class TestIndependentPositions:
    """Errors of different positions average out; with one shared uniform they would not."""

    ROUNDS = 20
    ROWS = 400

    def energy_ratio(self, seed: int, shared: bool) -> float:
        """|mean error|^2 over positions, in units of its expectation for independent offsets."""
        generator = np.random.default_rng(seed)
        common = 2.0 * generator.standard_normal(500)
        logits = (common + 0.5 * generator.standard_normal((self.ROWS, 500))).astype(np.float32)
        keys = np.zeros(self.ROWS, np.int64) if shared else np.arange(self.ROWS)
        draws = sl.sample(
            logits, rounds=self.ROUNDS, sampler="systematic", seed=seed, position_keys=keys
        )
        p = softmax(logits)
        mean_weights = np.bincount(draws.token_ids, draws.weights, 500) / self.ROWS
        fraction = self.ROUNDS * p % 1
        variance = (fraction * (1 - fraction)).sum() / (self.ROUNDS * self.ROWS) ** 2
        return float(((mean_weights - p.mean(axis=0)) ** 2).sum() / variance)

    def test_energy_of_the_mean_error(self) -> None:
        independent = np.mean([self.energy_ratio(seed, shared=False) for seed in range(12)])
        assert 0.85 < independent < 1.15

    def test_a_shared_uniform_would_be_seen(self) -> None:
        shared = np.mean([self.energy_ratio(seed, shared=True) for seed in range(12)])
        assert shared > 5

    def test_neighbouring_keys_are_uncorrelated(self) -> None:
        """The uniform of a systematic row, read off a flat row, against that of the next key."""
        flat = np.zeros((20_000, 1024), np.float32)
        for stride in (1, 1 << 16, 1 << 32):
            keys = np.arange(20_000, dtype=np.uint64) * np.uint64(stride) % np.uint64(1 << 48)
            draws = sl.sample(flat, rounds=1, sampler="systematic", position_keys=keys)
            uniforms = draws.token_ids / 1024 - 0.5
            correlation = 12 * np.mean(uniforms[1:] * uniforms[:-1])
            assert abs(correlation) < 4 / np.sqrt(20_000)


@pytest.mark.parametrize("vocabulary", [100, 49152])
@pytest.mark.parametrize("scale", [0.5, 2.5, 5.0])
def test_total_variation_of_the_masses(vocabulary: int, scale: float) -> None:
    """Integer masses against a float64 softmax: the only bias there is."""
    generator = np.random.default_rng(0)
    logits = (scale * generator.standard_normal((8, vocabulary)) + 10).astype(np.float32)
    rows = torch.from_numpy(logits)
    mass_bits = 61 - (vocabulary - 1).bit_length()
    masses = exp_masses(rows, rows.amax(1, keepdim=True), mass_bits).numpy()
    q = masses / masses.sum(axis=1, keepdims=True)
    assert (np.abs(q - softmax(logits)).sum(axis=1) / 2).max() < 1e-8
