"""Streams in turns: each has its share, rounded down or up, at every moment."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparselogits.errors import InvalidArgumentError
from sparselogits.torch.interleave import MAX_PERIOD, Interleave, shares_of


@given(shares=st.lists(st.integers(1, 60), min_size=1, max_size=9), start=st.integers(0, 10**12))
@settings(max_examples=100, deadline=None)
def test_every_stream_has_floor_or_ceil_of_its_share(shares: list[int], start: int) -> None:
    interleave = Interleave(shares)
    total = sum(shares)
    turns = np.arange(2 * total + 3)
    streams, numbers = interleave(turns)
    for stream, share in enumerate(shares):
        had = np.cumsum(streams == stream)
        exact = (turns + 1) * share
        assert (had >= exact // total).all()
        assert (had <= -(-exact // total)).all()
        assert numbers[streams == stream].tolist() == list(range(had[-1]))
    later_streams, later = interleave(turns + start * total)
    assert later_streams.tolist() == streams.tolist()
    assert (later - numbers == start * np.array(shares)[streams]).all()


def test_the_pattern_of_shares_never_changes() -> None:
    """Saved training states depend on it."""
    assert Interleave([5, 3, 1])(np.arange(9))[0].tolist() == [0, 1, 0, 0, 1, 0, 1, 0, 2]


@pytest.mark.parametrize(
    "weights, shares",
    [
        ([0.7, 0.2, 0.1], (7, 2, 1)),
        ([2, 4], (1, 2)),
        ([1.5], (1,)),
        ([0.125, 0.25], (1, 2)),
        ([Fraction(1, 3), Fraction(2, 3)], (1, 2)),
        ([np.float32(0.5), np.int64(1)], (1, 2)),
    ],
)
def test_weights_are_the_numbers_that_they_print_as(
    weights: list[float], shares: tuple[int, ...]
) -> None:
    assert shares_of(weights) == shares


@given(weights=st.lists(st.floats(0.1, 100.0), min_size=2, max_size=6))
def test_long_numbers_are_rounded_to_parts_of_the_longest_period(weights: list[float]) -> None:
    shares = shares_of(weights)
    assert math.gcd(*shares) == 1 or sum(shares) == MAX_PERIOD
    assert sum(shares) <= MAX_PERIOD
    for share, weight in zip(shares, weights, strict=True):
        assert abs(share / sum(shares) - weight / sum(weights)) <= 1.001 / MAX_PERIOD


def test_the_longest_period_keeps_the_shares() -> None:
    shares = shares_of([math.pi, math.e, math.sqrt(2)])
    interleave = Interleave(shares)
    assert interleave.period == MAX_PERIOD
    streams, _ = interleave(np.arange(MAX_PERIOD))
    for stream, share in enumerate(shares):
        had = np.cumsum(streams == stream)
        exact = np.arange(1, MAX_PERIOD + 1) * share
        assert (had >= exact // MAX_PERIOD).all()
        assert (had <= -(-exact // MAX_PERIOD)).all()


@pytest.mark.parametrize(
    "weights, message",
    [
        ([1, 0], r"mixture_weights\[1\] must be finite and above 0, got 0"),
        ([-1.0, 2], r"mixture_weights\[0\] must be finite and above 0"),
        ([1, math.nan], "must be finite"),
        ([1, math.inf], "must be finite"),
        ([True, 1], "must be a number, got True"),
        (["1", 1], "must be a number, got '1'"),
        ([1, 1e-9], r"mixture_weights\[1\] is 1e-09, .* of 65536 parts"),
    ],
)
def test_weights_that_make_no_sense_are_refused(weights: list[float], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        shares_of(weights)
