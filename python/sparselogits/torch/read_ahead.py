"""Arrays of batches that threads of the core make ahead of their use."""

from __future__ import annotations

import atexit
import os
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from sparselogits import _core
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


def read_ahead(
    plans: Iterable[BatchPlan],
    start: Callable[[], _core.Prefetcher],
    check: Callable[[BatchPlan], None],
    num_batches: int,
) -> Generator[tuple[BatchPlan, Arrays], None, None]:
    """Each plan and its arrays, in order, `num_batches` of them in the making meanwhile.

    What a plan or its arrays raise is raised in their turn. Threads are started by the first `next`
    and joined when the iterator ends, is closed or dropped. In the child of a fork they are started
    anew and go on where the parent was.

    Args:
        plans: Asked for the next one in the thread of the caller.
        start: Starts the threads.
        check: Raises where there is no such plan.
        num_batches: At least 1.
    """
    source = iter(plans)
    coming: deque[BatchPlan] = deque()
    failure: Exception | None = None
    is_over = False
    prefetcher: _core.Prefetcher | None = None
    process = None
    try:
        while True:
            if prefetcher is None or process != os.getpid():
                prefetcher, process = start(), os.getpid()
                _running.add(prefetcher)
                for plan in coming:
                    prefetcher.submit(*plan.columns)
            while not is_over and len(coming) <= num_batches:
                try:
                    plan = next(source)
                    check(plan)
                except StopIteration:
                    is_over = True
                except Exception as error:
                    failure, is_over = error, True
                else:
                    prefetcher.submit(*plan.columns)
                    coming.append(plan)
            if not coming:
                break
            yield coming.popleft(), prefetcher.next()
        if failure is not None:
            raise failure
    finally:
        if prefetcher is not None:
            prefetcher.close()


@atexit.register
def _close_all() -> None:
    """Joins the threads of iterators that nobody closed before the interpreter ends."""
    for prefetcher in list(_running):
        prefetcher.close()
