"""Rows that cannot be sampled, reported in the words of sampled_row.cc."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NoReturn

import torch

from sparselogits.errors import InvalidArgumentError
from sparselogits.sampling import SampleOptions


@dataclass(frozen=True)
class RowExtreme:
    """The logit of a row, or of some of its columns, that says what is wrong with the row.

    The first that is NaN or +inf; if there is none, the first of the largest.
    """

    column: int
    value: float

    @property
    def is_bad(self) -> bool:
        return not self.value < math.inf


def extreme_of(row: torch.Tensor) -> RowExtreme:
    """REQUIRES: at least one column."""
    row = row.detach().to("cpu", torch.float32)
    bad = (~(row < math.inf)).nonzero()
    column = int(bad[0, 0] if len(bad) else (row == row.max()).nonzero()[0, 0])
    return RowExtreme(column, float(row[column]))


def joined(extremes: list[RowExtreme]) -> RowExtreme:
    """The extreme of a row from those of its parts, which are in column order."""
    for extreme in extremes:
        if extreme.is_bad:
            return extreme
    return max(extremes, key=lambda extreme: extreme.value)  # the first of equal ones


def refuse(row: int, extreme: RowExtreme, options: SampleOptions) -> NoReturn:
    """Raises InvalidArgumentError."""
    place = f"logits[{row}, {extreme.column}]"
    if extreme.is_bad:
        value = "nan" if math.isnan(extreme.value) else f"{extreme.value:.9g}"
        raise InvalidArgumentError(f"{place} is {value}: logits must not be NaN or +inf")
    if math.isinf(extreme.value):
        raise InvalidArgumentError(f"logits row {row} is all -inf: there is no token to draw")
    raise InvalidArgumentError(
        f"{place} = {extreme.value:.9g} leaves float32 at "
        f"temperature {options.temperature:.9g} and "
        f"proposal_temperature {options.proposal_temperature:.9g}"
    )
