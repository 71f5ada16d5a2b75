"""`FileLock`: who may work on a unit, or finish a capture, among processes of any machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import weakref
from pathlib import Path

from sparselogits.durable import io_error


class FileLock:
    """An flock on a file of its own. A context manager, which lets go of it.

    The system drops it when the process ends, however it ends. The file is writable, because NFS
    locks no other, and stays. A forked child has no part in the lock.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor
        _locks.add(self)

    @staticmethod
    def acquire(path: Path, *, wait: bool = False) -> FileLock | None:
        """Takes the lock; None where somebody else has it, unless one waits for it.

        Raises:
            CacheIOError: The file cannot be made, or the file system cannot lock it.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise io_error(error, "cannot open the lock", path) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            os.close(descriptor)
            raise io_error(error, "cannot lock", path) from error
        return FileLock(descriptor)

    def release(self) -> None:
        """Lets others in. Idempotent."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            # At once, even where a child has just been forked that has not yet closed its copy.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def disown(self) -> None:
        """In a forked child: closes its copy, which leaves the parent's lock as it is."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


_locks: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _disown_all() -> None:
    for lock in list(_locks):
        lock.disown()


os.register_at_fork(after_in_child=_disown_all)
