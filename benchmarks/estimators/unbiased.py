"""Estimators of p whose error and size are known in closed form, token by token.

Each has `variance` and `inclusion`, (R, C) arrays of Var(w_i) and P(i is stored), and `draw`.
`size` is the number of rounds N, the number of ids kept K, or the threshold τ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import sparselogits as sl
from estimators.blocks import Block, Floats, Target, entropy, most_likely

#: Bits of a weight that is not a count: one of 256 levels on a logarithmic scale.
REAL_BITS = 8


@dataclass(frozen=True)
class Counts:
    """Counts of one of the library's samplers."""

    sampler: str
    name: str
    size_name: str = "N"

    def variance(self, p: Floats, size: float) -> Floats:
        if self.sampler == "multinomial":
            return p * (1 - p) / size
        if self.sampler == "systematic":
            fraction = np.modf(size * p)[0]
            return fraction * (1 - fraction) / size**2
        first, last, _ = _in_strata(p, size)
        return (first * (1 - first) + last * (1 - last)) / size**2

    def inclusion(self, p: Floats, size: float) -> Floats:
        if self.sampler == "multinomial":
            return 1 - (1 - p) ** size
        if self.sampler == "systematic":
            return np.minimum(1, size * p)
        first, last, between = _in_strata(p, size)
        return np.where(between > 0, 1.0, 1 - (1 - first) * (1 - last))

    def draw(self, block: Block, size: float, seed: int) -> Target:
        return sampled(block, self.sampler, int(size), seed)


def _in_strata(p: Floats, size: float) -> tuple[Floats, Floats, Floats]:
    """How much of its first and of its last stratum a token fills, and the full ones between."""
    ends = np.cumsum(p, axis=1)
    ends *= size / ends[:, -1:]
    starts = np.concatenate([np.zeros((len(p), 1)), ends[:, :-1]], axis=1)
    first, last = np.floor(starts), np.maximum(np.ceil(ends) - 1, np.floor(starts))
    inside = first == last
    of_first = np.where(inside, ends - starts, first + 1 - starts)
    return of_first, np.where(inside, 0.0, ends - last), np.maximum(last - first - 1, 0)


@dataclass(frozen=True)
class Importance:
    """Independent draws from q ∝ p^t with weights count / N · p / q (the paper's section 4.2)."""

    exponent: float
    name: str
    size_name: str = "N"

    def proposal(self, p: Floats) -> Floats:
        q = p**self.exponent
        q /= q.sum(axis=1, keepdims=True)
        return q

    def variance(self, p: Floats, size: float) -> Floats:
        q = self.proposal(p)
        return np.divide(p * p * (1 - q), q * size, out=np.zeros_like(p), where=q > 0)

    def inclusion(self, p: Floats, size: float) -> Floats:
        return 1 - (1 - self.proposal(p)) ** size

    def draw(self, block: Block, size: float, seed: int) -> Target:
        return sampled(block, "multinomial", int(size), seed, self.exponent)


@dataclass(frozen=True)
class CommonThreshold:
    """Each token on its own with probability min(1, p/τ): no unbiased estimator errs less.

    At a given mean number of ids; the number of ids of a position is not fixed.
    """

    name: str
    size_name: str = "τ"

    def variance(self, p: Floats, size: float) -> Floats:
        return np.where(p < size, p * size - p * p, 0.0)

    def inclusion(self, p: Floats, size: float) -> Floats:
        return np.minimum(1, p / size)

    def draw(self, block: Block, size: float, seed: int) -> Target:
        uniform = np.random.default_rng((seed, block.first_row)).random(block.p.shape)
        kept = uniform * size < block.p
        rows, columns = np.nonzero(kept)
        p = block.p[rows, columns]
        of_heads = REAL_BITS * (p >= size).sum() + len(p) * entropy((p >= size).astype(np.int64))
        bits = of_heads / len(kept) + entropy(kept.sum(axis=1))
        return make_target(block, rows, columns, np.maximum(p, size), bits)


@dataclass(frozen=True)
class FixedSize:
    """Exactly K ids a position, π = min(1, p/τ) with the τ of the position: optimal at fixed K."""

    name: str
    size_name: str = "K"

    def thresholds(self, p: Floats, size: float) -> Floats:
        """(R, 1) τ at which Σ min(1, p/τ) = K."""
        keep = min(int(size), p.shape[1])
        top = np.take_along_axis(p, most_likely(p, keep), axis=1)
        heads = np.arange(keep)  # with h tokens kept for certain, τ = tail mass / (K - h)
        tail = 1 - np.cumsum(top, axis=1) + top
        tau = np.maximum(tail, 0) / (keep - heads)
        certain = (top >= tau).cumprod(axis=1).sum(axis=1)  # h: how many are above their own τ
        return np.take_along_axis(tau, np.minimum(certain, keep - 1)[:, None], axis=1)

    def variance(self, p: Floats, size: float) -> Floats:
        tau = self.thresholds(p, size)
        return np.where(p < tau, p * tau - p * p, 0.0)

    def inclusion(self, p: Floats, size: float) -> Floats:
        tau = np.maximum(self.thresholds(p, size), np.finfo(float).tiny)
        return np.minimum(1, p / tau)

    def draw(self, block: Block, size: float, seed: int) -> Target:
        """Systematic sampling with these inclusion probabilities: K ids, give or take rounding."""
        ends = np.cumsum(self.inclusion(block.p, size), axis=1)
        uniform = np.random.default_rng((seed, block.first_row)).random((len(ends), 1))
        hits = np.floor(ends + uniform)
        rows, columns = np.nonzero(np.diff(hits, axis=1, prepend=np.floor(uniform)) > 0)
        p = block.p[rows, columns]
        tau = self.thresholds(block.p, size)[rows, 0]
        of_heads = REAL_BITS * (p >= tau).sum() + len(p) * entropy((p >= tau).astype(np.int64))
        bits = of_heads / len(ends) + REAL_BITS  # and τ
        return make_target(block, rows, columns, np.maximum(p, tau), bits)


@dataclass(frozen=True)
class HeadAndTail:
    """The K/2 most likely tokens as they are, and K/2 independent draws from the others."""

    name: str
    size_name: str = "K"

    def _tail(self, p: Floats, size: float) -> tuple[Floats, Floats]:
        """The tail's probabilities, normalised, and its (R, 1) mass."""
        half = int(size) // 2
        tail = p.copy()
        np.put_along_axis(tail, most_likely(p, half), 0.0, axis=1)
        mass = tail.sum(axis=1, keepdims=True)
        return np.divide(tail, mass, out=tail, where=mass > 0), mass

    def variance(self, p: Floats, size: float) -> Floats:
        tail, mass = self._tail(p, size)
        return mass**2 * tail * (1 - tail) / (int(size) // 2)

    def inclusion(self, p: Floats, size: float) -> Floats:
        half = int(size) // 2
        tail, _ = self._tail(p, size)
        kept = 1 - (1 - tail) ** half
        np.put_along_axis(kept, most_likely(p, half), 1.0, axis=1)
        return kept

    def draw(self, block: Block, size: float, seed: int) -> Target:
        half = int(size) // 2
        tail, mass = self._tail(block.p, size)
        with np.errstate(divide="ignore"):
            logits = np.log(tail).astype(np.float32)
        tails = sampled(Block(tail, logits, *_rest(block)), "multinomial", half, seed)
        dense = np.zeros_like(block.p)
        dense[tails.rows, tails.columns] = tails.weights * mass[tails.rows, 0]
        heads = most_likely(block.p, half)
        np.put_along_axis(dense, heads, np.take_along_axis(block.p, heads, axis=1), axis=1)
        rows, columns = np.nonzero(dense)
        bits = tails.value_bits + half * REAL_BITS
        return make_target(block, rows, columns, dense[rows, columns], bits)


def _rest(block: Block) -> tuple[object, ...]:
    return block.token_ids, block.labels, block.first_row


def sampled(
    block: Block, sampler: str, rounds: int, seed: int, exponent: float = 1.0, **options: bool
) -> Target:
    keys = block.first_row + np.arange(len(block.p))
    draws = sl.sample(
        block.logits,
        rounds=rounds,
        sampler=sampler,
        proposal_temperature=exponent,
        seed=seed,
        position_keys=keys,
        **options,
    )
    lengths = np.diff(draws.offsets)
    rows = np.repeat(np.arange(len(keys)), lengths)
    columns = draws.token_ids.astype(np.int64)
    weights = draws.weights.astype(np.float64)
    counts = draws.counts
    if counts is None:  # of the same draws: weights are counts times p/q
        plain = block.p**exponent
        plain /= plain.sum(axis=1, keepdims=True)
        ratio = (block.p[rows, columns] / plain[rows, columns]) / rounds
        counts = weights / ratio
        if options.get("self_normalize"):  # known up to a factor for each row
            sums = np.add.reduceat(counts, draws.offsets[:-1])
            counts = counts * np.repeat(rounds / sums, lengths)
        counts = np.rint(counts)
    of_counts = len(rows) / len(keys) * entropy(np.asarray(counts, np.int64))
    of_ratios = 0.0 if exponent == 1 else REAL_BITS * len(rows) / len(keys)
    return make_target(block, rows, columns, weights, of_counts + of_ratios)


def make_target(
    block: Block, rows: object, columns: object, weights: Floats, bits: float
) -> Target:
    rows, columns = np.asarray(rows, np.int64), np.asarray(columns, np.int64)
    ids = block.ids_of(rows, columns)
    return Target(rows, columns, ids, weights, len(block.p), float(bits))
