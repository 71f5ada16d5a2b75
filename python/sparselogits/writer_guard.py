"""Whether a writer may still be used: it is open, nothing failed, and the process is its own."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Iterator

from sparselogits.errors import CacheIOError, InvalidArgumentError


class WriterGuard:
    """The state of one writer, shut until it is opened. Whoever looks at it holds its mutex.

    Args:
        path: Of the writer's cache, for errors.

    Attributes:
        mutex: One call at a time; a call may make another.
        is_shut: Nothing may be done any more.
        has_failed: A call did not end well.
        is_broken: By more than an interrupt, which comes between two calls of the core: that is
            as sound as before.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._failure: str | None = None
        self._is_inherited = False
        self.mutex = threading.RLock()
        self.is_shut = True
        self.is_broken = False
        _guards.add(self)

    @property
    def has_failed(self) -> bool:
        return self._failure is not None

    def check_usable(self) -> None:
        """Refuses the use of a writer that is closed, failed, or a parent process's.

        Raises:
            InvalidArgumentError, CacheIOError: It is; says which and what to do.
        """
        if self._is_inherited:
            raise InvalidArgumentError(
                f"the writer of {self._path} belongs to the parent process: a forked child cannot "
                "write with it"
            )
        if self.is_shut:
            raise InvalidArgumentError(f"the writer of {self._path} is closed")
        if self._failure is not None:
            raise CacheIOError(
                f"the writer of {self._path} failed and takes nothing more; sl.recover(path) "
                f"restores what was committed. The failure was: {self._failure}"
            )

    @contextlib.contextmanager
    def failing(self) -> Iterator[None]:
        """What goes wrong inside, other than bad arguments, ends the writer's work."""
        try:
            yield
        except InvalidArgumentError:
            raise
        except BaseException as error:
            self._failure = str(error) or type(error).__name__
            self.is_broken = isinstance(error, Exception)
            raise

    def disown(self) -> None:
        """In a forked child: the core has closed its copies of the descriptors already."""
        self.mutex = threading.RLock()  # another thread may have held the parent's
        self._is_inherited = self._is_inherited or not self.is_shut  # by a grandchild too
        self.is_shut = True


_guards: weakref.WeakSet[WriterGuard] = weakref.WeakSet()


def _disown_all() -> None:
    for guard in list(_guards):
        guard.disown()


os.register_at_fork(after_in_child=_disown_all)
