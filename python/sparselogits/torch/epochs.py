"""Epochs: which sample of which cache has which place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from sparselogits.errors import InvalidArgumentError
from sparselogits.torch.interleave import Interleave
from sparselogits.torch.shuffling import Shuffling

Draw: TypeAlias = Callable[
    [npt.NDArray[np.int64]], tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]
]
"""Maps (k,) places of an epoch to the (k,) caches and their (k,) samples there."""


class Epochs(Protocol):
    """A series of epochs, each an order of `num_samples` samples."""

    @property
    def num_samples(self) -> int: ...

    def draw(self, epoch: int) -> Draw: ...


class Union:
    """An epoch has every sample of every cache once.

    Without shuffling these come in the order of the caches.

    Args:
        sizes: Samples of each cache.
        shuffling: Of all samples together; keyed by the epoch.
    """

    def __init__(self, sizes: Sequence[int], shuffling: Shuffling) -> None:
        self._bounds = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self._shuffling = shuffling
        self.num_samples = int(self._bounds[-1])

    def draw(self, epoch: int) -> Draw:
        order = self._shuffling.order(self.num_samples, epoch)
        return lambda places: self.locate(order(places))

    def locate(
        self, samples: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """(k,) samples counted through all caches to their (k,) caches and numbers in these."""
        caches = np.searchsorted(self._bounds, samples, side="right") - 1
        return caches.astype(np.int32), samples - self._bounds[caches]


class Mixture:
    """Caches take turns by their shares; each is gone through again and again.

    All epochs are one endless series of turns, cut every `num_samples`, the number of samples of
    all caches. Pass p of a cache has every sample of it once, in an order keyed by (p, cache), and
    begins where pass p - 1 ends, in the middle of an epoch if need be.

    Args:
        sizes: Samples of each cache, at least 1.
        shares: Whole numbers above 0: the parts of all turns that each cache has.
        shuffling: Of each pass of each cache.
    """

    def __init__(self, sizes: Sequence[int], shares: Sequence[int], shuffling: Shuffling) -> None:
        self._sizes = np.array(sizes, np.int64)
        self._interleave = Interleave(shares)
        self._shuffling = shuffling
        self.num_samples = sum(sizes)

    def draw(self, epoch: int) -> Draw:
        first = epoch * self.num_samples
        if first + self.num_samples > np.iinfo(np.int64).max:
            raise InvalidArgumentError(
                f"epoch {epoch} of {self.num_samples} samples lies beyond 2^63 samples"
            )

        def drawn(
            places: npt.NDArray[np.int64],
        ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
            caches, numbers = self._interleave(first + places)
            passes, within = np.divmod(numbers, self._sizes[caches])
            samples = np.empty_like(within)
            for cache, number in np.unique(np.stack([caches, passes]), axis=1).T.tolist():
                rows = (caches == cache) & (passes == number)
                order = self._shuffling.order(int(self._sizes[cache]), number, cache)
                samples[rows] = order(within[rows])
            return caches, samples

        return drawn
