"""Error and size of an estimator over all rows of a regime; the size that an error takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from estimators.biased import SelfNormalised, TopK
from estimators.blocks import Block, Floats, Ids, Target
from estimators.teacher_rows import Regime
from estimators.unbiased import CommonThreshold, HeadAndTail

DRAW_SEED = 1
SOLVE_ROWS = 128  # spread over the regime: sizes are looked for on these
VALUE_ROWS = 512  # whose draws say what values take
_DRAWN, _IN_CACHE = 256, 16  # rows at a time: for their statistics, for the processor's cache


@dataclass(frozen=True)
class Facts:
    """Per position, means over rows.

    Attributes:
        size: N, K or τ.
        ids: Stored ids.
        squared_error: E Σ (w - p)², and its standard error over rows.
        standard_error: Of it.
        chi_square: E Σ (w - p)² / p.
        id_bits: Ids coded with the frequencies of the ids stored from these very rows, less the
            log2 k! that their order would take: the ids of a position are a set.
        value_bits: Counts coded with their frequencies; 8 bits for a weight that is no count.
    """

    size: float
    ids: float
    squared_error: float
    standard_error: float
    chi_square: float
    id_bits: float
    value_bits: float

    @property
    def bytes_a(self) -> float:
        """24 bits an id, as in the paper."""
        return 3 * self.ids

    @property
    def bytes_c(self) -> float:
        return (self.id_bits + self.value_bits) / 8


def facts(estimator: Any, regime: Regime, size: float, vocab_size: int) -> Facts:
    """Closed forms where there are any; one draw of each row otherwise."""
    is_closed = hasattr(estimator, "variance") and not isinstance(estimator, SelfNormalised)
    stored = np.zeros(vocab_size)
    errors, chi_squares, bits, orders = [], [], [], []
    if hasattr(estimator, "inclusion"):
        for block in regime.blocks(_IN_CACHE):
            inclusion = estimator.inclusion(block.p, size)
            if block.token_ids is None:
                stored += inclusion.sum(axis=0)
            else:
                np.add.at(stored, block.token_ids, inclusion)
            if is_closed:
                variance = estimator.variance(block.p, size)
                of_p = np.divide(variance, block.p, out=np.zeros_like(variance), where=block.p > 0)
                errors.append(variance.sum(axis=1))
                chi_squares.append(of_p.sum(axis=1))
    for block in regime.blocks(_DRAWN):
        target = estimator.draw(block, size, DRAW_SEED)
        bits.append(target.value_bits)
        orders.append(_log2_factorial(np.bincount(target.rows, minlength=target.num_rows)))
        if is_closed and len(bits) * _DRAWN >= VALUE_ROWS:
            break
        if not is_closed:
            error, chi_square = measured(block, target)
            errors.append(error)
            chi_squares.append(chi_square)
        if not hasattr(estimator, "inclusion"):
            np.add.at(stored, target.token_ids, 1.0)
    if isinstance(estimator, SelfNormalised):
        blocks = islice(regime.blocks(_IN_CACHE), VALUE_ROWS // _IN_CACHE)
        chi_squares = [[estimator.chi_square(block, size, DRAW_SEED + 1)] for block in blocks]
    error = np.concatenate(errors)
    share = stored[stored > 0] / stored.sum()
    return Facts(
        size=size,
        ids=float(stored.sum()) / len(error),
        squared_error=float(error.mean()),
        standard_error=float(error.std() / math.sqrt(len(error))),
        chi_square=float(np.concatenate(chi_squares).mean()),
        id_bits=float(stored.sum() / len(error) * -(share * np.log2(share)).sum())
        - float(np.concatenate(orders).mean()),
        value_bits=float(np.mean(bits)),
    )


def _log2_factorial(numbers: Ids) -> Floats:
    table = np.concatenate([[0.0], np.cumsum(np.log2(np.arange(1, numbers.max() + 1)))])
    return table[numbers]


def measured(block: Block, target: Target) -> tuple[Floats, Floats]:
    """(R,) Σ (w - p)² and Σ (w - p)² / p of a target; column -1 has p = 0."""
    p = np.where(target.columns < 0, 0.0, block.p[target.rows, target.columns])
    w = target.weights
    error = np.bincount(target.rows, w**2 - 2 * w * p, target.num_rows) + (block.p**2).sum(axis=1)
    with np.errstate(divide="ignore"):
        chi = np.bincount(target.rows, w**2 / p - 2 * w, target.num_rows) + 1
    return error, chi


def size_for(
    estimator: Any, regime: Regime, wanted: float, figure: str = "squared_error"
) -> tuple[float, float]:
    """Neighbouring sizes whose error (or `ids`) lies around what is wanted, on the first rows.

    Returns:
        The last size on the side of fewer ids, the first on the other; 1 % to each side for τ.
    """
    rows = regime.spread(SOLVE_ROWS)

    def of(size: float) -> float:
        """Grows with the number of ids."""
        if figure == "ids":
            return float(estimator.inclusion(rows.p, size).sum(axis=1).mean())
        if isinstance(estimator, SelfNormalised):
            draws = [measured(rows, estimator.draw(rows, size, seed))[0] for seed in range(8)]
            return -float(np.mean(draws))
        return -float(estimator.variance(rows.p, size).sum(axis=1).mean())

    goal = wanted if figure == "ids" else -wanted
    if is_threshold(estimator):
        tau = _bisect(lambda tau: of(1 / tau) < goal, 1.0, 1e5)
        return 1.01 / tau, 1 / (1.01 * tau)
    step = step_of(estimator)
    low, high = 1, 1
    while of(step * high) < goal:
        low, high = high, 2 * high
        if high > 1 << 14:
            raise ValueError(f"{estimator.name} does not reach {figure} = {wanted}")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if of(step * middle) < goal else (low, middle)
    return step * low, step * high


def _bisect(is_low: Callable[[float], bool], low: float, high: float) -> float:
    for _ in range(40):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if is_low(middle) else (low, middle)
    return math.sqrt(low * high)


def between(low: Facts, high: Facts, figure: str, wanted: float) -> Facts:
    """What a fractional size would give at which a figure is as wanted: linear in logarithms."""
    at_low, at_high = getattr(low, figure), getattr(high, figure)
    if at_low == at_high:
        return high
    share = math.log(wanted / at_low) / math.log(at_high / at_low)
    values = {}
    for name in Facts.__dataclass_fields__:
        a, b = getattr(low, name), getattr(high, name)
        positive = a > 0 and b > 0 and math.isfinite(a) and math.isfinite(b)
        values[name] = a * (b / a) ** share if positive else a + share * (b - a)
    return Facts(**values)


def step_of(estimator: Any) -> int:
    """Which sizes there are: its multiples."""
    return 2 if isinstance(estimator, HeadAndTail) else 1


def is_threshold(estimator: Any) -> bool:
    """Whether sizes are thresholds, not integers."""
    return isinstance(estimator, CommonThreshold)


def is_biased(estimator: Any) -> bool:
    return isinstance(estimator, (SelfNormalised, TopK))
