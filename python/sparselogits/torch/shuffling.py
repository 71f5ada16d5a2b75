"""Shuffling: how the samples of an epoch are ordered, and the seed that chooses the order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sparselogits.checks import boolean, integer
from sparselogits.errors import InvalidArgumentError
from sparselogits.torch.block_shuffle import BlockShuffle
from sparselogits.torch.permutation import Permutation

_MAX_KEY = (1 << 64) - 1
_MAX_BLOCK = 1 << 40

Order: TypeAlias = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]]
"""Maps (k,) places of an epoch to the (k,) samples there."""


@dataclass(frozen=True)
class Shuffling:
    """A family of orders.

    Attributes:
        shuffle: Without it every order is the identity.
        seed: In [0, 2^64).
        block: Neighbouring samples that stay near each other; None shuffles all among all.
        open_blocks: Blocks that are mixed with one another; means nothing without `block`.

    Raises:
        InvalidArgumentError: A value is outside its limits, or blocks are given without `shuffle`.
    """

    shuffle: bool
    seed: int
    block: int | None = None
    open_blocks: int = 8

    def __post_init__(self) -> None:
        boolean("shuffle", self.shuffle)
        object.__setattr__(self, "seed", integer("seed", self.seed, 0, _MAX_KEY))
        integer("open_blocks", self.open_blocks, 1, _MAX_BLOCK)
        if self.block is not None:
            integer("shuffle_block", self.block, 1, _MAX_BLOCK)
            if not self.shuffle:
                raise InvalidArgumentError(
                    f"shuffle_block is {self.block} and shuffle False: there is nothing to shuffle"
                )

    def order(self, n: int, *keys: int) -> Order:
        """The order of n samples that the seed and further keys (the epoch, say) choose."""
        if not self.shuffle or n == 0:
            return _unchanged
        if self.block is None:
            return Permutation(n, (self.seed, *keys))
        return BlockShuffle(n, self.block, self.open_blocks, (self.seed, *keys))

    def setting(self) -> dict[str, Any]:
        """What a training state has to agree with, besides the seed."""
        blocks = {} if self.block is None else {
            "shuffle_block": self.block, "open_blocks": self.open_blocks,
        }  # fmt: skip
        return {"shuffle": self.shuffle, **blocks}


def _unchanged(places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return places
