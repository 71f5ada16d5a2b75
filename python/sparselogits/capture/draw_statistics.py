"""Whether stored draws can be draws of the teacher's rows: sums over positions, then tests.

Every sampler draws token i of a position N · q_i times in the mean, but their variances differ:
systematic and stratified draws scatter less than independent ones. So deviations are measured
against those of replicates, drawn from the same rows by the same sampler with other seeds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from sparselogits.capture.row_facts import NUM_CELLS, Judged, RowFacts

# Nothing below 2^-62 can be drawn from 62-bit integers.
_LEAST_LOG_Q = -62 * math.log(2)
_LEAST_EXPECTED = 10.0  # draws in a cell of the chi-square test
_ROUNDING = 1e-9  # of all draws: a standard deviation below that is none


@dataclass(frozen=True)
class DrawTests:
    """Results; sizes are nats a position or draw, and do not grow with what was looked at.

    Attributes:
        positions, draws: How many were looked at.
        impossible: Stored tokens with a probability below 2^-62; the tests leave them out.
        chi_square, degrees_of_freedom, p_value: Of draws in cells by probability, with the
            covariance of the replicates.
        kl: KL divergence of the stored draws over the cells from what is expected: a lower bound
            of the mean divergence of what was drawn from, apart from noise of dof / (2 · draws).
        entropy: Mean entropy of what should have been drawn from.
        excess: Mean of -log q over the draws, less the entropy.
        excess_z: The same in its standard errors.
        surprise: Log of an e-value: a mean ratio r / q a position, multiplied over positions.
            Without any approximation, it passes L with a chance below e^-L.
        sharpness: The power of q that fits best, in one Newton step from 1.
    """

    positions: int
    draws: int
    impossible: int
    chi_square: float
    degrees_of_freedom: int
    p_value: float
    kl: float
    entropy: float
    excess: float
    excess_z: float
    surprise: float
    sharpness: float


class DrawStatistics:
    """Sums over the positions of a capture that is checked.

    Args:
        rounds: N.
        replicates: How many each position gets.
    """

    def __init__(self, rounds: int, replicates: int) -> None:
        self._rounds = rounds
        self._replicates = replicates
        self._positions = self._impossible = 0
        self._expected = torch.zeros(NUM_CELLS, dtype=torch.float64)
        # The cells and, behind them, the sum of -log q.
        self._deviation = torch.zeros(NUM_CELLS + 1, dtype=torch.float64)
        self._covariance = torch.zeros((NUM_CELLS + 1, NUM_CELLS + 1), dtype=torch.float64)
        self._entropy = self._variance = self._surprise = 0.0

    def add(self, facts: RowFacts, stored: Judged, replicates: list[Judged]) -> None:
        """Takes a chunk of rows, what is stored of them, and replicates of that."""
        num_rows = len(facts.entropy)
        drawable = torch.maximum(stored.log_q, stored.log_p) >= _LEAST_LOG_Q
        self._impossible += int((~drawable).sum())
        stored = Judged(*(column[drawable] for column in vars(stored).values()))
        self._positions += num_rows
        self._expected += self._rounds * facts.cells.sum(0).cpu()
        self._entropy += float(facts.entropy.sum())
        self._variance += float(facts.variance.sum()) * self._rounds
        self._deviation += self._deviations(facts, stored).sum(0).cpu()
        for replicate in replicates:
            deviations = self._deviations(facts, replicate)
            self._covariance += (deviations.T @ deviations).cpu() / self._replicates
        ratio = stored.per_row(facts.flat_ratio(stored), num_rows) / self._rounds
        self._surprise += float(ratio[ratio > 0].log().sum())

    def result(self) -> DrawTests | None:
        """The tests of all that was added; None where nothing was."""
        if self._positions == 0:
            return None
        draws = self._positions * self._rounds
        chi_square, dof, kl = self._cells()
        excess_sum = float(self._deviation[-1])
        scatter = math.sqrt(float(self._covariance[-1, -1]))
        return DrawTests(
            positions=self._positions,
            draws=draws,
            impossible=self._impossible,
            chi_square=chi_square,
            degrees_of_freedom=dof,
            p_value=_chi_square_tail(chi_square, dof),
            kl=kl,
            entropy=self._entropy / self._positions,
            excess=excess_sum / draws,
            excess_z=excess_sum / scatter if scatter > _ROUNDING * draws else 0.0,
            surprise=self._surprise,
            sharpness=1 - excess_sum / self._variance if self._variance > 0 else 1.0,
        )

    def _deviations(self, facts: RowFacts, judged: Judged) -> torch.Tensor:
        """(R, NUM_CELLS + 1): draws in each cell and sums of -log q, less their expectations."""
        num_rows = len(facts.entropy)
        cells = judged.per_cell(num_rows) - self._rounds * facts.cells
        surprise = judged.per_row(-judged.log_q, num_rows) - self._rounds * facts.entropy
        return torch.cat([cells, surprise[:, None]], 1)

    def _cells(self) -> tuple[float, int, float]:
        """Chi-square, degrees of freedom and KL over cells with enough expected draws each."""
        pooling = _pooling(self._expected)
        expected = pooling @ self._expected
        deviation = pooling @ self._deviation[:-1]
        covariance = pooling @ self._covariance[:-1, :-1] @ pooling.T
        observed = (expected + deviation).clamp(min=0)
        share, wanted = observed / observed.sum(), expected / expected.sum()
        kl = float(torch.special.xlogy(share, share / wanted).sum()) if observed.sum() > 0 else 0.0
        # Cells add up to N, so the covariance lacks one dimension; sure teachers lack more.
        values, vectors = torch.linalg.eigh(covariance)
        kept = values > (_ROUNDING * expected.sum()).square()
        along = (vectors.T @ deviation)[kept]
        return float((along.square() / values[kept]).sum()), int(kept.sum()), max(kl, 0.0)


def _pooling(expected: torch.Tensor) -> torch.Tensor:
    """(pools, NUM_CELLS) of 0 and 1: neighbours together until each pool expects enough draws."""
    pools: list[int] = []
    pool, total = 0, 0.0
    for value in expected.tolist():
        pools.append(pool)
        total += value
        if total >= _LEAST_EXPECTED:
            pool, total = pool + 1, 0.0
    last = max(pool - 1, 0)  # what is left at the end joins the pool before it
    index = torch.tensor(pools).clamp(max=last)
    return torch.nn.functional.one_hot(index, last + 1).T.double()


def _chi_square_tail(value: float, degrees_of_freedom: int) -> float:
    if degrees_of_freedom == 0:
        return 1.0
    half = torch.tensor([degrees_of_freedom / 2, value / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))
