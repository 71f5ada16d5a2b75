"""CachePlans: plans over open caches, read by the core; what is remote is fetched first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sparselogits import _core
from sparselogits.errors import (
    CacheIOError,
    FormatError,
    InvalidArgumentError,
    SequenceNotFoundError,
)
from sparselogits.local_shards import LocalShards
from sparselogits.torch.batch_plan import BatchPlan
from sparselogits.torch.read_ahead import Arrays

if TYPE_CHECKING:
    from sparselogits.reader import Cache

_ARRAYS_OF_A_BATCH = 7  # with the two in which it is decoded


class CachePlans:
    """A `PlanSource`. Belongs to one process no more than the caches do.

    Args:
        caches: Open caches.
        pad_token_id: Fills `input_ids` where no token is.
        num_batches: Batches that are in use and in the making at a time: their memory is kept.
        num_threads: Threads that `start` starts.
    """

    def __init__(
        self, caches: Sequence[Cache], pad_token_id: int, num_batches: int, num_threads: int
    ) -> None:
        self._caches = caches
        self._sizes = np.array([len(cache) for cache in caches])
        self._num_threads = num_threads
        self._reader = _core.PieceReader(
            [cache._reader for cache in caches], pad_token_id, _ARRAYS_OF_A_BATCH * num_batches
        )
        self.is_fetched = not all(isinstance(cache._shards, LocalShards) for cache in caches)

    def read(self, plan: BatchPlan) -> Arrays:
        """The arrays of a plan, made in the calling thread."""
        self._check(plan)
        with self._held(plan):
            try:
                return self._reader.read(*plan.columns)
            except (FormatError, CacheIOError):
                arrays = self.read_again(plan)
                if arrays is None:
                    raise
                return arrays

    def start(self) -> _core.Prefetcher:
        return _core.Prefetcher(self._reader, self._num_threads)

    def announce(self, plan: BatchPlan) -> None:
        self._check(plan)
        if self.is_fetched:
            for cache, sequences in self._parts(plan):
                cache.prefetch(sequences)

    def hold(self, plan: BatchPlan, *, wait: bool) -> AbstractContextManager[object] | None:
        if not self.is_fetched:
            return nullcontext()
        with ExitStack() as held:
            for cache, sequences in self._parts(plan):
                part = cache._hold(cache._shards_of(sequences), wait=wait)
                if part is None:
                    return None
                held.enter_context(part)
            return held.pop_all()

    def read_again(self, plan: BatchPlan) -> Arrays | None:
        if not self.is_fetched:
            return None
        for cache, sequences in self._parts(plan):
            for number in cache._shards_of(sequences):
                cache._shards.renew(number)
        # Even where all are sound: another batch may have renewed them since this one failed.
        return self._reader.read(*plan.columns)

    def _held(self, plan: BatchPlan) -> AbstractContextManager[object]:
        held = self.hold(plan, wait=True)
        assert held is not None  # because it waits
        return held

    def _parts(self, plan: BatchPlan) -> Iterator[tuple[Cache, npt.NDArray[np.int64]]]:
        """The sequences of a plan in each of the caches that it uses."""
        for index in np.unique(plan.caches):
            yield self._caches[index], plan.sequences[plan.caches == index]

    def _check(self, plan: BatchPlan) -> None:
        if plan.num_pieces == 0:
            return
        if (highest := plan.caches.max()) >= len(self._caches):
            raise InvalidArgumentError(
                f"a plan asks for cache {highest}, there are {len(self._caches)} caches"
            )
        wrong = plan.sequences >= self._sizes[plan.caches]
        if wrong.any():
            piece = np.argmax(wrong)
            cache = self._caches[plan.caches[piece]]
            raise SequenceNotFoundError(
                f"{cache.path} has {len(cache)} sequences, there is no index "
                f"{plan.sequences[piece]}"
            )
