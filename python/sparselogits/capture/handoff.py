"""Work handed from the thread that runs the teacher to one that samples and writes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType

Work = Callable[[], None]


class Handoff:
    """Runs work in order, in a thread of its own that lives as long as this context.

    Leaving the context waits for what was handed over, also when an exception or Ctrl-C ends the
    caller's part; no thread is left behind. An error ends the thread: what is still waiting is not
    done, and the error is raised, as the object it is, by the next `put` or on leaving.

    Args:
        depth: How many pieces may be waiting or running before `put` waits; 0: `put` runs them
            itself, and there is no thread.
        thread_state: What the thread enters before it works; torch's modes are a thread's own.
    """

    def __init__(self, depth: int, thread_state: AbstractContextManager[object]) -> None:
        self._depth = depth
        self._state = thread_state
        self._changed = threading.Condition()
        self._waiting: deque[Work] = deque()
        self._unfinished = 0
        self._closing = self._ended = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="sparselogits-capture", daemon=True)

    def put(self, work: Work) -> None:
        """Hands over a piece of work; waits while `depth` pieces are unfinished.

        Raises:
            BaseException: What an earlier piece raised.
        """
        if self._depth == 0:
            work()
            return
        with self._changed:
            self._changed.wait_for(
                lambda: self._unfinished < self._depth or self._error is not None
            )
            if self._error is not None:
                raise self._error
            self._waiting.append(work)
            self._unfinished += 1
            self._changed.notify_all()

    def __enter__(self) -> Handoff:
        if self._depth:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._depth == 0:
            return
        interrupt = None
        # Not `join`: interrupted, it can call a thread dead that runs (Python 3.11).
        while not self._ended:
            try:
                with self._changed:
                    self._closing = True
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._ended)
            except KeyboardInterrupt as again:  # the thread must be gone before anything is closed
                interrupt = again
        self._thread.join()
        failure, self._error = self._error or interrupt, None
        if error is None and failure is not None:
            raise failure

    def _run(self) -> None:
        try:
            with self._state:
                while (work := self._next()) is not None:
                    work()
                    del work  # it holds a chunk of logits
                    with self._changed:
                        self._unfinished -= 1
                        self._changed.notify_all()
        except BaseException as error:
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _next(self) -> Work | None:
        """The next piece; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            return self._waiting.popleft() if self._waiting else None
