"""`sample` for torch tensors: C++ for CPU memory, and the same draws in pure torch elsewhere.

The pure path repeats src/sparselogits/{philox,exp_mass,sample_points}.h operation by operation:
elementwise float32 steps that are each rounded on their own, then integers. Never hand it to
torch.compile: a fused multiply-add would change draws.
"""

from __future__ import annotations

import math
from typing import Any, NoReturn

import numpy as np
import torch

from sparselogits.errors import InvalidArgumentError
from sparselogits.sampling import Draws, Keys, SampleOptions, sample_array

_LOGITS_PER_CHUNK = 1 << 22  # bounds temporaries to about 200 MB
_WORD = 0xFFFFFFFF
_LIMB = (1 << 31) - 1

_FLOOR = -43.5
_LOG2E = float.fromhex("0x1.715476p+0")
_LN2_HIGH = float.fromhex("0x1.62e4p-1")
_LN2_LOW = float.fromhex("0x1.7f7d1cp-20")
_POLYNOMIAL = tuple(  # highest power first; all exact in float32
    float.fromhex(coefficient) * 2.0**30
    for coefficient in (
        "0x1.6a4ce4p-10",
        "0x1.123988p-7",
        "0x1.5558b0p-5",
        "0x1.555492p-3",
        "0x1.fffffcp-2",
        "0x1p+0",
    )
)


def sample_tensor(logits: torch.Tensor, keys: Keys, options: SampleOptions) -> Draws[torch.Tensor]:
    """Draws on the device of the logits; no gradient flows through them."""
    if logits.device.type != "cpu":
        return sample_with_torch(logits, keys, options)
    draws = sample_array(_as_array(logits.detach()), keys, options)
    return Draws(
        offsets=torch.from_numpy(draws.offsets),
        token_ids=torch.from_numpy(draws.token_ids),
        counts=None if draws.counts is None else torch.from_numpy(draws.counts.astype(np.int32)),
        weights=torch.from_numpy(draws.weights),
        rounds=draws.rounds,
    )


def _as_array(logits: torch.Tensor) -> np.ndarray[Any, Any]:
    if logits.dtype == torch.bfloat16:  # NumPy has no such type: the core takes its bits
        return logits.view(torch.uint16).numpy()
    return logits.numpy()


@torch.no_grad()
def sample_with_torch(
    logits: torch.Tensor, keys: Keys, options: SampleOptions
) -> Draws[torch.Tensor]:
    """The pure torch path, for any device that has int64 and float64."""
    device = logits.device
    num_rows, vocabulary = logits.shape
    chunk = max(1, _LOGITS_PER_CHUNK // max(vocabulary, options.rounds))
    counter_words = torch.from_numpy(_counter_words(keys)).to(device)
    parts = [
        _sample_chunk(
            logits[start : start + chunk].detach().to(torch.float32),
            counter_words[start : start + chunk],
            options,
            start,
        )
        for start in range(0, num_rows, chunk)
    ]
    offsets = torch.zeros(num_rows + 1, dtype=torch.int64, device=device)
    if not parts:
        empty = torch.zeros(0, dtype=torch.int32, device=device)
        return Draws(
            offsets, empty, None if options.weighted else empty, empty.float(), options.rounds
        )
    entries, token_ids, counts, weights = (torch.cat(part) for part in zip(*parts, strict=True))
    torch.cumsum(entries, 0, out=offsets[1:])
    return Draws(offsets, token_ids, None if options.weighted else counts, weights, options.rounds)


def _sample_chunk(
    logits: torch.Tensor, counter_words: torch.Tensor, options: SampleOptions, first_row: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns entries per row, token ids, counts and weights of a few rows."""
    # A divisor in a tensor: by a Python scalar, CUDA would multiply with the rounded reciprocal.
    temperature = torch.full((1,), options.temperature, device=logits.device)
    target = logits / temperature
    proposal = target * options.proposal_temperature
    target_max = target.amax(1, keepdim=True)
    proposal_max = proposal.amax(1, keepdim=True)
    if not bool(torch.isfinite(target_max).logical_and_(torch.isfinite(proposal_max)).all()):
        _refuse(logits, target_max, proposal_max, options, first_row)

    mass_bits = 61 - (logits.shape[1] - 1).bit_length()
    masses = _exp_masses(proposal, proposal_max, mass_bits)
    if options.weighted:
        target_masses = _exp_masses(target, target_max, mass_bits)
        masses = torch.maximum(masses, target_masses.clamp(max=1))
    cumulative = masses.cumsum(1)
    totals = cumulative[:, -1:]
    points = _points(counter_words, totals, options)
    drawn = torch.searchsorted(cumulative, points, right=True)

    first = torch.ones_like(drawn, dtype=torch.bool)
    first[:, 1:] = drawn[:, 1:] != drawn[:, :-1]
    starts = first.flatten().nonzero().squeeze(1)
    ids = drawn.flatten()[starts]
    counts = torch.diff(starts, append=starts.new_full((1,), drawn.numel()))
    if options.weighted:
        rows = starts // options.rounds
        difference = target[rows, ids].double() - target_max[rows, 0].double()
        mass = masses[rows, ids].double()
        if options.self_normalize:
            weights = _normalized(difference - mass.log(), counts, rows, len(logits))
        else:
            normaliser = target_masses.sum(1)[rows].double() * 2.0**-mass_bits
            ratio = (difference.exp() / normaliser) / (mass / totals[rows, 0].double())
            weights = counts * ratio / options.rounds
    else:
        weights = counts.float() / torch.full((1,), float(options.rounds), device=logits.device)
    return first.sum(1), ids.to(torch.int32), counts.to(torch.int32), weights.float()


def _exp_masses(logits: torch.Tensor, row_max: torch.Tensor, mass_bits: int) -> torch.Tensor:
    """(rows, V) int64: e^(logits - row_max) * 2^mass_bits, as ExpMass of exp_mass.h."""
    difference = (logits - row_max).clamp_(min=_FLOOR)
    exponent = (difference * _LOG2E).round_()
    rest = difference.sub_(exponent * _LN2_HIGH).sub_(exponent * _LN2_LOW)
    polynomial = torch.full_like(rest, _POLYNOMIAL[0])
    for coefficient in _POLYNOMIAL[1:]:
        polynomial.mul_(rest).add_(coefficient)
    mantissa = polynomial.mul_(rest).to(torch.int32).to(torch.int64).add_(1 << 30)
    shifts = exponent.neg_().to(torch.int64)
    halves = mantissa.bitwise_left_shift_(mass_bits - 29).bitwise_right_shift_(shifts)
    return halves.add_(1).bitwise_right_shift_(1)


def _points(
    counter_words: torch.Tensor, totals: torch.Tensor, options: SampleOptions
) -> torch.Tensor:
    """(rows, rounds) int64 ascending points in [0, total), as FillPoints of sample_points.h."""
    rounds = options.rounds
    num_draws = 1 if options.sampler == "systematic" else rounds
    points = _scale_uniforms(_uniforms(counter_words, options.seed, num_draws), totals)
    if options.sampler == "multinomial":
        return points.sort(1).values
    stratum = torch.arange(rounds, device=totals.device)
    return stratum * (totals // rounds) + (stratum * (totals % rounds) + points) // rounds


def _scale_uniforms(uniforms: torch.Tensor, totals: torch.Tensor) -> torch.Tensor:
    """floor(uniforms * totals / 2^62), exactly, in 31-bit limbs: no partial sum reaches 2^63."""
    uniform_high, uniform_low = uniforms >> 31, uniforms & _LIMB
    total_high, total_low = totals >> 31, totals & _LIMB
    middle = uniform_high * total_low + uniform_low * total_high
    return uniform_high * total_high + ((middle + ((uniform_low * total_low) >> 31)) >> 31)


def _uniforms(counter_words: torch.Tensor, seed: int, num_draws: int) -> torch.Tensor:
    """(rows, num_draws) int64 uniforms in [0, 2^62), as PositionUniforms of philox.h."""
    blocks = torch.arange((num_draws + 1) // 2, device=counter_words.device)
    position_low, position_high, sequence_low, sequence_high = counter_words.unsqueeze(2).unbind(1)
    counter = [
        position_low.expand(-1, len(blocks)),
        position_high | blocks,
        sequence_low.expand(-1, len(blocks)),
        sequence_high.expand(-1, len(blocks)),
    ]
    words = philox4x32(counter, (seed & _WORD, seed >> 32))
    halves = [(high << 30) | (low >> 2) for low, high in (words[:2], words[2:])]
    return torch.stack(halves, 2).flatten(1)[:, :num_draws]


def philox4x32(counter: list[torch.Tensor], key: tuple[int, int]) -> list[torch.Tensor]:
    """Philox4x32-10 on int64 tensors that hold 32-bit words; see philox.h."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = _multiply_words(0xD2511F53, c0)
        high1, low1 = _multiply_words(0xCD9E8D57, c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & _WORD, (k1 + 0xBB67AE85) & _WORD
    return [c0, c1, c2, c3]


def _multiply_words(factor: int, words: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """High and low words of 32 x 32-bit products, which int64 itself cannot hold."""
    low = words * (factor & 0xFFFF)
    high = words * (factor >> 16)
    return (high + (low >> 16)) >> 16, (((high & 0xFFFF) << 16) + low) & _WORD


def _counter_words(keys: Keys) -> np.ndarray[Any, np.dtype[np.int64]]:
    """(P, 4): the counter of block 0, one 32-bit word in each int64."""
    sequence_id, position = keys[:, 0], keys[:, 1]
    word, half, bits = np.uint64(_WORD), np.uint64(16), np.uint64(32)
    words = (
        position & word,
        (position >> bits) << half,
        sequence_id & word,
        sequence_id >> bits,
    )
    return np.stack(words, axis=1).astype(np.int64)


def _normalized(
    log_ratio: torch.Tensor, counts: torch.Tensor, rows: torch.Tensor, num_rows: int
) -> torch.Tensor:
    """counts * e^log_ratio, divided by the sum over the row."""
    largest = log_ratio.new_full((num_rows,), -math.inf)
    largest.scatter_reduce_(0, rows, log_ratio, "amax")
    weights = counts * (log_ratio - largest[rows]).exp()
    sums = torch.zeros_like(largest).scatter_add_(0, rows, weights)
    return weights / sums[rows]


def _refuse(
    logits: torch.Tensor,
    target_max: torch.Tensor,
    proposal_max: torch.Tensor,
    options: SampleOptions,
    first_row: int,
) -> NoReturn:
    """Raises for the first row that cannot be sampled, in the words of sampled_row.cc."""
    fine = torch.isfinite(target_max[:, 0]) & torch.isfinite(proposal_max[:, 0])
    index = int((~fine).nonzero()[0, 0])
    row = logits[index].cpu()
    bad = (~(row < math.inf)).nonzero()
    if len(bad):
        column = int(bad[0, 0])
        raise InvalidArgumentError(
            f"logits[{first_row + index}, {column}] is {float(row[column]):.9g}: "
            "logits must not be NaN or +inf"
        )
    column = int((row == row.max()).nonzero()[0, 0])
    if math.isinf(row[column]):
        raise InvalidArgumentError(
            f"logits row {first_row + index} is all -inf: there is no token to draw"
        )
    raise InvalidArgumentError(
        f"logits[{first_row + index}, {column}] = {float(row[column]):.9g} leaves float32 at "
        f"temperature {options.temperature:.9g} and "
        f"proposal_temperature {options.proposal_temperature:.9g}"
    )
