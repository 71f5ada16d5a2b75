"""Where a sampler looks into the mass of a row, in torch: Philox uniforms, scaled to points.

Repeats src/sparselogits/{philox,sample_points}.h in int64, which is all that every device has.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sparselogits.sampling import Keys, SampleOptions

_WORD = 0xFFFFFFFF
_LIMB = (1 << 31) - 1
_UNIFORM_MASK = (1 << 62) - 1


def counter_words(keys: Keys, device: torch.device) -> torch.Tensor:
    """(P, 4) int64: the Philox counter of each key's block 0, one 32-bit word in each int64."""
    sequence_id, position = keys[:, 0], keys[:, 1]
    word, half, bits = np.uint64(_WORD), np.uint64(16), np.uint64(32)
    words = (
        position & word,
        (position >> bits) << half,
        sequence_id & word,
        sequence_id >> bits,
    )
    return _to_device(np.stack(words, axis=1).astype(np.int64), device)


def _to_device(array: np.ndarray[Any, Any], device: torch.device) -> torch.Tensor:
    tensor = torch.from_numpy(array)
    if device.type == "cuda":  # a copy from pageable memory would wait for the device
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def num_uniforms(options: SampleOptions) -> int:
    """How many uniforms a row needs."""
    return 1 if options.sampler == "systematic" else options.rounds


def points(words: torch.Tensor, totals: torch.Tensor, options: SampleOptions) -> torch.Tensor:
    """(rows, rounds) int64 ascending points in [0, total); see PointMaker of sample_points.h.

    Args:
        words: (rows, 4), from `counter_words`.
        totals: (rows, 1) int64, below 2^62.
        options: What to draw.
    """
    uniforms = _uniforms(words, options.seed, num_uniforms(options))
    moved = (uniforms + options.offset) & _UNIFORM_MASK
    return spread(_scale_uniforms(moved, totals), totals, options)


def spread(scaled: torch.Tensor, totals: torch.Tensor, options: SampleOptions) -> torch.Tensor:
    """Points from uniforms that are scaled to [0, total): sorted, or one in each stratum."""
    rounds = options.rounds
    if options.sampler == "multinomial":
        return scaled.sort(1).values
    stratum = torch.arange(rounds, device=totals.device)
    return stratum * (totals // rounds) + (stratum * (totals % rounds) + scaled) // rounds


def _scale_uniforms(uniforms: torch.Tensor, totals: torch.Tensor) -> torch.Tensor:
    """floor(uniforms * totals / 2^62), exactly, in 31-bit limbs: no partial sum reaches 2^63."""
    uniform_high, uniform_low = uniforms >> 31, uniforms & _LIMB
    total_high, total_low = totals >> 31, totals & _LIMB
    middle = uniform_high * total_low + uniform_low * total_high
    return uniform_high * total_high + ((middle + ((uniform_low * total_low) >> 31)) >> 31)


def _uniforms(words: torch.Tensor, seed: int, num_draws: int) -> torch.Tensor:
    """(rows, num_draws) int64 uniforms in [0, 2^62), as PositionUniforms of philox.h."""
    blocks = torch.arange((num_draws + 1) // 2, device=words.device)
    position_low, position_high, sequence_low, sequence_high = words.unsqueeze(2).unbind(1)
    counter = [
        position_low.expand(-1, len(blocks)),
        position_high | blocks,
        sequence_low.expand(-1, len(blocks)),
        sequence_high.expand(-1, len(blocks)),
    ]
    halves = philox4x32(counter, (seed & _WORD, seed >> 32))
    draws = [(high << 30) | (low >> 2) for low, high in (halves[:2], halves[2:])]
    return torch.stack(draws, 2).flatten(1)[:, :num_draws]


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
