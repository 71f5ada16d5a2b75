"""A shuffle in two levels: neighbours stay near each other, so that little is read at once.

Blocks of neighbouring elements are shuffled; then the elements of each few blocks that follow one
another are shuffled among themselves. As with `Permutation` nothing is stored and any element is
found at once, and the order that a seed gives is part of what a training state promises.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sparselogits.torch.permutation import Permutation


class BlockShuffle:
    """`shuffle(places)` maps each place of the order to the element there, a bijection of range(n).

    Args:
        n: Number of elements, at least 1.
        block: Neighbouring elements in a block, at least 1. The last block may have fewer.
        open_blocks: Blocks whose elements are mixed with one another, at least 1.
        keys: Integers in [0, 2^64) that choose the order.
    """

    def __init__(self, n: int, block: int, open_blocks: int, keys: tuple[int, ...]) -> None:
        self._block = block
        self._open = open_blocks
        self._keys = keys
        self._num_blocks = -(-n // block)
        self._missing = self._num_blocks * block - n  # elements that the last block lacks
        self._block_order = Permutation(self._num_blocks, (*keys, 0))
        last = np.array([self._num_blocks - 1], np.int64)
        self._short_turn = int(self._block_order.inverse(last)[0])  # of the last block

    def __call__(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """(k,) places in [0, n) to (k,) elements in [0, n)."""
        groups = self._turns(places) // self._open
        mixed = np.empty_like(places)
        for group in np.unique(groups).tolist():
            inside = groups == group
            mixed[inside] = self._mixed_in_group(group, places[inside])
        turns = self._turns(mixed)
        elements: npt.NDArray[np.int64] = self._block_order(turns) * self._block
        elements += mixed - self._starts(turns)
        return elements

    def _mixed_in_group(self, group: int, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The places that those of one group of open blocks are exchanged for."""
        first = group * self._open
        bounds = np.array([first, min(first + self._open, self._num_blocks)], np.int64)
        start, stop = self._starts(bounds).tolist()
        order = Permutation(stop - start, (*self._keys, 1 + group))
        mixed: npt.NDArray[np.int64] = order(places - start) + start
        return mixed

    def _turns(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Whose turn it is at a place: 0 for the block that comes first."""
        short_end = (self._short_turn + 1) * self._block - self._missing
        return (places + np.where(places >= short_end, self._missing, 0)) // self._block

    def _starts(self, turns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The place at which a turn begins."""
        return turns * self._block - np.where(turns > self._short_turn, self._missing, 0)
