"""The study's rows: every estimator at the error of 50 i.i.d. draws, and at their bytes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from estimators.biased import SelfNormalised, TopK
from estimators.facts import (
    SOLVE_ROWS,
    Facts,
    between,
    facts,
    is_biased,
    is_threshold,
    size_for,
    step_of,
)
from estimators.teacher_rows import Regime
from estimators.unbiased import CommonThreshold, Counts, FixedSize, HeadAndTail, Importance

Log = Callable[[str], None]

REFERENCE = Counts("multinomial", "multinomial (the paper)")
REFERENCE_ROUNDS = 50
SYSTEMATIC = Counts("systematic", "systematic")
MATCHED = [
    SYSTEMATIC,
    Counts("stratified", "stratified"),
    CommonThreshold("lower bound (common τ)"),
    FixedSize("fixed-K optimal sparsification"),
    HeadAndTail("head K/2 exact + sampled tail"),
    Importance(1.2, "proposal t = 1.2"),
    Importance(0.8, "proposal t = 0.8"),
    SelfNormalised(1.2, "proposal t = 1.2, self-normalised"),
    SelfNormalised(0.8, "proposal t = 0.8, self-normalised"),
]
BIASED = [
    (TopK("renormalised", "Top-K, renormalised"), 12),
    (TopK("renormalised", "Top-K, renormalised"), 50),
    (TopK("ghost", "ghost token"), 12),
    (TopK("label", "naive fix (rest to the label)"), 12),
]


@dataclass(frozen=True)
class Row:
    """An estimator in a regime.

    Attributes:
        regime: Its name.
        estimator: What draws.
        size: The integer size (or τ) at which gradients are taken and at which `at_size` was.
        at_size: Figures at that size.
        at_error: At the (fractional) size with the error of the reference; None where biased.
        at_ids, at_bytes: At the size with its ids, and with its ideally coded bytes.
        wanted_error: Of the reference.
    """

    regime: str
    estimator: Any
    size: float
    at_size: Facts
    at_error: Facts | None
    at_ids: Facts | None
    at_bytes: Facts | None
    wanted_error: float

    @property
    def biased(self) -> bool:
        return is_biased(self.estimator)

    @property
    def label(self) -> str:
        size = f"{self.size:.3g}" if self.estimator.size_name == "τ" else f"{self.size:.0f}"
        return f"{self.estimator.name}, {self.estimator.size_name} = {size}"


def study_regime(regime: Regime, vocab_size: int, log: Log) -> list[Row]:
    """All rows of a regime; the first is the reference."""

    def of(estimator: Any, size: float) -> Facts:
        return facts(estimator, regime, size, vocab_size)

    paper = of(REFERENCE, REFERENCE_ROUNDS)
    wanted = paper.squared_error
    rows = [Row(regime.name, REFERENCE, 50, paper, paper, paper, paper, wanted)]
    log(f"{regime.name}: {paper.ids:.1f} ids, Σ Var {wanted:.5f}, τ = {regime.temperature:.3f}")
    some = regime.spread(SOLVE_ROWS).p
    of_some = float(REFERENCE.variance(some, REFERENCE_ROUNDS).sum(axis=1).mean())
    for estimator in MATCHED:
        sizes = size_for(estimator, regime, of_some)
        if isinstance(estimator, SelfNormalised):  # measured: neighbours differ by less than noise
            sizes = (math.floor(sizes[1] / 1.2), math.ceil(sizes[1] * 1.2))
        low, high = of(estimator, sizes[0]), of(estimator, sizes[1])
        matched = between(low, high, "squared_error", wanted)
        step = step_of(estimator)
        size = matched.size if is_threshold(estimator) else step * math.ceil(matched.size / step)
        at_size = high if size == high.size else of(estimator, size)
        more = of(estimator, size_for(estimator, regime, paper.ids, "ids")[1])
        less = high if more.size != high.size else low
        rows.append(
            Row(
                regime.name,
                estimator,
                at_size.size,
                at_size,
                matched,
                between(less, more, "ids", paper.ids),
                between(less, more, "bytes_c", paper.bytes_c),
                wanted,
            )
        )
        log(f"{regime.name}: {rows[-1].label}: {matched.ids:.1f} ids, {matched.bytes_c:.1f} B")
        if estimator is SYSTEMATIC:  # at the ids of the reference too
            rows.append(Row(regime.name, estimator, more.size, more, None, None, None, wanted))
    for estimator, size in BIASED:
        rows.append(
            Row(regime.name, estimator, size, of(estimator, size), None, None, None, wanted)
        )
    return rows
