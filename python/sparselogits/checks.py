"""Checks of single arguments that name the field, the value and the limit."""

from __future__ import annotations

import math
import numbers
from typing import Any

from sparselogits.errors import InvalidArgumentError


def integer(name: str, value: Any, low: int, high: int) -> int:
    """An int in low … high; NumPy integers too, bool and float never."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise InvalidArgumentError(f"{name} must be an integer, got {value!r}")
    number = int(value)
    if not low <= number <= high:
        raise InvalidArgumentError(f"{name} must be from {low} to {high}, got {number}")
    return number


def positive_float(name: str, value: Any) -> float:
    """A finite float above 0; integers too, bool never."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InvalidArgumentError(f"{name} must be a number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:  # an integer that no double can hold
        number = math.inf
    if not math.isfinite(number) or number <= 0:
        raise InvalidArgumentError(f"{name} must be finite and above 0, got {number!r}")
    return number


def boolean(name: str, value: Any) -> bool:
    """True or False, nothing that is merely true."""
    if not isinstance(value, bool):
        raise InvalidArgumentError(f"{name} must be True or False, got {value!r}")
    return value


def choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """One of the given words."""
    if not isinstance(value, str) or value not in choices:
        known = ", ".join(repr(word) for word in choices)
        raise InvalidArgumentError(f"{name} must be one of {known}, got {value!r}")
    return value
