"""Closed forms: how far the draws of each sampler stray from p, and how many ids they take.

The loss is linear in w and the gradient of the logits errs by p - w, so the squared error of a
position is Σ_i Var(w_i). With N rounds:

    multinomial   (1 - Σ p²) / N
    systematic    Σ f (1 - f) / N², f the fraction of N p: the count is ⌊N p⌋, or with probability
                  f one more
    stratified    Σ_k Σ_i a (1 - a) / N², a = N · |interval of i in the cumulative p ∩ stratum k|:
                  a stratum draws i with probability a, independently of the others. As Σ_i a = 1
                  in every stratum, this is (1 - Σ_k Σ_i a² / N) / N

Tokens below 1 / N are many and enter through sums of their powers, once for all N.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Rounds = npt.NDArray[np.int64]

# 1 - (1 - p)^N is a series in N p < 1 whose terms alternate: what is left out is below 1 / 9!.
_SERIES_TERMS = 8


@dataclass(frozen=True)
class SamplingError:
    """Of R rows at G numbers of rounds.

    Attributes:
        squared_error: (R, G) Σ_i Var(w_i).
        unique_ids: (R, G) expected number of entries.
    """

    squared_error: Floats
    unique_ids: Floats


def sampling_error(p: Floats, rounds: Rounds, sampler: str) -> SamplingError:
    """The error and the size of draws of these rows.

    Args:
        p: (R, V) probabilities; each row sums to 1.
        rounds: (G,) numbers of draws, at least 1 each, G at least 1.
        sampler: "multinomial", "systematic" or "stratified".
    """
    if sampler == "stratified":
        return _stratified(p, rounds)
    split = _split(p, int(rounds.max()), _SERIES_TERMS if sampler == "multinomial" else 2)
    return (_multinomial if sampler == "multinomial" else _systematic)(split, rounds)


@dataclass(frozen=True)
class _Split:
    """Rows as their likely tokens one by one and the others by the sums of their powers.

    Attributes:
        rows: (H,) int64: the row of each likely token.
        likely: (H,) their probabilities.
        powers: (K, R): Σ p^k of the others, k = 1 ... K.
    """

    rows: npt.NDArray[np.int64]
    likely: Floats
    powers: Floats

    def sum_likely(self, values: Floats) -> Floats:
        """(R,) sums over the likely tokens of each row."""
        return _sum_by_row(self.rows, values, self.powers.shape[1])


def _split(p: Floats, most_rounds: int, terms: int) -> _Split:
    is_likely = p * most_rounds >= 1
    rows, columns = np.nonzero(is_likely)
    others = np.where(is_likely, 0.0, p)
    power = others.copy()
    powers = np.empty((terms, len(p)))
    for k in range(terms):
        powers[k] = power.sum(axis=1)
        power *= others
    return _Split(rows, p[rows, columns], powers)


def _multinomial(split: _Split, rounds: Rounds) -> SamplingError:
    sum_of_squares = split.sum_likely(split.likely**2) + split.powers[1]
    log_missed = np.log1p(-np.minimum(split.likely, 1 - 1e-16))
    ids = np.empty((len(sum_of_squares), len(rounds)))
    for g, n in enumerate(rounds.tolist()):
        ids[:, g] = split.sum_likely(-np.expm1(n * log_missed))
        choose = 1.0
        for k, power in enumerate(split.powers):  # Σ_k (-1)^(k+1) (N choose k) p^k
            choose *= (n - k) / (k + 1)
            ids[:, g] += choose * power if k % 2 == 0 else -choose * power
    return SamplingError((1 - sum_of_squares)[:, None] / rounds, ids)


def _systematic(split: _Split, rounds: Rounds) -> SamplingError:
    error = np.empty((split.powers.shape[1], len(rounds)))
    ids = np.empty_like(error)
    for g, n in enumerate(rounds.tolist()):
        fraction = np.modf(n * split.likely)[0]
        error[:, g] = split.sum_likely(fraction * (1 - fraction)) / n**2
        error[:, g] += split.powers[0] / n - split.powers[1]
        ids[:, g] = split.sum_likely(np.minimum(1, n * split.likely)) + n * split.powers[0]
    return SamplingError(error, ids)


def _stratified(p: Floats, rounds: Rounds) -> SamplingError:
    """A token inside one stratum has a = N p there; those on a boundary are taken one by one."""
    num_rows = len(p)
    ends = np.cumsum(p, axis=1)
    ends /= ends[:, -1:]
    # One ascending array, so that a single search places the boundaries of all rows.
    ends += np.arange(num_rows)[:, None]
    flat = ends.reshape(-1)
    sum_of_squares = (p**2).sum(axis=1)
    error = np.empty((num_rows, len(rounds)))
    ids = np.empty_like(error)
    for g, n in enumerate(rounds.tolist()):
        squares, drawn = _on_boundaries(p, flat, n)
        error[:, g] = (1 - n * sum_of_squares - squares / n) / n
        ids[:, g] = n + drawn
    return SamplingError(error, ids)


def _on_boundaries(p: Floats, flat_ends: Floats, n: int) -> tuple[Floats, Floats]:
    """What tokens on boundaries k / N add to Σ a² and to the expected ids, beyond being inside one.

    Returns:
        (R,) Σ over those tokens of Σ_k a² - (N p)², and of P(drawn) - N p.
    """
    num_rows = len(p)
    boundary = np.tile(np.arange(1, n, dtype=np.int64), num_rows)
    row = np.repeat(np.arange(num_rows, dtype=np.int64), n - 1)
    token = np.searchsorted(flat_ends, row + boundary / n)
    if not len(token):
        return np.zeros(num_rows), np.zeros(num_rows)
    changes = token[1:] != token[:-1]
    first = np.concatenate([[True], changes])
    last = np.concatenate([changes, [True]])
    row, token = row[first], token[first]
    begin, end = boundary[first], boundary[last]  # the first and the last boundary on the token
    expected = n * p.reshape(-1)[token]
    after = np.clip(n * (flat_ends[token] - row) - end, 0, 1)  # its part of the last stratum
    before = np.clip(expected - (end - begin) - after, 0, 1)
    squares = before**2 + after**2 + (end - begin) - expected**2
    drawn = np.where(end > begin, 1.0, 1 - (1 - before) * (1 - after)) - expected
    return _sum_by_row(row, squares, num_rows), _sum_by_row(row, drawn, num_rows)


def _sum_by_row(rows: npt.NDArray[np.int64], values: Floats, num_rows: int) -> Floats:
    return np.bincount(rows, values, num_rows).astype(np.float64, copy=False)
