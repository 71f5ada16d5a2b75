"""`suggest_rounds`: how many draws a wanted gradient error takes, from a few thousand rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sparselogits.checks import choice, integer, positive_float
from sparselogits.errors import InvalidArgumentError
from sparselogits.limits import MAX_ROUNDS
from sparselogits.sampling import SAMPLERS
from sparselogits.sampling_error import sampling_error

Floats = npt.NDArray[np.float64]

# Probabilities that are worked on at once: some tens of MiB with what is made of them.
_VALUES_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class RoundsCurve:
    """What each number of rounds would give, ascending. All arrays are (G,).

    Attributes:
        rounds: int64.
        error: Mean over the rows of Σ_i Var(w_i).
        standard_error: Of that mean.
        unique_ids: Expected entries per position.
    """

    rounds: npt.NDArray[np.int64]
    error: Floats
    standard_error: Floats
    unique_ids: Floats


@dataclass(frozen=True)
class RoundsSuggestion:
    """The least number of rounds on the curve that keeps the error wanted.

    Attributes:
        rounds: For `CacheConfig(rounds=...)`, `sample` and `capture`.
        sampler: What it was chosen for.
        error: Predicted mean over positions of Σ_i Var(w_i), the squared error that sampling adds
            to the gradient of the logits.
        standard_error: Of `error`, over the rows given, taken as independent.
        unique_ids: Expected entries per position.
        wanted_error: What `error` had to stay within.
        positions: Number of rows.
        curve: The same figures for other numbers of rounds.
    """

    rounds: int
    sampler: str
    error: float
    standard_error: float
    unique_ids: float
    wanted_error: float
    positions: int
    curve: RoundsCurve = field(repr=False)


def suggest_rounds(
    logits_rows: Any,
    *,
    sampler: str = "systematic",
    error: float | None = None,
    match: tuple[str, int] | None = None,
    temperature: float = 1.0,
    max_rounds: int = 512,
) -> RoundsSuggestion:
    """The rounds that a wanted gradient error takes with a sampler. Nothing is drawn: closed forms.

    The error of one position is Σ_i Var(w_i) (see `sparselogits.sampling_error`); that of a batch
    of B positions is 1/B of it. A few thousand rows of the teacher give it within a percent or so.

    Args:
        logits_rows: (P, V) float32 or float64, a memory map too; or an iterable of such chunks,
            of which one is held at a time. At least two rows in all. -inf is legal.
        sampler: "multinomial", "systematic" or "stratified".
        error: The mean Σ_i Var(w_i) that is wanted at most.
        match: Instead of `error`: a sampler and its rounds, whose error on these rows is wanted.
            Default: ("multinomial", 50), the paper's.
        temperature: Divides the logits.
        max_rounds: Longest curve, 1 to 65,535. It has every number to 64 and then steps of 3 %.

    Raises:
        InvalidArgumentError: An argument is wrong; a logit is NaN or +inf, or a row all -inf
            (names the row, counted over all chunks); even `max_rounds` do not reach the error.
    """
    choice("sampler", sampler, SAMPLERS)
    temperature = positive_float("temperature", temperature)
    grid = _grid(integer("max_rounds", max_rounds, 1, MAX_ROUNDS))
    if error is not None and match is not None:
        raise InvalidArgumentError(f"give error or match, not both: got {error!r} and {match!r}")
    wanted = None if error is None else positive_float("error", error)
    reference = _checked_match(match) if error is None else None

    sums = np.zeros((3, len(grid)))  # of the errors, their squares, the ids
    of_reference = 0.0
    positions = 0
    for p in _probabilities(logits_rows, temperature):
        of_rows = sampling_error(p, grid, sampler)
        sums[0] += of_rows.squared_error.sum(axis=0)
        sums[1] += (of_rows.squared_error**2).sum(axis=0)
        sums[2] += of_rows.unique_ids.sum(axis=0)
        if reference is not None:
            at = sampling_error(p, np.array([reference[1]], np.int64), reference[0])
            of_reference += float(at.squared_error.sum())
        positions += len(p)
    if positions < 2:
        raise InvalidArgumentError(f"logits_rows must be at least 2 rows, got {positions}")
    mean = sums[0] / positions
    spread = np.maximum(sums[1] / positions - mean**2, 0)
    curve = RoundsCurve(grid, mean, np.sqrt(spread / (positions - 1)), sums[2] / positions)
    if wanted is None:
        wanted = of_reference / positions
    reached = np.flatnonzero(mean <= wanted * (1 + 1e-9))  # a sampler matches itself
    if not len(reached):
        raise InvalidArgumentError(
            f"{sampler} errs by {mean.min():.3g} at its best of up to {grid[-1]} rounds, above "
            f"the wanted {wanted:.3g}: raise max_rounds (to at most {MAX_ROUNDS}) or the error"
        )
    least = int(reached[0])
    return RoundsSuggestion(
        rounds=int(grid[least]),
        sampler=sampler,
        error=float(mean[least]),
        standard_error=float(curve.standard_error[least]),
        unique_ids=float(curve.unique_ids[least]),
        wanted_error=float(wanted),
        positions=positions,
        curve=curve,
    )


def _grid(most: int) -> npt.NDArray[np.int64]:
    steps = np.rint(64 * (1 + 1 / 32) ** np.arange(1, 230)).astype(np.int64)
    grid = np.concatenate([np.arange(1, 65), steps, [most]])
    unique: npt.NDArray[np.int64] = np.unique(grid[grid <= most])
    return unique


def _checked_match(match: tuple[str, int] | None) -> tuple[str, int]:
    if match is None:
        return "multinomial", 50
    if not isinstance(match, tuple) or len(match) != 2:
        raise InvalidArgumentError(f"match must be (sampler, rounds), got {match!r}")
    return choice("match[0]", match[0], SAMPLERS), integer("match[1]", match[1], 1, MAX_ROUNDS)


def _probabilities(logits_rows: Any, temperature: float) -> Iterator[Floats]:
    """Float64 softmax of all rows, some at a time."""
    first_row, width = 0, None
    for chunk in _chunks(logits_rows):
        if width not in (None, chunk.shape[1]):
            raise InvalidArgumentError(
                f"logits_rows have {width} columns and then {chunk.shape[1]}: "
                "all chunks are rows of one teacher"
            )
        width = chunk.shape[1]
        step = max(1, _VALUES_AT_ONCE // width)
        for start in range(0, len(chunk), step):
            yield _softmax(chunk[start : start + step], temperature, first_row + start)
        first_row += len(chunk)


def _chunks(logits_rows: Any) -> Iterator[npt.NDArray[Any]]:
    is_array = hasattr(logits_rows, "__array__")
    if not is_array and not isinstance(logits_rows, Iterable):
        kind = type(logits_rows).__name__
        raise InvalidArgumentError(f"logits_rows must be an array or chunks of one, got {kind}")
    for chunk in [logits_rows] if is_array else logits_rows:
        try:
            array = np.asarray(chunk)
        except (TypeError, ValueError, RuntimeError) as error:  # on a GPU, bfloat16, ragged lists
            raise InvalidArgumentError(
                f"logits_rows are no array in host memory: {error}; try .detach().float().cpu()"
            ) from error
        if array.ndim != 2 or array.shape[1] < 1:
            raise InvalidArgumentError(
                f"logits_rows have shape {array.shape}: it must be (positions, vocabulary)"
            )
        if array.dtype not in (np.float32, np.float64):
            raise InvalidArgumentError(
                f"logits_rows are {array.dtype}: they must be float32 or float64"
            )
        yield array


def _softmax(logits: npt.NDArray[Any], temperature: float, first_row: int) -> Floats:
    scaled = logits.astype(np.float64) / temperature
    highest = scaled.max(axis=1)
    wrong = np.flatnonzero(~np.isfinite(highest))  # NaN and +inf show in the maximum too
    if len(wrong):
        value = float(highest[wrong[0]])
        said = "is all -inf" if value < 0 else f"holds {value}"
        raise InvalidArgumentError(f"row {first_row + wrong[0]} of logits_rows {said}")
    scaled -= highest[:, None]
    p: Floats = np.exp(scaled, out=scaled)
    p /= p.sum(axis=1, keepdims=True)
    return p
