"""A keyed pseudo-random permutation of range(n): no table, any element at once.

A balanced Feistel network over the smallest even number of bits that holds n, walked along its
cycle until it lands below n again (Black and Rogaway 2002, "Ciphers with arbitrary finite
domains", section 4). It shuffles; it does not encrypt.

The order that a seed gives is part of what a training state promises: it does not change within a
version of that state.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_ROUNDS = 8
_WORD = (1 << 64) - 1


class Permutation:
    """`permutation(indices)` maps each index to its place, a bijection of range(n).

    Args:
        n: Number of elements, at least 1 and at most 2^62.
        keys: Integers in [0, 2^64) that choose the permutation, for example (seed, epoch).
    """

    def __init__(self, n: int, keys: tuple[int, ...]) -> None:
        self._n = n
        bits = max(2, (n - 1).bit_length())
        self._half = np.uint64((bits + 1) // 2)
        self._low = np.uint64((1 << int(self._half)) - 1)
        state = 0
        for key in keys:
            state = _mix_int(state ^ key)
        self._round_keys = [np.uint64(_mix_int(state + r)) for r in range(1, _ROUNDS + 1)]

    def __call__(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """(k,) indices in [0, n) to (k,) places in [0, n)."""
        places = self._encipher(indices.astype(np.uint64))
        limit = np.uint64(self._n)
        # The domain is less than four times n, so that a walk is short.
        while (outside := places >= limit).any():
            places[outside] = self._encipher(places[outside])
        return places.astype(np.int64)

    def inverse(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """(k,) places in [0, n) to the (k,) indices that have them."""
        indices = self._decipher(places.astype(np.uint64))
        limit = np.uint64(self._n)
        while (outside := indices >= limit).any():
            indices[outside] = self._decipher(indices[outside])
        return indices.astype(np.int64)

    def _encipher(self, values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        left, right = values >> self._half, values & self._low
        for key in self._round_keys:
            left, right = right, left ^ (_mix(right ^ key) & self._low)
        joined: npt.NDArray[np.uint64] = (left << self._half) | right
        return joined

    def _decipher(self, values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        left, right = values >> self._half, values & self._low
        for key in reversed(self._round_keys):
            left, right = right ^ (_mix(left ^ key) & self._low), left
        joined: npt.NDArray[np.uint64] = (left << self._half) | right
        return joined


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: npt.NDArray[np.uint64] = values ^ (values >> np.uint64(31))
    return mixed


def _mix_int(value: int) -> int:
    """The same of one Python integer, after SplitMix64's increment: zero is not a fixed point."""
    value = (value + 0x9E3779B97F4A7C15) & _WORD
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _WORD
    return value ^ (value >> 31)
