"""Is E[w] = p? A hypothesis test whose false-alarm rate is proved, not approximated.

H0: the mean of w is p on every token. R rows with the same logits and different keys are
independent, |w_i - p_i| ≤ b_i and Var(w_i) = v_i is known in closed form, so by Bernstein

    P(|mean w_i - p_i| ≥ e) ≤ 2 exp(-R e² / (2 v_i + 2 b_i e / 3)).

A test rejects if any of the V tokens exceeds the e at which this is ALPHA / V: by Bonferroni a
right sampler is rejected with probability below ALPHA = 1e-6. (It holds for random keys. The keys
are fixed, so each test passes always or never.) The power is shown by estimators with a known
bias, all of which are rejected with the same keys, numbers of rows and thresholds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import sparselogits as sl
from sparselogits.sampling import SAMPLERS

ALPHA = 1e-6
ROWS, VOCABULARY, ROUNDS = 150_000, 60, 9


def zipf(vocabulary: int = VOCABULARY, exponent: float = 1.3) -> Any:
    """Probabilities of 0.3 down to 0.001, no two equal, in no order."""
    ranks = np.random.default_rng(4).permutation(vocabulary) + 1.0
    return ranks**-exponent / (ranks**-exponent).sum()


def logits_of(p: Any) -> Any:
    return np.broadcast_to(np.log(p).astype(np.float32), (ROWS, len(p)))


@dataclass(frozen=True)
class Estimate:
    """Attributes:
    mean: (V,) mean weights over `ROWS` independent rows.
    variance, bound: (V,) Var(w_i) and the largest |w_i - p_i| of one row, if E[w] = p.
    """

    mean: Any
    variance: Any
    bound: Any

    def rejects(self, p: Any) -> bool:
        """Whether E[w] = p is rejected at ALPHA."""
        return bool((np.abs(self.mean - p) > self.threshold()).any())

    def threshold(self) -> Any:
        """(V,) e with R e² = log(2 V / ALPHA) (2 v + 2 b e / 3), and room for float32 weights."""
        log = np.log(2 * len(self.mean) / ALPHA)
        half = log * self.bound / (3 * ROWS)
        return half + np.sqrt(half**2 + 2 * log * self.variance / ROWS) + 2e-7 * self.bound + 1e-9


def moments(q: Any, sampler: str) -> tuple[Any, Any]:
    """Var(count / N) and max |count / N - q| by the definition of the sampler."""
    if sampler == "multinomial":
        return q * (1 - q) / ROUNDS, np.maximum(q, 1 - q)
    if sampler == "systematic":  # the count is the floor or the ceiling of N q
        fraction = ROUNDS * q % 1
        return fraction * (1 - fraction) / ROUNDS**2, np.full_like(q, 1 / ROUNDS)
    ends = np.cumsum(q) * ROUNDS
    starts = ends - q * ROUNDS
    strata = np.arange(ROUNDS)[:, None]
    chances = np.clip(np.minimum(ends, strata + 1) - np.maximum(starts, strata), 0, 1)
    return (chances * (1 - chances)).sum(axis=0) / ROUNDS**2, np.full_like(q, 2 / ROUNDS)


def estimate(
    draws: Any, p: Any, sampler: str, exponent: float = 1.0, weights: Any = None
) -> Estimate:
    """Of draws whose proposal is q ∝ p^exponent, or of other weights in their place."""
    q = p**exponent / (p**exponent).sum()
    variance, bound = moments(q, sampler)
    values = draws.weights if weights is None else weights
    mean = np.bincount(draws.token_ids, values.astype(np.float64), len(p)) / ROWS
    return Estimate(mean, (p / q) ** 2 * variance, p / q * bound)


def keys(kind: str) -> Any:
    """Different keys of all rows: along a sequence, or one position of many sequences."""
    numbers = np.arange(ROWS, dtype=np.uint64)
    constant = np.full(ROWS, 17, np.uint64)
    pair = (constant, numbers) if kind == "positions" else (numbers << np.uint64(33), constant)
    return np.stack(pair, axis=1)


@pytest.mark.parametrize("kind", ["positions", "sequences"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_counts_have_the_mean_p(sampler: str, kind: str) -> None:
    p = zipf()
    draws = sl.sample(
        logits_of(p), rounds=ROUNDS, sampler=sampler, seed=20, position_keys=keys(kind)
    )
    assert not estimate(draws, p, sampler).rejects(p)


@pytest.mark.parametrize("exponent", [0.6, 0.8, 1.2])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_importance_weights_have_the_mean_p(sampler: str, exponent: float) -> None:
    p = zipf()
    draws = sl.sample(
        logits_of(p),
        rounds=ROUNDS,
        sampler=sampler,
        proposal_temperature=exponent,
        seed=21,
        position_keys=keys("positions"),
    )
    assert not estimate(draws, p, sampler, exponent).rejects(p)


def test_temperature_is_that_of_p() -> None:
    p = zipf()
    warm = p**0.5 / (p**0.5).sum()
    draws = sl.sample(logits_of(p), rounds=ROUNDS, sampler="systematic", temperature=2.0, seed=22)
    assert not estimate(draws, warm, "systematic").rejects(warm)
    assert estimate(draws, p, "systematic").rejects(p)


@pytest.mark.parametrize("offset", [0.3, 0.5])
def test_each_offset_alone_has_the_mean_p(offset: float) -> None:
    p = zipf()
    draws = plain("systematic", p, offset=offset)
    assert not estimate(draws, p, "systematic").rejects(p)


def plain(sampler: str, p: Any, **options: Any) -> Any:
    return sl.sample(logits_of(p), rounds=ROUNDS, sampler=sampler, seed=20, **options)


def top_k(p: Any) -> Estimate:
    """The 40 most likely of 60 tokens, renormalised."""
    kept = np.where(p >= np.sort(p)[-40], p, 0)
    return Estimate(kept / kept.sum(), *moments(p, "multinomial"))


def self_normalised(p: Any) -> Estimate:
    draws = plain("multinomial", p, proposal_temperature=0.8, self_normalize=True)
    return estimate(draws, p, "multinomial", 0.8)


def shared_uniform(p: Any) -> Estimate:
    """All positions with one key: their errors are the same and do not average out."""
    draws = plain("systematic", p, position_keys=np.zeros(ROWS, np.int64))
    return estimate(draws, p, "systematic")


def uniform_mixed_in(p: Any) -> Estimate:
    """One draw in a hundred from somewhere else."""
    draws = plain("systematic", 0.99 * p + 0.01 / len(p))
    return estimate(draws, p, "systematic")


def bfloat16_logits(p: Any) -> Estimate:
    bits = np.log(p).astype(np.float32).view(np.uint32)
    rounded = ((bits + 0x8000) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    return estimate(plain("systematic", np.exp(rounded.astype(np.float64))), p, "systematic")


def heaviest_kept(p: Any) -> Estimate:
    """Of each position's draws, the token with most is up-scaled to hold what singles had."""
    draws = plain("multinomial", p)
    counts = draws.counts.astype(np.float64)
    counts[counts == 1] = 0
    sums = np.add.reduceat(counts, draws.offsets[:-1])
    scale = np.divide(1, sums, out=np.zeros_like(sums), where=sums > 0)
    weights = counts * np.repeat(scale, np.diff(draws.offsets))
    return estimate(draws, p, "multinomial", weights=weights)


def sharpened_counts(p: Any) -> Estimate:
    """Counts raised to a power near 1 and normalised again."""
    draws = plain("multinomial", p)
    powers = draws.counts.astype(np.float64) ** 1.05
    sums = np.add.reduceat(powers, draws.offsets[:-1])
    weights = powers / np.repeat(sums, np.diff(draws.offsets))
    return estimate(draws, p, "multinomial", weights=weights)


def seven_bit_weights(p: Any) -> Estimate:
    """Counts stored as probabilities of 7 bits: 9 rounds do not divide 128."""
    draws = plain("multinomial", p)
    weights = np.rint(draws.weights.astype(np.float64) * 127) / 128
    return estimate(draws, p, "multinomial", weights=weights)


@pytest.mark.parametrize(
    "biased",
    [
        top_k,
        self_normalised,
        shared_uniform,
        uniform_mixed_in,
        bfloat16_logits,
        heaviest_kept,
        sharpened_counts,
        seven_bit_weights,
    ],
    ids=lambda variant: variant.__name__,
)
def test_a_biased_estimator_is_rejected(biased: Callable[[Any], Estimate]) -> None:
    p = zipf()
    assert biased(p).rejects(p)


def test_false_alarms_of_a_right_estimator_are_rarer_than_alpha() -> None:
    """The bound is a bound: simulated means of 3,000 right tests come nowhere near it."""
    p = zipf()
    variance, bound = moments(p, "multinomial")
    generator = np.random.default_rng(6)
    means = generator.multinomial(ROUNDS * ROWS, p, 3000) / (ROUNDS * ROWS)
    threshold = Estimate(p, variance, bound).threshold()
    assert (np.abs(means - p) < threshold).all()
    assert (np.abs(means - p) > threshold / 2).any()  # and it is no looser than it must be
