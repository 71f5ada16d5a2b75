"""Arrays of batches that threads of the core make ahead of their use."""

from __future__ import annotations

import atexit
import os
import weakref
from collections import deque
from collections.abc import Generator, Iterable
from contextlib import AbstractContextManager
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from sparselogits import _core
from sparselogits.errors import CacheIOError, FormatError
from sparselogits.torch.batch_plan import BatchPlan

Arrays: TypeAlias = tuple[
    npt.NDArray[np.int64],
    npt.NDArray[np.int64],
    npt.NDArray[np.int64],
    npt.NDArray[np.int32],
    npt.NDArray[np.float32],
    npt.NDArray[np.int64],
    npt.NDArray[np.uint64],
    npt.NDArray[np.uint64],
]
"""input_ids, labels, offsets, token_ids, weights; of the pieces: lengths, ids, fingerprints."""

_running: weakref.WeakSet[_core.Prefetcher] = weakref.WeakSet()


class PlanSource(Protocol):
    """What plans are read from."""

    def start(self) -> _core.Prefetcher:
        """Starts threads that make the arrays of plans."""

    def announce(self, plan: BatchPlan) -> None:
        """Raises where there is no such plan; has what it needs fetched, without waiting."""

    def hold(self, plan: BatchPlan, *, wait: bool) -> AbstractContextManager[object] | None:
        """Keeps what a plan needs readable until `__exit__`.

        Without `wait` None, where there is no room before others are through.
        """

    def read_again(self, plan: BatchPlan) -> Arrays | None:
        """The arrays after a failure, or None where it would fail again. The plan is held."""


def read_ahead(
    plans: Iterable[BatchPlan], source: PlanSource, num_batches: int, num_announced: int
) -> Generator[tuple[BatchPlan, Arrays], None, None]:
    """Each plan and its arrays, in order, `num_batches` of them in the making meanwhile.

    What a plan or its arrays raise is raised in their turn. Threads are started by the first `next`
    and joined when the iterator ends, is closed or dropped. In the child of a fork they are started
    anew and go on where the parent was.

    Args:
        plans: Asked for the next one in the thread of the caller.
        source: What they are read from.
        num_batches: At least 1.
        num_announced: Plans that are known ahead, at least `num_batches`.
    """
    unread = iter(plans)
    announced: deque[BatchPlan] = deque()
    coming: deque[tuple[BatchPlan, AbstractContextManager[object]]] = deque()
    failure: Exception | None = None  # of the plan after those that are announced
    is_over = False
    prefetcher: _core.Prefetcher | None = None
    process = None
    try:
        while True:
            if prefetcher is None or process != os.getpid():
                prefetcher, process = source.start(), os.getpid()
                _running.add(prefetcher)
                announced.extendleft(plan for plan, _ in reversed(coming))
                coming.clear()
            while not is_over and len(announced) + len(coming) <= num_announced:
                try:
                    plan = next(unread)
                    source.announce(plan)
                except StopIteration:
                    is_over = True
                except Exception as error:
                    failure, is_over = error, True
                else:
                    announced.append(plan)
            while announced and len(coming) <= num_batches:
                try:
                    # Who waits for room must not be the one who takes it.
                    held = source.hold(announced[0], wait=not coming)
                except Exception as error:
                    failure, is_over = error, True
                    announced.clear()
                    break
                if held is None:
                    break
                coming.append((announced.popleft(), held))
                prefetcher.submit(*coming[-1][0].columns)
            if not coming:
                break
            plan, held = coming.popleft()
            with held:
                pair = plan, _next(prefetcher, source, plan)
            yield pair
            del pair  # or its memory would not be there for the next one
        if failure is not None:
            raise failure
    finally:
        if prefetcher is not None:
            prefetcher.close()
        if process == os.getpid():
            for _, held in coming:
                held.__exit__(None, None, None)


def _next(prefetcher: _core.Prefetcher, source: PlanSource, plan: BatchPlan) -> Arrays:
    try:
        return prefetcher.next()
    except (FormatError, CacheIOError):
        arrays = source.read_again(plan)
        if arrays is None:
            raise
        return arrays


@atexit.register
def _close_all() -> None:
    """Joins the threads of iterators that nobody closed before the interpreter ends."""
    for prefetcher in list(_running):
        prefetcher.close()
