"""Whose turn it is: several streams in one, each with its share at every moment."""

from __future__ import annotations

import heapq
import math
import numbers
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from sparselogits.errors import InvalidArgumentError

MAX_PERIOD = 1 << 16
"""Turns after which the pattern repeats, at most; shares are whole numbers of turns."""


def shares_of(weights: Sequence[float | Fraction]) -> tuple[int, ...]:
    """Weights as whole numbers without a common divisor.

    Weights are taken as the decimal numbers that they print as: 0.7 and 0.3 are 7 and 3. Where such
    numbers add up to more than `MAX_PERIOD`, they are rounded (largest remainder) so that they add
    up to just that.

    Raises:
        InvalidArgumentError: A weight is not a finite number above 0, or so small a part of their
            sum that its share would be no turn at all.
    """
    exact = [_fraction(f"mixture_weights[{i}]", weight) for i, weight in enumerate(weights)]
    scale = math.lcm(*(weight.denominator for weight in exact))
    whole = [int(weight * scale) for weight in exact]
    divisor = math.gcd(*whole)
    shares = [value // divisor for value in whole]
    total = sum(shares)
    if total > MAX_PERIOD:
        wanted = [Fraction(share * MAX_PERIOD, total) for share in shares]
        shares = [int(value) for value in wanted]
        by_rest = sorted(range(len(shares)), key=lambda i: shares[i] - wanted[i])
        for index in by_rest[: MAX_PERIOD - sum(shares)]:
            shares[index] += 1
        if 0 in shares:
            index = shares.index(0)
            raise InvalidArgumentError(
                f"mixture_weights[{index}] is {weights[index]}, {float(wanted[index]):.3g} of "
                f"{MAX_PERIOD} parts of their sum; it must be at least one"
            )
    return tuple(shares)


class Interleave:
    """Turn n of an endless series belongs to one of several streams, and is its m-th.

    After any number n of turns, stream i with the share s_i of D = Σ s has had floor(n s_i / D) or
    ceil(n s_i / D) of them. The j-th turn of a stream then has to lie between those in which its
    quota grows; in each turn the stream goes first whose time runs out first (Baruah, Cohen,
    Plaxton and Varvel 1996, "Proportionate progress", show that such turns exist; with one turn at
    a time the earliest deadline finds them). The pattern has the period D and is stored once.

    Args:
        shares: (streams,) whole numbers above 0.
    """

    def __init__(self, shares: Sequence[int]) -> None:
        self.period = sum(shares)
        self._shares = np.array(shares, np.int64)
        self._streams = np.array(_pattern(shares, self.period), np.int32)
        self._numbers = np.empty(self.period, np.int64)
        for stream, share in enumerate(shares):
            self._numbers[self._streams == stream] = np.arange(share)

    def __call__(
        self, turns: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """(k,) turns to the (k,) streams that they belong to and their (k,) numbers in these."""
        rounds, within = np.divmod(turns, self.period)
        streams = self._streams[within]
        return streams, rounds * self._shares[streams] + self._numbers[within]


def _pattern(shares: Sequence[int], period: int) -> list[int]:
    # Turn j of a stream may come when its ceil has grown (release) and must when its floor does.
    waiting = [(0, stream, 0) for stream in range(len(shares))]  # (release, stream, j)
    ready: list[tuple[int, int, int]] = []  # (deadline, stream, j)
    pattern = []
    for turn in range(period):
        while waiting and waiting[0][0] <= turn:
            _, stream, j = heapq.heappop(waiting)
            heapq.heappush(ready, (-(-(j + 1) * period // shares[stream]), stream, j))
        _, stream, j = heapq.heappop(ready)
        pattern.append(stream)
        if j + 1 < shares[stream]:
            heapq.heappush(waiting, ((j + 1) * period // shares[stream], stream, j + 1))
    return pattern


def _fraction(name: str, weight: float | Fraction) -> Fraction:
    if isinstance(weight, bool) or not isinstance(weight, numbers.Real):
        raise InvalidArgumentError(f"{name} must be a number, got {weight!r}")
    if not math.isfinite(weight) or weight <= 0:
        raise InvalidArgumentError(f"{name} must be finite and above 0, got {weight!r}")
    if isinstance(weight, numbers.Rational):
        return Fraction(weight)
    return Fraction(repr(float(weight)))
