"""Draws that stand for a softmax: `sample` turns dense logits into sparse, unbiased rows."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt

from sparselogits import _core, checks
from sparselogits.errors import InvalidArgumentError
from sparselogits.limits import MAX_ROUNDS, MAX_SAMPLED_POSITION, MAX_VOCAB_SIZE
from sparselogits.sparse import weights_of_counts

if TYPE_CHECKING:
    import torch

SAMPLERS = ("multinomial", "systematic", "stratified")

# Below this many logits a thread costs more than it saves.
_LOGITS_PER_THREAD = 1 << 20

_CORE_DTYPES = (np.dtype(np.float32), np.dtype(np.float16), np.dtype(np.uint16))
_UNIFORM_BITS = 62

Array = TypeVar("Array")
Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Draws(Generic[Array]):
    """Sparse rows in CSR form. Unpacks as `offsets, token_ids, counts` (or `weights`).

    Row r owns the entries `offsets[r]` to `offsets[r + 1]`, token ids ascending and unique.
    All arrays are NumPy or torch (on the device of the logits), as the logits were.

    Attributes:
        offsets: (P + 1,) int64.
        token_ids: (E,) int32.
        counts: (E,) uint16 (int32 for torch), at least 1, summing to `rounds` in each row. None
            where a proposal was used.
        weights: (E,) float32: counts / rounds, or importance weights where a proposal was used.
        rounds: How many draws each row got.
    """

    offsets: Array
    token_ids: Array
    counts: Array | None
    weights: Array
    rounds: int

    def __iter__(self) -> Iterator[Array]:
        yield self.offsets
        yield self.token_ids
        yield self.weights if self.counts is None else self.counts


@dataclass(frozen=True)
class SampleOptions:
    """Checked arguments of `sample`, common to the C++ and the torch path."""

    rounds: int
    sampler: str
    temperature: float  # a float32 value, as is proposal_temperature
    proposal_temperature: float
    seed: int
    offset: int  # in units of 2^-62
    self_normalize: bool
    num_threads: int | None

    @property
    def weighted(self) -> bool:
        return self.proposal_temperature != 1.0


@overload
def sample(
    logits: torch.Tensor,
    rounds: int = ...,
    sampler: str = ...,
    temperature: float = ...,
    proposal_temperature: float = ...,
    seed: int = ...,
    position_keys: Any = ...,
    offset: float = ...,
    self_normalize: bool = ...,
    num_threads: int | None = ...,
) -> Draws[torch.Tensor]: ...


@overload
def sample(
    logits: npt.NDArray[np.floating[Any]],
    rounds: int = ...,
    sampler: str = ...,
    temperature: float = ...,
    proposal_temperature: float = ...,
    seed: int = ...,
    position_keys: Any = ...,
    offset: float = ...,
    self_normalize: bool = ...,
    num_threads: int | None = ...,
) -> Draws[npt.NDArray[Any]]: ...


def sample(
    logits: Any,
    rounds: int = 50,
    sampler: str = "multinomial",
    temperature: float = 1.0,
    proposal_temperature: float = 1.0,
    seed: int = 0,
    position_keys: Any = None,
    offset: float = 0.0,
    self_normalize: bool = False,
    num_threads: int | None = None,
) -> Draws[Any]:
    """Draws tokens from p = softmax(logits / temperature), row by row, without bias.

    E[weights] = p for every sampler, so any loss that is linear in the target has the expectation
    of full distillation (Random Sampling KD, Anshumann et al. 2025, section 4). The draws are a
    function of a row, its key and the seed alone: batch, chunk, order, number of threads and the
    choice between NumPy and torch change nothing (docs/sampling.md; no GPU was tested yet).

    Args:
        logits: (P, V) float32, NumPy or torch on any device; P may be 0; V from 1 to 2^24.
            float16 and bfloat16 are widened exactly, but rounding to them has already moved the
            probabilities of likely tokens by several percent: compute the LM head in float32
            (docs/sampling.md). float64 is rounded to float32 first. -inf marks a token that cannot
            be drawn.
        rounds: Draws per row, N, from 1 to 65535.
        sampler: "multinomial": N independent draws, as in the paper. "systematic": one uniform
            per row and N equally spaced points, counts in {floor(N p), ceil(N p)}: about half the
            draws for the same gradient error. "stratified": one uniform in each of N strata.
        temperature: Divides the logits; positive.
        proposal_temperature: t > 0. Tokens are drawn from q proportional to p^t and get the
            importance weight count / N * p / q (paper, section 4.2). 1.0: q = p, plain counts.
        seed: 0 to 2^64 - 1.
        position_keys: Which randomness each row gets. None: row r has position r of sequence 0.
            (P,) integers: positions of sequence 0. (P, 2) integers: (sequence_id, position) with
            sequence_id below 2^64 and position below 2^48. Rows with equal keys get equal
            uniforms, so give every position its own.
        offset: Of the systematic sampler: added to every row's uniform, modulo 1. Draws with
            offsets 0 and 0.5 and the same seed and keys add up, token by token, to one systematic
            sample of twice the rounds; in general those with offsets m / M, m = 0 ... M - 1. Each
            alone is unbiased. 0 ≤ offset < 1.
        self_normalize: Divides importance weights by their sum in each row. That is BIASED
            (by O(1/N)), though its variance can be lower. Nothing changes without a proposal.
        num_threads: Threads for logits in CPU memory, alive during the call only. None: as many
            as this process may use, fewer for small inputs.

    Returns:
        The draws; see `Draws`.

    Raises:
        InvalidArgumentError: An argument is out of range; logits are not two-dimensional or not
            of a floating-point type; a logit is NaN or +inf, or leaves float32 when scaled;
            a row is all -inf. The message names the row and column.
    """
    options = check_options(
        rounds,
        sampler,
        temperature,
        proposal_temperature,
        seed,
        offset,
        self_normalize,
        num_threads,
    )
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(logits, torch.Tensor):
        from sparselogits.sampling_torch.rows import sample_tensor

        check_logits(tuple(logits.shape), str(logits.dtype).removeprefix("torch."))
        return sample_tensor(logits, check_keys(position_keys, len(logits)), options)
    array = np.asarray(logits)
    check_logits(array.shape, array.dtype.name)
    return sample_array(array, check_keys(position_keys, len(array)), options)


def sample_array(
    logits: npt.NDArray[Any], keys: Keys, options: SampleOptions
) -> Draws[npt.NDArray[Any]]:
    """The C++ path; uint16 stands for the bits of bfloat16.

    Copies only what has another type, gaps within its rows or no alignment.
    """
    rows = logits
    if logits.dtype not in _CORE_DTYPES:
        with np.errstate(over="ignore"):  # beyond float32 lies inf, which the core reports
            rows = logits.astype(np.float32)
    if rows.strides[1] != rows.itemsize or rows.strides[0] % rows.itemsize:
        rows = np.ascontiguousarray(rows)
    offsets, token_ids, counts, weights = _core.sample_rows(
        np.require(rows, requirements="A"),
        keys,
        rounds=options.rounds,
        sampler=options.sampler,
        temperature=options.temperature,
        proposal_temperature=options.proposal_temperature,
        seed=options.seed,
        offset=options.offset,
        self_normalize=options.self_normalize,
        num_threads=options.num_threads or _default_threads(rows.size),
    )
    if weights is None:
        assert counts is not None
        weights = weights_of_counts(counts, options.rounds)
    return Draws(offsets, token_ids, counts, weights, options.rounds)


def _default_threads(num_logits: int) -> int:
    available = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, min(available, num_logits // _LOGITS_PER_THREAD))


def check_options(
    rounds: int,
    sampler: str,
    temperature: float,
    proposal_temperature: float,
    seed: int,
    offset: float,
    self_normalize: bool,
    num_threads: int | None,
) -> SampleOptions:
    return SampleOptions(
        rounds=checks.integer("rounds", rounds, 1, MAX_ROUNDS),
        sampler=checks.choice("sampler", sampler, SAMPLERS),
        temperature=_check_temperature("temperature", temperature),
        proposal_temperature=_check_temperature("proposal_temperature", proposal_temperature),
        seed=checks.integer("seed", seed, 0, (1 << 64) - 1),
        offset=_check_offset(offset, sampler),
        self_normalize=checks.boolean("self_normalize", self_normalize),
        num_threads=(
            None if num_threads is None else checks.integer("num_threads", num_threads, 1, 1024)
        ),
    )


def _check_temperature(name: str, value: Any) -> float:
    """The float32 that logits are scaled by."""
    number = checks.positive_float(name, value)
    with np.errstate(over="ignore", under="ignore"):
        rounded = float(np.float32(number))
    if not (math.isfinite(rounded) and rounded > 0):
        raise InvalidArgumentError(f"{name} must be a float32 above 0, got {number!r}")
    return rounded


def _check_offset(offset: Any, sampler: str) -> int:
    """The offset as the core takes it: a float64 below 1 is a whole number of 2^-62 or rounded."""
    if isinstance(offset, bool) or not isinstance(offset, (int, float)) or not 0 <= offset < 1:
        raise InvalidArgumentError(f"offset must be a number in [0, 1), got {offset!r}")
    if offset and sampler != "systematic":
        raise InvalidArgumentError(
            f"offset is {offset!r}: it is for the systematic sampler alone, not for {sampler!r}"
        )
    return int(offset * 2.0**_UNIFORM_BITS)


def check_logits(shape: tuple[int, ...], dtype: str) -> None:
    if dtype not in ("float32", "float64", "float16", "bfloat16"):
        raise InvalidArgumentError(
            f"logits are {dtype}: they must be float32, float64, float16 or bfloat16"
        )
    if len(shape) != 2:
        raise InvalidArgumentError(f"logits have shape {shape}: it must be (positions, vocabulary)")
    if not 1 <= shape[1] <= MAX_VOCAB_SIZE:
        raise InvalidArgumentError(f"logits have {shape[1]} columns: from 1 to 2^24 can be sampled")


def check_keys(position_keys: Any, num_rows: int) -> Keys:
    """Returns (P, 2) uint64: sequence_id, position."""
    keys = np.zeros((num_rows, 2), np.uint64)
    if position_keys is None:
        keys[:, 1] = np.arange(num_rows, dtype=np.uint64)
        return keys
    if hasattr(position_keys, "detach"):  # a torch tensor, perhaps on a GPU
        position_keys = position_keys.detach().cpu()
    given = np.asarray(position_keys)
    if given.size == 0 and num_rows == 0:
        return keys
    if given.dtype.kind not in "iu":
        raise InvalidArgumentError(f"position_keys are {given.dtype}: they must be integers")
    if given.shape not in ((num_rows,), (num_rows, 2)):
        raise InvalidArgumentError(
            f"position_keys have shape {given.shape}: with {num_rows} rows of logits it must be "
            f"({num_rows},) or ({num_rows}, 2)"
        )
    if given.min() < 0:
        raise InvalidArgumentError(f"position_keys hold {given.min()}: they must not be negative")
    keys[:, 1 if given.ndim == 1 else slice(None)] = given
    largest = int(keys[:, 1].max())
    if largest > MAX_SAMPLED_POSITION:
        raise InvalidArgumentError(f"position_keys hold position {largest}: the limit is 2^48 - 1")
    return keys
