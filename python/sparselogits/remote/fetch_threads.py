"""`FetchThreads`: a few threads that live only while there is something to fetch."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future


class FetchJob:
    """One shard to fetch.

    Args:
        work: Gets this job; what it raises, `result` raises.
        needed: Somebody waits for it.
    """

    def __init__(self, work: Callable[[FetchJob], None], needed: bool) -> None:
        self.needed = needed
        self.started = False
        self._work = work
        self._done: Future[None] = Future()

    def run(self) -> None:
        try:
            self._work(self)
        except BaseException as error:
            self._done.set_exception(error)
        else:
            self._done.set_result(None)

    def result(self) -> None:
        """Waits for the end. Raises what the work has raised."""
        self._done.result()


class FetchThreads:
    """Does jobs, those that are needed first, each group in its order.

    The threads are daemons and end when there is nothing left: nothing has to be closed, and the
    interpreter can end while something is fetched. Not to be used after a fork.

    Args:
        limit: How many jobs are done at a time.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._needed: deque[FetchJob] = deque()
        self._ahead: deque[FetchJob] = deque()
        self._running = 0

    def put(self, job: FetchJob) -> None:
        """Adds a job."""
        with self._lock:
            (self._needed if job.needed else self._ahead).append(job)
            if self._running < self._limit:
                threading.Thread(target=self._run, name="sparselogits-fetch", daemon=True).start()
                self._running += 1

    def need(self, job: FetchJob) -> None:
        """Puts a job that has not begun before those that nobody waits for."""
        with self._lock:
            job.needed = True
            if not job.started:
                self._needed.append(job)

    def _run(self) -> None:
        while (job := self._next()) is not None:
            job.run()
            del job  # what it holds on to may go while this thread waits for the lock

    def _next(self) -> FetchJob | None:
        with self._lock:
            for queue in (self._needed, self._ahead):
                while queue:
                    job = queue.popleft()
                    if not job.started:
                        job.started = True
                        return job
            self._running -= 1
            return None
